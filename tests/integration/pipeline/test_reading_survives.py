"""A real worker reads on after the death of its child or of itself; no page is lost or written twice."""

from collections.abc import Callable

import psutil
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from schemas import object_keys, queues
from schemas.events.envelope import Envelope
from schemas.lifecycle import DocumentStatus, JobStatus, StepStatus
from schemas.outcomes import Outcome
from schemas.steps import StepName
from schemas.tables.documents import Page, Revision
from schemas.tables.steps import Step
from tests.eventually import BUSY_TIMEOUT, eventually
from tests.factories import pdfs
from tests.factories.uploads import upload_of
from tests.integration.pipeline.test_ingest import TEXT, submitted
from tests.integration.pipeline.workbench import Workbench

PAGES = 200
TOKENS = 150_000
"""Of each page: the document takes several times its CPU share, on a fast machine too."""


def child_of_reader(worker: psutil.Process) -> list[psutil.Process]:
    """Return the children of the pool's processes."""
    return [child for process in worker.children() for child in process.children()]


def processes_of_pool(worker: psutil.Process) -> list[psutil.Process]:
    return worker.children()


def revision_of(bench: Workbench, event: Envelope) -> Revision:
    with Session(bench.engine) as session:
        document = bench.document(event)
        assert document is not None
        return session.get_one(Revision, document.revision_id)


def numbers_of_pages(bench: Workbench, revision: Revision) -> list[int]:
    with Session(bench.engine) as session:
        return list(
            session.scalars(
                select(Page.number).where(Page.revision_id == revision.id).order_by(Page.number)
            )
        )


@pytest.mark.timeout(2 * BUSY_TIMEOUT.total_seconds())
@pytest.mark.parametrize("victims", [child_of_reader, processes_of_pool], ids=["child", "worker"])
def test_a_reading_goes_on_after_a_death(
    victims: Callable[[psutil.Process], list[psutil.Process]], bench: Workbench
) -> None:
    worker = bench.system.processes["batch"].pid
    assert worker is not None
    event = submitted(bench, pdfs.pages_sharing_a_stream(PAGES, tokens=TOKENS))
    eventually(lambda: StepName.INGEST_REST in bench.steps(event), until=bool, within=BUSY_TIMEOUT)
    started_at = bench.step(event, StepName.INGEST_REST).done
    bench.bus.publish_to(queues.BATCH_PROCESSING, bench.emitted(event)[0])
    eventually(
        lambda: bench.step(event, StepName.INGEST_REST).done,
        until=lambda done: done > started_at,
        within=BUSY_TIMEOUT,
    )
    killed = victims(psutil.Process(worker))
    assert killed
    for victim in killed:
        victim.suspend()
    step = bench.step(event, StepName.INGEST_REST)
    assert step.done < PAGES
    assert step.checkpoint is not None
    assert step.checkpoint["seconds"] > 0, "the next worker counts what this one has used"
    for victim in killed:
        victim.kill()
    assert bench.settled(event, within=BUSY_TIMEOUT).status == JobStatus.COMPLETED
    revision = revision_of(bench, event)
    assert revision.outcome is Outcome.COMPLETE
    assert numbers_of_pages(bench, revision) == list(range(1, PAGES + 1))


def test_a_document_is_described_beside_its_reading(bench: Workbench) -> None:
    event = submitted(bench, pdfs.with_pages(TEXT, "Two.", title="Invoice", author="Accounts"))
    assert bench.settled(event).status == JobStatus.COMPLETED
    revision = revision_of(bench, event)
    assert (revision.title, revision.page_count) == ("Invoice", 2)
    assert revision.document_metadata is not None
    assert revision.document_metadata["author"] == "Accounts"
    assert revision.has_thumbnail
    [key] = [key for key in bench.bucket.keys() if str(revision.id) in key]  # noqa: SIM118  # not a mapping
    assert key == f"derived/{event.upload_id}/{revision.id}/thumbnail.png"


def test_a_picture_that_was_stored_after_the_cleanup_is_deleted(bench: Workbench) -> None:
    event = submitted(bench, pdfs.with_pages(TEXT))
    assert bench.settled(event).status == JobStatus.COMPLETED
    prefix = object_keys.derived(upload_of(event))
    assert any(key.startswith(prefix) for key in bench.bucket.keys())  # noqa: SIM118  # not a mapping
    with Session(bench.engine) as session, session.begin():
        session.execute(
            update(Step)
            .where(Step.job_id == event.job_id, Step.name == StepName.METADATA)
            .values(status=StepStatus.CANCELLED)
        )
    bench.bus.publish_to(queues.METADATA_EXTRACTION, bench.emitted(event)[0])
    eventually(
        lambda: [key for key in bench.bucket.keys() if key.startswith(prefix)],  # noqa: SIM118  # not a mapping: a listing
        until=lambda keys: not keys,
    )


def test_a_document_that_cannot_be_described_is_still_read(bench: Workbench) -> None:
    event = submitted(bench, pdfs.with_pages(TEXT))
    assert bench.settled(event).status == JobStatus.COMPLETED
    bad = submitted(bench, pdfs.not_a_pdf())
    assert bench.settled(bad).status == JobStatus.FAILED
    step = eventually(
        lambda: bench.step(bad, StepName.METADATA),
        until=lambda step: step.status is StepStatus.COMPLETED,
    )
    assert step.error_code == "document_corrupt"


def test_the_result_of_the_same_bytes_is_reused(bench: Workbench) -> None:
    content = pdfs.with_pages(TEXT, "Page two.")
    first = submitted(bench, content)
    bench.settled(first)
    second = submitted(bench, content, tenant_id=first.tenantid)
    assert bench.settled(second).status == JobStatus.COMPLETED
    original, copy = revision_of(bench, first), revision_of(bench, second)
    assert copy.reused_from == original.id
    assert numbers_of_pages(bench, copy) == [1, 2]
    document = bench.document(second)
    assert document is not None
    assert document.status is DocumentStatus.INGESTED
