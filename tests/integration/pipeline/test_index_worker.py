"""A real worker makes vectors, through kills and while another model takes over."""

from collections.abc import Iterator
from datetime import timedelta

import psutil
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from pipeline.ingest.after_publish import Following
from pipeline.ingest.frames import PageReading
from pipeline.maintenance.tasks import FillIndex
from schemas import queues, topology
from schemas.events.documents import IndexRequested
from schemas.events.envelope import decode
from schemas.lifecycle import SearchState, StepStatus
from schemas.runtime.embedding import chosen
from schemas.settings import EmbeddingModelName
from schemas.steps import StepName
from schemas.tables.documents import Revision
from schemas.tables.events import EventRecord
from schemas.tables.passages import EmbeddingModel
from tests.eventually import eventually
from tests.factories.readings import add_stored
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.readings import Reading
from tests.integration.pipeline.workbench import Workbench, prepare_staging, workbench

PAGES = 40

VECTORS = text(
    """
    SELECT count(passages.page) AS passages, count(vector.model_id) AS vectors
    FROM passages
    JOIN documents ON documents.revision_id = passages.revision_id
    LEFT JOIN passage_embeddings AS vector
      ON vector.model_id = (SELECT id FROM embedding_models WHERE state = 'active')
         AND vector.revision_id = passages.revision_id
         AND vector.page = passages.page AND vector.ordinal = passages.ordinal
    WHERE documents.id = ANY (:documents)
    """
)


@pytest.fixture(scope="module")
def system(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    settings = {"TRANSFER_LEASE": "3s"}
    with infrastructure.scoped("index", settings=settings, template=migrated_template) as own:
        prepare_staging(own)
        own.start_services("index")
        yield own


@pytest.fixture
def bench(system: Stack) -> Iterator[Workbench]:
    with workbench(system) as bench:
        yield bench


@pytest.fixture
def session(bench: Workbench) -> Iterator[Session]:
    with Session(bench.engine, expire_on_commit=False) as session:
        yield session


def published(session: Session) -> Reading:
    """Publish a document; its event is not given to the broker."""
    reading = Reading(session, add_stored(session, tenant_id=add_tenant(session)))
    sentences = [f"Invoice {number} is due in thirty days." for number in range(1, PAGES + 1)]
    reading.write(
        *(
            PageReading(
                number=number,
                text=sentence,
                engine="pdfium",
                sentences=((0, len(sentence)),),
                language="en",
                language_confidence=0.9,
            )
            for number, sentence in enumerate(sentences, start=1)
        )
    )
    reading.end(following=Following(makes_vectors=True))
    return reading


def publish(bench: Workbench, reading: Reading) -> None:
    with Session(bench.engine) as other:
        body = other.scalars(
            select(EventRecord.body).where(
                EventRecord.job_id == reading.waiting.job_id,
                EventRecord.type == IndexRequested.TYPE,
            )
        ).one()
    bench.bus.publish_to(queues.SEARCH_INDEXING, decode(body))


def ended(reading: Reading) -> StepStatus | None:
    return eventually(
        lambda: reading.step(StepName.INDEX), until=lambda status: status is StepStatus.COMPLETED
    )


def vectors_of(bench: Workbench, *readings: Reading) -> tuple[int, int]:
    """Return how many passages documents show, and how many of them have a vector of the active model."""
    documents = [reading.waiting.document.document_id for reading in readings]
    with Session(bench.engine) as other:
        row = other.execute(VECTORS, {"documents": documents}).one()
    return row.passages, row.vectors


def test_a_killed_worker_is_replaced_and_doubles_nothing(
    bench: Workbench, session: Session
) -> None:
    reading = published(session)
    worker = psutil.Process(bench.system.processes["index"].pid)
    with Session(bench.engine) as locking, locking.begin():
        # The worker claims the step, makes the vectors, and then waits for the revision.
        locking.execute(
            update(Revision).where(Revision.id == reading.revision_id).values(warnings=1)
        )
        publish(bench, reading)
        eventually(
            lambda: reading.step(StepName.INDEX), until=lambda status: status is StepStatus.RUNNING
        )
        for process in worker.children():
            process.kill()
    ended(reading)
    assert vectors_of(bench, reading) == (PAGES, PAGES)
    assert reading.revision.search is SearchState.COMPLETE


def test_a_repeated_event_makes_nothing(bench: Workbench, session: Session) -> None:
    reading, other = published(session), published(session)
    publish(bench, reading)
    ended(reading)
    publish(bench, reading)
    publish(bench, other)
    ended(other)
    assert vectors_of(bench, reading) == (PAGES, PAGES)


def test_search_has_every_vector_of_a_model_while_another_one_takes_over(
    bench: Workbench, session: Session
) -> None:
    readings = [published(session) for _ in range(3)]
    for reading in readings:
        publish(bench, reading)
    for reading in readings:
        ended(reading)
    wanted = chosen.MODELS[EmbeddingModelName.USE]
    bench.system.run(("waybill", "reindex", "--model", "use", "--no-wait"))
    late = published(session)
    publish(bench, late)

    def active() -> str:
        passages, vectors = vectors_of(bench, *readings)
        assert vectors == passages
        with Session(bench.engine) as other:
            return other.scalars(
                select(EmbeddingModel.name).where(EmbeddingModel.state == "active")
            ).one()

    bench.bus.publish_raw(
        b"[[], {}, {}]",
        routing_key=topology.SEARCH_MAINTENANCE,
        content_type="application/json",
        headers={"lang": "py", "task": FillIndex.name, "id": "1"},
    )
    eventually(active, until=lambda name: name == wanted.name, within=timedelta(minutes=1))
    ended(late)
    assert vectors_of(bench, *readings, late) == (4 * PAGES, 4 * PAGES)
