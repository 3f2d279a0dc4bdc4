"""Real workers do the failed steps of retried jobs, and only those."""

from typing import Final

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas import queues
from schemas.errors import ErrorCode, StoreUnavailable
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.lifecycle import DocumentStatus, JobStatus, StagingKind, StepStatus, UploadStatus
from schemas.runtime.jobs import retry
from schemas.runtime.jobs.errors import JobSourceGone
from schemas.settings import ExportSettings, StepSettings
from schemas.steps import StepName
from schemas.tables.documents import Document, Entity, Page, Revision
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.uploads import Upload
from tests.eventually import eventually
from tests.factories import pdfs
from tests.factories.uploads import upload_of
from tests.integration.pipeline.test_ingest import TEXT
from tests.integration.pipeline.workbench import Workbench

SETTINGS: Final = StepSettings()


def retried(bench: Workbench, event: Envelope) -> None:
    with Session(bench.engine) as session, session.begin():
        retry.retry_job(
            session,
            session.get_one(Job, event.job_id),
            actor="test",
            export_ttl=ExportSettings().export_ttl,
            settings=SETTINGS,
        )


def queues_of(bench: Workbench, event: Envelope) -> list[str | None]:
    """Return the queues that the event of a step was given to by a release."""
    with Session(bench.engine) as session:
        return list(
            session.scalars(
                select(OutboxMessage.queue).where(
                    OutboxMessage.event_id == event.id, OutboxMessage.queue.is_not(None)
                )
            )
        )


def test_a_job_that_failed_in_reading_is_read_again_and_not_transferred(
    bench: Workbench,
) -> None:
    event = bench.finalized(pdfs.with_pages(TEXT, "Two."), filename="document.pdf")
    bench.bus.publish(event)
    (stored,) = eventually(lambda: bench.emitted(event), until=bool)
    assert isinstance(stored.data, StoredEvent)
    bench.bus.publish_to(queues.METADATA_EXTRACTION, stored)
    eventually(
        lambda: bench.step(event, StepName.METADATA).status,
        until=lambda status: status is StepStatus.COMPLETED,
    )
    transferred, described = bench.step(event), bench.step(event, StepName.METADATA)
    with Session(bench.engine) as session, session.begin():
        # What an attempt wrote before its failure: a retry must not keep it.
        revision_id = session.scalars(
            select(Revision.id).where(Revision.job_id == event.job_id)
        ).one()
        session.add(Page(revision_id=revision_id, number=2, text="of the failed attempt"))
        session.flush()
        session.add(
            Entity(
                revision_id=revision_id,
                page=2,
                ordinal=0,
                label="X",
                text="o",
                normal_form="o",
                start=0,
                end=1,
            )
        )
        claimed = lease.claim(
            session,
            job_id=stored.data.job_id,
            name=StepName.INGEST,
            owner="the failed attempt",
            settings=SETTINGS,
        )
        assert isinstance(claimed, ClaimedStep)
        lease.release_lease(session, claimed)
        lease.fail(
            session,
            job_id=stored.data.job_id,
            name=StepName.INGEST,
            error=StoreUnavailable("get", reason="it is down"),
            settings=SETTINGS,
        )
        session.get_one(Document, stored.data.document_id).status = DocumentStatus.FAILED
    assert bench.job(event).status is JobStatus.FAILED

    retried(bench, event)
    assert queues.DOCUMENT_PROCESSING in queues_of(bench, stored)
    bench.bus.publish_to(queues.DOCUMENT_PROCESSING, stored)

    assert bench.settled(event).status is JobStatus.COMPLETED
    assert bench.step(event).finished_at == transferred.finished_at
    assert bench.step(event, StepName.METADATA).finished_at == described.finished_at
    document = bench.document(event)
    assert document is not None
    assert (document.status, document.error_code) == (DocumentStatus.INGESTED, None)
    with Session(bench.engine) as session:
        pages = session.scalars(
            select(Page.text).where(Page.revision_id == document.revision_id).order_by(Page.number)
        ).all()
        revision = session.get_one(Revision, document.revision_id)
    assert [page.strip() for page in pages] == [TEXT, "Two."]
    assert revision.has_thumbnail, "the metadata of the first attempt are kept"


def test_a_transfer_of_a_reference_is_retried_once_the_object_is_there(bench: Workbench) -> None:
    event = bench.finalized(staging=StagingKind.REFERENCE, content=b"later")
    with Session(bench.engine) as session:
        source_key = session.get_one(Upload, upload_of(event)).source_key
    assert source_key is not None
    bench.bucket.delete(source_key)
    bench.bus.publish(event)
    failed = bench.settled(event)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.REFERENCE_MISSING)

    bench.bucket.put(source_key, b"later")
    retried(bench, event)
    assert queues.UPLOADS in queues_of(bench, event)
    bench.bus.publish(event)

    job = bench.settled(event)
    assert (job.status, job.error_code, job.bytes_done) == (JobStatus.COMPLETED, None, 5)
    with Session(bench.engine) as session:
        assert session.get_one(Upload, upload_of(event)).status is UploadStatus.STORED
    document = bench.document(event)
    assert document is not None
    assert bench.bucket.content(document.object_key) == b"later"


def test_a_transfer_whose_staged_bytes_are_deleted_is_not_retried(bench: Workbench) -> None:
    event = bench.finalized(b"good", sha256="0" * 64)
    bench.bus.publish(event)
    assert bench.settled(event).status is JobStatus.FAILED
    eventually(lambda: bench.is_staged(event), until=lambda is_staged: not is_staged)

    with pytest.raises(JobSourceGone):
        retried(bench, event)

    assert bench.job(event).status is JobStatus.FAILED
