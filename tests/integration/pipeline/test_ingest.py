"""A real worker reads good documents; a bad document fails alone."""

import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from schemas import queues
from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.envelope import Envelope
from schemas.ids import TenantId
from schemas.lifecycle import SETTLED_JOBS, DocumentStatus, JobStatus, RevisionState
from schemas.outcomes import Outcome
from schemas.steps import StepName
from schemas.tables.documents import Document, Entity, Page, Revision
from schemas.tables.passages import Passage
from tests.eventually import BUSY_TIMEOUT, eventually
from tests.factories import pdfs
from tests.integration.pipeline.workbench import Workbench
from tests.seen_jobs import SeenJob

MIB = 1024 * 1024

TEXT = "Please write to desk@example.com. The invoice of EUR 1,250.00 is due on 12 March 2026."


def submitted(
    bench: Workbench,
    content: bytes,
    *,
    filename: str = "document.pdf",
    content_type: str | None = None,
    tenant_id: TenantId | None = None,
) -> Envelope:
    event = bench.finalized(
        content, filename=filename, content_type=content_type, tenant_id=tenant_id
    )
    bench.bus.publish(event)
    # The workbench has no relay.
    eventually(lambda: bench.emitted(event), until=bool)
    (stored,) = bench.emitted(event)
    bench.bus.publish(stored)
    return event


def rows(
    bench: Workbench, table: type[Page] | type[Entity] | type[Passage], document: Document
) -> int:
    with Session(bench.engine) as session:
        found = session.scalar(
            select(func.count()).select_from(table).where(table.revision_id == document.revision_id)
        )
    return found or 0


def revision_of(bench: Workbench, document: Document) -> Revision:
    with Session(bench.engine) as session:
        return session.get_one(Revision, document.revision_id)


def test_a_document_appears_with_its_text_and_its_event(bench: Workbench) -> None:
    content = pdfs.with_pages(TEXT, "A second page.", title="Invoice", author="Accounts")
    event = submitted(bench, content)
    job = bench.settled(event)
    assert job.status == JobStatus.COMPLETED, job.error_detail
    document = bench.document(event)
    assert document is not None
    assert (document.status, document.outcome) == (DocumentStatus.INGESTED, Outcome.COMPLETE)
    revision = revision_of(bench, document)
    assert (revision.state, revision.number) == (RevisionState.PUBLISHED, 1)
    assert (revision.page_count, revision.pages_read, revision.pages_failed) == (2, 2, 0)
    assert revision.passages >= 3
    assert rows(bench, Page, document) == 2
    with Session(bench.engine) as session:
        entities = session.execute(
            select(Entity.label, Entity.text).where(Entity.revision_id == document.revision_id)
        )
        assert ("EMAIL", "desk@example.com") in {(label, text) for label, text in entities}
        first = session.get_one(Page, (document.revision_id, 1))
        passages = session.scalars(
            select(Passage)
            .where(Passage.revision_id == document.revision_id)
            .order_by(Passage.page)
        ).all()
    assert [(each.page, each.start) for each in passages] == [(1, 0), (2, 0)]
    assert passages[0].end == len(first.text)
    bounds = list(zip(first.sentences[::2], first.sentences[1::2], strict=True))
    assert [first.text[start:end] for start, end in bounds] == [
        "Please write to desk@example.com.",
        "The invoice of EUR 1,250.00 is due on 12 March 2026.",
    ]
    _, told = bench.emitted(event)
    assert isinstance(told.data, IngestedEvent)
    assert (told.data.pages, told.data.document_id) == (2, document.id)
    assert (told.data.outcome, told.data.revision, told.data.pages_read) == ("complete", 1, 2)
    assert job.result is not None
    assert (job.result["outcome"], job.result["pages"]) == ("complete", 2)


def test_a_repeated_event_does_not_read_the_document_again(bench: Workbench) -> None:
    event = submitted(bench, pdfs.with_pages(TEXT))
    bench.settled(event)
    stored = bench.emitted(event)[0]
    document = bench.document(event)
    assert document is not None
    pages = rows(bench, Page, document)
    passages = rows(bench, Passage, document)
    bench.bus.publish(stored)
    bench.bus.publish(stored)
    bench.settled(submitted(bench, pdfs.with_pages("after them in the queue")))
    assert rows(bench, Page, document) == pages
    assert rows(bench, Passage, document) == passages > 0
    assert len(bench.emitted(event)) == 2


