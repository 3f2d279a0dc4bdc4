"""The vectors of passages are made once, survive kills, and change to a new model without a gap."""

from collections.abc import Iterator
from typing import Final

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from gateway.administration import reindex
from gateway.administration.reindex import ReindexRefused
from pipeline.context import Context, install_context
from pipeline.index import fill, vectors
from pipeline.index import revision as revisions
from pipeline.index.task import IndexPassages
from pipeline.ingest.after_publish import Following
from pipeline.ingest.frames import PageReading
from pipeline.messaging.event_task import MessageDelivery, UnexpectedFailure
from schemas.events.documents import IndexRequested
from schemas.events.envelope import Envelope, decode
from schemas.ids import TenantId
from schemas.lifecycle import EmbeddingModelState, JobStatus, SearchState, StepStatus
from schemas.runtime.embedding import chosen, models
from schemas.runtime.embedding.port import EmbedderUnavailable
from schemas.settings import EmbeddingModelName
from schemas.steps import StepName
from schemas.tables.documents import Document, Revision
from schemas.tables.events import EventRecord
from schemas.tables.passages import EmbeddingModel, Passage, PassageEmbedding
from tests.factories.readings import add_stored
from tests.factories.uploads import add_tenant
from tests.fakes.embedder import LETTERS
from tests.integration.pipeline.readings import Reading

STATIC: Final = chosen.MODELS[EmbeddingModelName.USE_STATIC]
MAKES_VECTORS: Final = Following(makes_vectors=True)
DELIVERY: Final = MessageDelivery(attempt=0, crashes=0, waits=0, traceparent=None)


class Killed(BaseException):
    """The worker dies here."""


