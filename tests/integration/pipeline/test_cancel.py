"""A cancelled job stops in the middle of its work, and leaves nothing."""

from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from schemas import queues
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled
from schemas.lifecycle import JobStatus, StepStatus
from schemas.runtime.jobs import cancel
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from tests.eventually import eventually
from tests.factories import pdfs
from tests.factories.uploads import upload_of
from tests.integration.pipeline.readers import is_any_at_work, readers_of
from tests.integration.pipeline.test_ingest import submitted
from tests.integration.pipeline.workbench import Workbench

PAGES: Final = 300


def cancelled(bench: Workbench, event: Envelope) -> Envelope:
    """Cancel the job of an event as the gateway does; return the event that starts its cleanup."""
    with Session(bench.engine) as session, session.begin():
        job = session.get_one(Job, event.job_id)
        assert cancel.cancel_job(session, job, source="/test", settings=StepSettings())
        cancel.delete_document(session, upload_of(event))
    with Session(bench.engine) as session:
        body = session.scalars(
            select(EventRecord.body).where(
                EventRecord.job_id == event.job_id, EventRecord.type == UploadCancelled.TYPE
            )
        ).one()
    return envelope.decode(body)


def test_a_cancel_stops_the_reading_of_a_slow_document(bench: Workbench) -> None:
    event = submitted(bench, pdfs.pages_sharing_a_stream(PAGES, tokens=60_000))
    eventually(lambda: bench.job(event), until=lambda job: job.pages_done > 0)
    readers = readers_of(bench, "ingest")
    assert readers

    cleanup = cancelled(bench, event)

    eventually(
        lambda: bench.step(event, StepName.INGEST).lease_owner, until=lambda owner: not owner
    )
    # A reader that had just answered waits for the next document.
    eventually(lambda: is_any_at_work(readers), until=lambda is_any: not is_any)
    step = bench.step(event, StepName.INGEST)
    assert (step.status, step.done < PAGES) == (StepStatus.CANCELLED, True)
    bench.bus.publish_to(queues.UPLOADS, cleanup)
    eventually(
        lambda: bench.step(event, StepName.CLEANUP).status,
        until=lambda status: status is StepStatus.COMPLETED,
        within=timedelta(minutes=1),
    )
    assert bench.job(event).status is JobStatus.CANCELLED
    assert bench.document(event) is None
    assert [key for key in bench.bucket.keys() if str(event.upload_id) in key] == []  # noqa: SIM118  # not a mapping: a listing