def test_a_document_purged_during_its_reading_leaves_no_rows_and_no_event(
    bench: Workbench,
) -> None:
    event = submitted(bench, pdfs.pages_sharing_a_stream(300, tokens=60_000))
    eventually(lambda: bench.job(event), until=lambda job: job.pages_done > 0)
    bench.cancel(event)
    with Session(bench.engine) as session, session.begin():
        # Blocks until the worker releases its lock.
        session.execute(delete(Document).where(Document.upload_id == event.upload_id))
    good = submitted(bench, pdfs.with_pages(TEXT))
    assert bench.settled(good).status == JobStatus.COMPLETED
    assert [told.type for told in bench.emitted(event)] == ["upload.stored"]
    assert bench.document(event) is None
    assert bench.job(event).status == JobStatus.CANCELLED


def test_the_reader_deletes_a_document_whose_purge_did_not_wait(bench: Workbench) -> None:
    event = submitted(bench, pdfs.pages_sharing_a_stream(300, tokens=60_000))
    eventually(lambda: bench.job(event), until=lambda job: job.pages_done > 0)
    bench.cancel(event)
    eventually(lambda: bench.document(event), until=lambda document: document is None)
    assert [told.type for told in bench.emitted(event)] == ["upload.stored"]


def test_a_document_purged_before_its_reading_is_deleted(bench: Workbench) -> None:
    event = bench.finalized(pdfs.with_pages(TEXT), filename="document.pdf")
    bench.bus.publish(event)
    (stored,) = eventually(lambda: bench.emitted(event), until=bool)
    bench.cancel(event)
    bench.bus.publish(stored)
    eventually(lambda: bench.document(event), until=lambda document: document is None)
    assert bench.emitted(event) == [stored]


BAD = {
    "not a PDF": (pdfs.not_a_pdf, "document_corrupt"),
    "truncated": (pdfs.truncated, "document_corrupt"),
    "no bytes": (pdfs.empty, "document_empty"),
    "no pages": (pdfs.without_pages, "document_empty"),
    "locked": (lambda: pdfs.locked(TEXT, opened_with="the key"), "document_encrypted"),
}

SLOW_PAGES = "300 pages that take a second each"
SLOW = {
    "a bomb": lambda: pdfs.flate_bomb(256 * MIB),
    "a bomb in a bomb": lambda: pdfs.double_flate_bomb(256 * MIB),
    SLOW_PAGES: lambda: pdfs.pages_sharing_a_stream(300, tokens=300_000),
}


def settled_in_either_lane(bench: Workbench, event: Envelope) -> SeenJob:
    """Return the settled job; publish the event of the step that reads the rest, as the relay does."""
    eventually(
        lambda: (
            StepName.INGEST_REST in bench.steps(event) or bench.job(event).status in SETTLED_JOBS
        ),
        until=bool,
        within=BUSY_TIMEOUT,
    )
    if StepName.INGEST_REST in bench.steps(event):
        bench.bus.publish_to(queues.BATCH_PROCESSING, bench.emitted(event)[0])
    return bench.settled(event, within=BUSY_TIMEOUT)


@pytest.mark.timeout(2 * BUSY_TIMEOUT.total_seconds())
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_file_ends_with_its_outcome_and_delays_no_other(name: str, bench: Workbench) -> None:
    slow = submitted(bench, SLOW[name]())
    good = submitted(bench, pdfs.with_pages(TEXT))
    assert bench.settled(good).status == JobStatus.COMPLETED
    job = settled_in_either_lane(bench, slow)
    assert job.status in {JobStatus.COMPLETED, JobStatus.FAILED}
    told = bench.emitted(slow)[-1]
    assert isinstance(told.data, IngestedEvent | DocumentFailed)
    # A fast machine reads the slow pages in time; no machine reads a bomb.
    assert told.data.outcome is not None
    assert told.data.outcome is not Outcome.COMPLETE or name == SLOW_PAGES


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_fails_alone_with_its_error_code(name: str, bench: Workbench) -> None:
    make, code = BAD[name]
    worker = bench.system.processes["ingest"].pid
    bad = submitted(bench, make())
    good = submitted(bench, pdfs.with_pages(TEXT))
    failed = bench.settled(bad)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, code), failed.error_detail
    assert failed.error_detail
    told = bench.emitted(bad)[-1]
    assert isinstance(told.data, DocumentFailed)
    assert told.data.code == code
    document = bench.document(bad)
    assert document is not None
    assert document.status == DocumentStatus.FAILED
    assert bench.settled(good).status == JobStatus.COMPLETED
    assert bench.system.processes["ingest"].pid == worker
