"""A seeded library is one that the product could have written."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, func, select, text

from dev.seed.library import MAIN, LibraryExtent, seed_library
from dev.seed.load import SeedRefused, remove
from dev.stack.stack import Stack
from schemas.settings import EmbeddingSettings
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.jobs import Job
from schemas.tables.passages import Passage, PassageEmbedding
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.stack import fresh_name

EXTENT = LibraryExtent(passages=200, small_tenants=1, settings=EmbeddingSettings())

INDEXES = text(
    "SELECT indexname FROM pg_indexes WHERE tablename LIKE 'passage%' ORDER BY indexname"
)


@pytest.fixture(scope="module")
def seeded(infrastructure: Stack, migrated_template: str) -> Iterator[str]:
    """The URL of a database with a library."""
    name = fresh_name()
    url = infrastructure.create_database(name, template=migrated_template)["DATABASE_URL"]
    seed_library(url, EXTENT)
    yield url
    infrastructure.drop_database(name)


@pytest.fixture
def connection(seeded: str) -> Iterator[Connection]:
    engine = create_engine(seeded)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_every_passage_is_a_part_of_a_page_that_clients_see(connection: Connection) -> None:
    shown = connection.execute(
        select(
            Passage.digest,
            func.md5(func.substr(Page.text, Passage.start + 1, Passage.end - Passage.start)),
        )
        .join(Document, Document.revision_id == Passage.revision_id)
        .join(Page, (Page.revision_id == Passage.revision_id) & (Page.number == Passage.page))
        .join(Revision, Revision.id == Passage.revision_id)
        .join(Job, Job.id == Document.job_id)
        .join(Upload, Upload.id == Document.upload_id)
        .where(Passage.tenant_id == Document.tenant_id, Passage.document_id == Document.id)
    ).all()

    assert len(shown) == EXTENT.passages
    assert all(digest.hex == md5 for digest, md5 in shown)


def test_every_passage_has_a_vector_of_length_one(connection: Connection) -> None:
    lengths = connection.scalars(
        select(func.l2_norm(PassageEmbedding.embedding)).join(
            Passage,
            (Passage.revision_id == PassageEmbedding.revision_id)
            & (Passage.page == PassageEmbedding.page)
            & (Passage.ordinal == PassageEmbedding.ordinal),
        )
    ).all()

    assert len(lengths) == EXTENT.passages
    assert lengths == pytest.approx([1.0] * len(lengths), abs=0.01)


def test_a_small_tenant_owns_a_hundredth(connection: Connection) -> None:
    owned = connection.execute(
        select(Tenant.name, func.count())
        .join(Passage, Passage.tenant_id == Tenant.id)
        .group_by(Tenant.name)
    )

    assert {tuple(each) for each in owned} == {(MAIN, 198), (f"{MAIN}-01", 2)}


def test_a_library_is_not_seeded_twice(seeded: str) -> None:
    with pytest.raises(SeedRefused, match="has a library already"):
        seed_library(seeded, EXTENT)


def test_a_removal_leaves_nothing_and_the_indexes_are_built_again(
    connection: Connection, seeded: str
) -> None:
    indexes = connection.scalars(INDEXES).all()
    assert {"ix_passages_search", "ix_passage_embeddings_1_nearest"} <= set(indexes)

    remove(seeded)

    for table in (Tenant, Document, Page, Passage, PassageEmbedding):
        assert connection.scalar(select(func.count()).select_from(table)) == 0