@pytest.fixture
def session(context: Context) -> Iterator[Session]:
    with Session(context.engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process have a second model, of another dimension."""
    monkeypatch.setattr(
        chosen,
        "MODELS",
        {EmbeddingModelName.USE_STATIC: STATIC, EmbeddingModelName.USE: LETTERS},
    )


@pytest.fixture
def tenant_id(session: Session) -> TenantId:
    return add_tenant(session)


def pages(count: int) -> list[PageReading]:
    sentences = [
        f"Page {number} has the invoice of month {number} and its payment."
        for number in range(1, count + 1)
    ]
    return [
        PageReading(
            number=number,
            text=sentence,
            engine="pdfium",
            sentences=((0, len(sentence)),),
            language="en",
            language_confidence=0.9,
        )
        for number, sentence in enumerate(sentences, start=1)
    ]


def published(
    session: Session, tenant_id: TenantId, *, count: int = 3, following: Following = MAKES_VECTORS
) -> Reading:
    reading = Reading(session, add_stored(session, tenant_id=tenant_id))
    reading.write(*pages(count))
    reading.describe()
    reading.end(following=following)
    return reading


def event_of(session: Session, reading: Reading) -> Envelope:
    body = session.scalars(
        select(EventRecord.body).where(
            EventRecord.job_id == reading.waiting.job_id, EventRecord.type == IndexRequested.TYPE
        )
    ).one()
    session.rollback()
    return decode(body)


def run(context: Context, session: Session, reading: Reading) -> None:
    install_context(context)
    IndexPassages().handle(event_of(session, reading), DELIVERY)


def model(session: Session, name: str) -> EmbeddingModel:
    session.rollback()
    return session.scalars(select(EmbeddingModel).where(EmbeddingModel.name == name)).one()


def without_vector(session: Session, model_id: int) -> int:
    """Return how many passages that clients see have no vector of a model."""
    session.rollback()
    found: int = session.scalars(
        text(
            """
            SELECT count(*) FROM passages
            JOIN documents ON documents.revision_id = passages.revision_id
            LEFT JOIN passage_embeddings AS vector
              ON vector.model_id = :model_id AND vector.revision_id = passages.revision_id
                 AND vector.page = passages.page AND vector.ordinal = passages.ordinal
            WHERE vector.model_id IS NULL
            """
        ),
        {"model_id": model_id},
    ).one()
    return found


def count(session: Session, table: type[Passage | PassageEmbedding]) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(table)) or 0


def never() -> bool:
    return False


def test_the_job_does_not_wait_for_the_vectors(session: Session, tenant_id: TenantId) -> None:
    reading = published(session, tenant_id)
    assert reading.step(StepName.INDEX) is StepStatus.QUEUED
    assert reading.job_status() is JobStatus.COMPLETED
    assert reading.job.finished_at is not None
    assert reading.revision.search is SearchState.PENDING
    assert reading.ingested().revision == 1


def test_without_a_model_there_is_no_step(session: Session, tenant_id: TenantId) -> None:
    reading = published(session, tenant_id, following=Following())
    assert reading.step(StepName.INDEX) is None
    assert reading.revision.search is SearchState.WORDS


def test_the_step_makes_a_vector_of_every_passage(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    reading = published(session, tenant_id)
    run(context, session, reading)
    active = model(session, STATIC.name)
    assert (active.state, active.dimension) == (EmbeddingModelState.ACTIVE, STATIC.dimension)
    assert without_vector(session, active.id) == 0
    assert count(session, PassageEmbedding) == 3
    assert reading.revision.search is SearchState.COMPLETE
    assert reading.step(StepName.INDEX) is StepStatus.COMPLETED
    run(context, session, reading)
    assert count(session, PassageEmbedding) == 3


def test_the_nearest_vector_is_that_of_the_text(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    reading = published(session, tenant_id)
    run(context, session, reading)
    query = chosen.named(STATIC.name).embed([pages(3)[1].text])[0]
    page, distance = session.execute(
        text(
            "SELECT page, embedding <=> CAST(:query AS halfvec) AS distance"
            " FROM passage_embeddings ORDER BY distance LIMIT 1"
        ),
        {"query": str(query.tolist())},
    ).one()
    assert page == 2
    assert distance == pytest.approx(0, abs=0.001)


def test_a_killed_worker_loses_a_batch_at_most_and_doubles_nothing(
    context: Context,
    session: Session,
    tenant_id: TenantId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vectors, "BATCH", 2)
    reading = published(session, tenant_id, count=5)

    def die(_: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        revisions.index(context, reading.revision_id, after_batch=die)
    assert count(session, PassageEmbedding) == 2
    batches = list[int]()
    state = revisions.index(context, reading.revision_id, after_batch=batches.append)
    assert (state, batches) == (SearchState.COMPLETE, [2, 1])
    assert count(session, PassageEmbedding) == 5


def test_a_document_that_is_deleted_meanwhile_keeps_no_vector(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    reading = published(session, tenant_id)
    run(context, session, reading)
    other = published(session, tenant_id)
    for each in (reading, other):
        session.execute(delete(Document).where(Document.id == each.waiting.document.document_id))
    session.commit()
    run(context, session, other)
    assert count(session, PassageEmbedding) == 0
    assert other.step(StepName.INDEX) is StepStatus.COMPLETED


def test_a_failure_is_shown_as_the_state_of_the_search_alone(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    reading = published(session, tenant_id)
    install_context(context)
    IndexPassages().give_up(event_of(session, reading), UnexpectedFailure(2), DELIVERY)
    assert reading.revision.search is SearchState.FAILED
    assert reading.step(StepName.INDEX) is StepStatus.COMPLETED
    assert reading.job_status() is JobStatus.COMPLETED


def test_a_model_that_is_missing_leaves_the_words(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    with context.transaction() as own:
        models.add(
            own,
            chosen.Model(name="gone-1", dimension=3, load=STATIC.load),
            state=EmbeddingModelState.ACTIVE,
        )
    reading = published(session, tenant_id)
    run(context, session, reading)
    assert reading.revision.search is SearchState.WORDS
    assert reading.step(StepName.INDEX) is StepStatus.COMPLETED


def test_documents_that_were_published_without_a_model_get_their_vectors(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    words = published(session, tenant_id, following=Following())
    lost = published(session, tenant_id)
    session.execute(text("DELETE FROM steps WHERE name = 'index'"))
    session.commit()
    waiting, before_tables = published(session, tenant_id), published(session, tenant_id)
    session.execute(
        text("UPDATE steps SET name = 'tables' WHERE name = 'index' AND job_id = :job_id"),
        {"job_id": before_tables.waiting.job_id},
    )
    session.commit()
    assert fill.sweep(context, is_spent=never).indexed == 2
    assert [each.revision.search for each in (words, lost, waiting, before_tables)] == [
        SearchState.COMPLETE,
        SearchState.COMPLETE,
        SearchState.PENDING,
        SearchState.PENDING,
    ]


def ordered(context: Context, wanted: chosen.Model) -> int:
    with context.transaction() as session:
        return reindex.begin(session, wanted)


def test_a_new_model_is_filled_beside_the_old_one_and_then_switched(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    readings = [published(session, tenant_id) for _ in range(3)]
    for reading in readings:
        run(context, session, reading)
    assert fill.sweep(context, is_spent=never).filled == 3
    old = model(session, STATIC.name)
    new_id = ordered(context, LETTERS)
    assert ordered(context, LETTERS) == new_id
    turns = iter([False, False, True])
    first = fill.sweep(context, is_spent=lambda: next(turns, True))
    assert (first.filled, first.switched) == (1, 0)
    assert model(session, STATIC.name).state is EmbeddingModelState.ACTIVE
    late = published(session, tenant_id)
    run(context, session, late)  # under both models
    assert without_vector(session, old.id) == 0
    second = fill.sweep(context, is_spent=never)
    assert second.switched == 1
    new = model(session, LETTERS.name)
    assert (new.id, new.state) == (new_id, EmbeddingModelState.ACTIVE)
    assert new.filled_at is not None
    assert without_vector(session, new_id) == 0
    assert model(session, STATIC.name).state is EmbeddingModelState.RETIRED
    assert without_vector(session, old.id) == 0  # for searches that have begun
    session.execute(update(EmbeddingModel).values(activated_at=text("now() - interval '1 hour'")))
    session.commit()
    assert fill.sweep(context, is_spent=never).dropped == 1
    assert session.scalars(select(EmbeddingModel.name)).all() == [LETTERS.name]
    assert count(session, PassageEmbedding) == count(session, Passage)


def test_a_new_model_replaces_one_that_this_version_lacks(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    with context.transaction() as own:
        models.add(
            own,
            chosen.Model(name="gone-2", dimension=3, load=STATIC.load),
            state=EmbeddingModelState.ACTIVE,
        )
    run(context, session, published(session, tenant_id))
    new_id = ordered(context, LETTERS)

    with pytest.raises(EmbedderUnavailable, match="gone-2"):
        fill.sweep(context, is_spent=never)

    assert model(session, LETTERS.name).state is EmbeddingModelState.ACTIVE
    assert without_vector(session, new_id) == 0
    fill.sweep(context, is_spent=never)


def test_a_reindex_goes_on_after_a_kill(
    context: Context,
    session: Session,
    tenant_id: TenantId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fill, "PAGE", 1)
    readings = [published(session, tenant_id) for _ in range(3)]
    for reading in readings:
        run(context, session, reading)
    fill.sweep(context, is_spent=never)
    new_id = ordered(context, LETTERS)
    made = vectors.make
    calls = list[object]()

    def die_second(*args: object, **kwargs: object) -> int:
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return made(*args, **kwargs)  # type: ignore[arg-type]  # the same arguments

    monkeypatch.setattr(vectors, "make", die_second)
    with pytest.raises(Killed):
        fill.sweep(context, is_spent=never)
    assert model(session, LETTERS.name).revisions_done == 1
    summary = fill.sweep(context, is_spent=never)
    assert (summary.filled, summary.switched) == (2, 1)
    assert without_vector(session, new_id) == 0


def test_a_new_model_that_is_given_up_while_it_is_filled_ends_the_turn_alone(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    run(context, session, published(session, tenant_id))
    fill.sweep(context, is_spent=never)
    new_id = ordered(context, LETTERS)

    def give_up() -> bool:
        with context.transaction() as own:
            models.drop(own, new_id)
        return False

    summary = fill.sweep(context, is_spent=give_up)

    assert (summary.filled, summary.switched) == (0, 0)
    assert session.scalars(select(EmbeddingModel.name)).all() == [STATIC.name]
    assert without_vector(session, model(session, STATIC.name).id) == 0


def test_a_model_whose_vectors_are_being_written_is_not_dropped(
    context: Context,
    session: Session,
    tenant_id: TenantId,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(context, session, published(session, tenant_id))
    new_id = ordered(context, LETTERS)
    monkeypatch.setattr(models, "LOCK_TIMEOUT", "50ms")
    session.rollback()
    assert models.keep(session, new_id)

    with pytest.raises(OperationalError, match="lock timeout"), context.transaction() as own:
        models.drop(own, new_id)

    session.rollback()
    assert not models.keep(session, new_id + 1)


def test_a_second_new_model_waits_for_the_first_one(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    run(context, session, published(session, tenant_id))
    ordered(context, LETTERS)
    third = chosen.Model(name="third-1", dimension=8, load=LETTERS.load)
    with pytest.raises(ReindexRefused, match="letters-1-26 are being made"):
        ordered(context, third)


def test_the_first_model_of_a_database_is_active_at_once(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    published(session, tenant_id, following=Following())
    ordered(context, STATIC)
    assert model(session, STATIC.name).state is EmbeddingModelState.ACTIVE
    assert fill.sweep(context, is_spent=never).indexed == 1


def test_a_repeated_reindex_of_the_active_model_makes_what_failed(
    context: Context,
    session: Session,
    tenant_id: TenantId,
) -> None:
    reading = published(session, tenant_id)
    run(context, session, reading)
    fill.sweep(context, is_spent=never)
    session.execute(delete(PassageEmbedding))
    session.execute(update(Revision).values(search=SearchState.FAILED))
    session.commit()
    assert fill.sweep(context, is_spent=never) == fill.Summary()
    model_id = ordered(context, STATIC)
    fill.sweep(context, is_spent=never)
    assert without_vector(session, model_id) == 0
    assert reading.revision.search is SearchState.COMPLETE
