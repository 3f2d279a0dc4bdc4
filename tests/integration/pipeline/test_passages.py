"""Passages are written, replaced, copied and deleted with their pages."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from pipeline.ingest import record, writer
from pipeline.ingest.extractors.extractor import Span, SpanKind
from pipeline.ingest.frames import DocumentRead, PageReading
from schemas.ids import RevisionId, TenantId
from schemas.lifecycle import PassageKind
from schemas.outcomes import Outcome
from schemas.policy import search_words
from schemas.settings import DatabaseSettings
from schemas.steps import StepName
from schemas.tables.passages import Passage, PassageEmbedding
from tests.factories.embedding_models import add_model
from tests.factories.readings import BUDGET, SETTINGS, a_page, add_reprocessing, add_stored
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.readings import VERSION, Reading

HEADER, BODY = "Annual report 2024", "The carriers signed the notes in Cáceres."
OTHER = "Die Frachtbriefe nannten den Hafen von Köln."
VECTORS = """
INSERT INTO passage_embeddings (revision_id, page, ordinal, model_id, tenant_id, document_id, embedding)
SELECT revision_id, page, ordinal, :model_id, tenant_id, document_id, ('[' || page || ',1]')::halfvec FROM passages
"""


@pytest.fixture
def engine(database: DatabaseSettings) -> Iterator[Engine]:
    engine = create_engine(database.database_url.get_secret_value())
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture
def tenant_id(session: Session) -> TenantId:
    return add_tenant(session)


@pytest.fixture
def reading(session: Session, tenant_id: TenantId) -> Reading:
    return Reading(session, add_stored(session, tenant_id=tenant_id))


def page_of(number: int, body: str, *, language: str | None = "en") -> PageReading:
    """Return a page with a header."""
    size = len(HEADER) + 1
    return PageReading(
        number=number,
        text=f"{HEADER}\n{body}",
        spans=(Span(SpanKind.HEADER, 0, len(HEADER)),),
        sentences=((size, size + len(body)),) if body else (),
        language=language,
        engine="pdfium",
    )


def passages(session: Session, revision_id: RevisionId) -> list[Passage]:
    session.expire_all()
    found = session.scalars(
        select(Passage)
        .where(Passage.revision_id == revision_id)
        .order_by(Passage.page, Passage.ordinal)
    ).all()
    session.rollback()
    return list(found)


def add_vectors(session: Session) -> None:
    """Add a vector to every passage; it has the number of the page."""
    session.execute(text(VECTORS), {"model_id": add_model(session, dimension=2)})
    session.commit()


def vectors(session: Session, revision_id: RevisionId) -> dict[int, str]:
    """Return the vectors of a revision, by page."""
    found = session.execute(
        select(PassageEmbedding.page, PassageEmbedding.embedding).where(
            PassageEmbedding.revision_id == revision_id
        )
    ).all()
    session.rollback()
    return {row.page: row.embedding for row in found}


def finds(session: Session, query: str, *, configuration: str = "english") -> list[int]:
    """Return the pages whose passages a text query finds."""
    words = func.websearch_to_tsquery(text(f"'{configuration}'"), query)
    found = session.scalars(select(Passage.page).where(Passage.search.op("@@")(words))).all()
    session.rollback()
    return sorted(found)


def test_a_passage_has_its_place_and_no_header(reading: Reading, session: Session) -> None:
    reading.write(page_of(1, BODY), page_of(2, ""))
    (passage,) = passages(session, reading.revision_id)
    start = len(HEADER) + 1
    assert (passage.page, passage.ordinal, passage.kind) == (1, 0, PassageKind.TEXT)
    assert (passage.start, passage.end) == (start, start + len(BODY))
    assert reading.page(1).text[passage.start : passage.end] == BODY
    assert (passage.language, passage.text) == ("en", None)
    assert passage.tenant_id == reading.waiting.tenant_id
    assert passage.document_id == reading.waiting.document.document_id


def test_a_passage_is_found_by_normal_forms_words_as_written_and_marks(
    reading: Reading, session: Session
) -> None:
    reading.write(
        page_of(1, BODY), page_of(2, OTHER, language="de"), page_of(3, OTHER, language=None)
    )
    assert finds(session, "carrier signing") == [1]
    assert finds(session, '"carriers signed"', configuration="simple") == [1]
    assert finds(session, search_words.searched("Cáceres"), configuration="simple") == [1]
    assert finds(session, "Frachtbrief", configuration="german") == [2]
    assert finds(session, "Koln", configuration="simple") == [2, 3]
    assert finds(session, "Annual") == []
    document = reading.waiting.document
    for mark, expected in (
        (search_words.tenant_mark(reading.waiting.tenant_id), [1, 2, 3]),
        (search_words.document_mark(document.document_id), [1, 2, 3]),
        (search_words.kind_mark(PassageKind.TEXT), [1, 2, 3]),
        (search_words.kind_mark(PassageKind.TABLE), []),
        (search_words.language_mark("de"), [2]),
        (search_words.language_mark(None), [3]),
    ):
        query = text(
            "SELECT page FROM passages WHERE search @@ CAST(:mark AS tsquery) ORDER BY page"
        )
        assert session.scalars(query, {"mark": f"'{mark}'"}).all() == expected, mark
    session.rollback()


def test_words_as_written_do_not_count_twice_in_a_rank(reading: Reading, session: Session) -> None:
    reading.write(page_of(1, "The port."), page_of(2, "The port.", language=None))
    ranks = session.scalars(
        text("SELECT ts_rank('{0,0,0,1}', search, 'port') FROM passages ORDER BY page")
    ).all()
    session.rollback()
    assert ranks[0] == ranks[1] > 0


def test_every_configuration_exists(session: Session) -> None:
    known = set(session.scalars(text("SELECT cfgname FROM pg_ts_config")))
    session.rollback()
    assert {*search_words.CONFIGURATIONS.values(), search_words.AS_WRITTEN} <= known


def test_a_page_of_two_million_characters_is_written(reading: Reading, session: Session) -> None:
    body = (f"{BODY} " * 50_000)[:2_000_000]
    page = page_of(1, body)
    reading.write(PageReading(number=1, text=page.text, language="en", engine="pdfium"))
    found = passages(session, reading.revision_id)
    assert len(found) > 2_000
    assert max(each.tokens for each in found) <= BUDGET.most


def test_ocr_replaces_the_passages_of_a_page(reading: Reading, session: Session) -> None:
    reading.describe()
    reading.write(page_of(1, BODY), a_page(2, outcome=Outcome.NEEDS_OCR))
    reading.end(is_ocr_available=True)
    assert [each.page for each in passages(session, reading.revision_id)] == [1]
    ocr = reading.next_step(StepName.OCR)
    ocr.recognise(page_of(2, OTHER, language="de"))
    ocr.end_recognition()

    assert [each.page for each in passages(session, reading.revision_id)] == [1, 2]
    assert finds(session, "Frachtbrief", configuration="german") == [2]


def test_a_retry_deletes_the_passages_that_the_earlier_attempt_left(
    reading: Reading, session: Session
) -> None:
    reading.write(page_of(1, BODY), page_of(2, OTHER))
    add_vectors(session)
    is_over = writer.discard_leftovers(
        session,
        replace(reading.claimed, done=1),
        document=reading.waiting.document,
        revision_id=reading.revision_id,
        settings=SETTINGS,
    )
    session.commit()
    assert not is_over
    assert [each.page for each in passages(session, reading.revision_id)] == [1]
    assert list(vectors(session, reading.revision_id)) == [1]


def test_a_reprocess_keeps_the_vectors_of_unchanged_text(
    reading: Reading, session: Session
) -> None:
    reading.write(page_of(1, BODY), page_of(2, OTHER))
    reading.end()
    add_vectors(session)
    again = Reading(session, add_reprocessing(session, reading.waiting))

    again.write(page_of(1, BODY), page_of(2, f"{OTHER} {OTHER}"))

    assert vectors(session, again.revision_id) == {1: "[1,1]"}
    assert vectors(session, reading.revision_id) == {1: "[1,1]", 2: "[2,1]"}


def test_a_copy_has_the_passages_of_the_duplicate_under_its_own_mark(
    reading: Reading, session: Session, tenant_id: TenantId
) -> None:
    reading.write(page_of(1, BODY), page_of(2, OTHER, language="de"))
    reading.end(read=DocumentRead(language="en"))
    copying = Reading(session, add_stored(session, tenant_id=tenant_id))
    duplicate = record.find_duplicate(
        session, copying.waiting.document, tenant_id=tenant_id, pipeline_version=VERSION
    )
    assert duplicate is not None
    copying.claimed = writer.copy_pages(
        session,
        copying.claimed,
        document=copying.waiting.document,
        revision_id=copying.revision_id,
        duplicate=duplicate,
        total=2,
        settings=SETTINGS,
    )
    session.commit()

    source, copied = (passages(session, each.revision_id) for each in (reading, copying))
    names = ("page", "ordinal", "kind", "start", "end", "language", "digest", "tokens", "tenant_id")
    assert [[getattr(each, name) for name in names] for each in copied] == [
        [getattr(each, name) for name in names] for each in source
    ]
    for each in (reading, copying):
        mark = search_words.document_mark(each.waiting.document.document_id)
        marked = session.scalars(
            text("SELECT revision_id FROM passages WHERE search @@ CAST(:mark AS tsquery)"),
            {"mark": f"'{mark}'"},
        ).all()
        assert marked == [each.revision_id] * 2
    session.rollback()


def test_the_passages_of_a_deleted_document_are_deleted(reading: Reading, session: Session) -> None:
    reading.write(page_of(1, BODY))
    add_vectors(session)
    session.execute(text("DELETE FROM documents"))
    session.commit()
    assert passages(session, reading.revision_id) == []
    assert vectors(session, reading.revision_id) == {}
