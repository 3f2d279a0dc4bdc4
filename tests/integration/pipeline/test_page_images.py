"""A real worker renders pages that clients ask for; each image is stored once, or not at all."""

import io
from uuid import uuid4

import psutil
from PIL import Image
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from pipeline.context import database_time
from schemas import object_keys, queues
from schemas.events import envelope
from schemas.events.documents import RenderRequested
from schemas.events.envelope import Envelope
from schemas.ids import JobId
from schemas.lifecycle import (
    ACTIVE_STEPS,
    JobKind,
    JobStatus,
    Priority,
    ScanState,
    StepStatus,
)
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.documents import Document, PageImage
from schemas.tables.events import EventRecord, emit
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from tests.eventually import eventually
from tests.factories import pdfs
from tests.integration.pipeline.test_ingest import TEXT, submitted
from tests.integration.pipeline.workbench import Workbench


def read_document(bench: Workbench, content: bytes, *, filename: str = "document.pdf") -> Document:
    event = submitted(bench, content, filename=filename)
    assert bench.settled(event).status == JobStatus.COMPLETED
    document = bench.document(event)
    assert document is not None
    return document


def requested(bench: Workbench, document: Document, *, page: int = 2) -> Envelope:
    """Ask for the image of a page as the gateway does; return the event without publishing it."""
    assert document.revision_id is not None
    with Session(bench.engine) as session, session.begin():
        job = Job(
            id=JobId(uuid4()),
            tenant_id=document.tenant_id,
            kind=JobKind.RENDER,
            document_id=document.id,
            stage=JobStage.RENDER,
        )
        session.add(job)
        session.flush()
        session.add(PageImage(revision_id=document.revision_id, page=page, job_id=job.id))
        event_id = emit(
            session,
            RenderRequested(
                document_id=document.id,
                upload_id=document.upload_id,
                job_id=job.id,
                filename=document.filename,
                size=document.size,
                sha256=document.sha256,
                content_type=document.content_type,
                object_key=document.object_key,
                page=page,
                image_key=object_keys.page_image(
                    document.upload_id, document.revision_id, number=page
                ),
            ),
            tenant_id=document.tenant_id,
            source="/test",
            now=database_time(session),
        )
        steps.add_step(
            session,
            StepName.RENDER,
            job_id=job.id,
            tenant_id=document.tenant_id,
            priority=Priority.INTERACTIVE,
            event_id=event_id,
        )
        session.flush()
        body = session.scalars(select(EventRecord.body).where(EventRecord.id == event_id)).one()
    return envelope.decode(body)


def publish(bench: Workbench, event: Envelope) -> None:
    bench.bus.publish_to(queues.METADATA_EXTRACTION, event)


def ended(bench: Workbench, event: Envelope) -> Step:
    return eventually(
        lambda: bench.step(event, StepName.RENDER),
        until=lambda step: step.status not in ACTIVE_STEPS,
    )


def rendered(bench: Workbench, document: Document, *, page: int = 2) -> Step:
    """Ask for the image of a page; return the step that ended."""
    event = requested(bench, document, page=page)
    publish(bench, event)
    return ended(bench, event)


def key_of(event: Envelope) -> str:
    assert isinstance(event.data, RenderRequested)
    return event.data.image_key


def job_of(bench: Workbench, event: Envelope) -> Job:
    with Session(bench.engine) as session:
        return session.get_one(Job, event.job_id)


def until_acknowledged(bench: Workbench, document: Document) -> None:
    """Return once the worker has handled every message before."""
    rendered(bench, document, page=1)


def test_a_rendered_page_is_stored_beside_the_thumbnail(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    event = requested(bench, document)
    publish(bench, event)
    assert ended(bench, event).status is StepStatus.COMPLETED
    content = bench.bucket.content(key_of(event))
    assert key_of(event) == (f"derived/{document.upload_id}/{document.revision_id}/pages/2.png")
    assert max(Image.open(io.BytesIO(content), formats=["PNG"]).size) == 400
    job = job_of(bench, event)
    assert (job.status, job.stage) == (JobStatus.COMPLETED, JobStage.DONE)
    assert job.result == {"document_id": str(document.id), "page": 2, "bytes": len(content)}


def test_the_cleanup_of_a_cancelled_job_keeps_the_image_of_the_job_after_it(
    bench: Workbench,
) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    first = requested(bench, document)
    assert first.job_id is not None
    with Session(bench.engine) as session, session.begin():
        session.execute(steps.cancel(first.job_id))
        session.execute(delete(PageImage).where(PageImage.job_id == first.job_id))
    second = requested(bench, document)
    publish(bench, second)
    assert ended(bench, second).status is StepStatus.COMPLETED
    publish(bench, first)
    until_acknowledged(bench, document)
    assert key_of(first) == key_of(second)
    assert bench.bucket.content(key_of(second))


def test_a_repeated_event_renders_nothing(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    event = requested(bench, document)
    publish(bench, event)
    before = ended(bench, event)
    bench.bucket.put(key_of(event), b"kept")
    publish(bench, event)
    until_acknowledged(bench, document)
    assert bench.bucket.content(key_of(event)) == b"kept"
    after = bench.step(event, StepName.RENDER)
    assert (after.status, after.finished_at) == (StepStatus.COMPLETED, before.finished_at)


def test_an_image_that_an_earlier_try_stored_completes_the_step(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    event = requested(bench, document)
    bench.bucket.put(key_of(event), b"stored before the worker was killed")
    publish(bench, event)
    assert ended(bench, event).status is StepStatus.COMPLETED


def test_a_page_is_rendered_after_the_death_of_its_worker(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    worker = psutil.Process(bench.system.processes["metadata"].pid)
    event = requested(bench, document)
    with Session(bench.engine) as session, session.begin():
        # The worker claims the step and then waits for the document.
        session.get_one(Document, document.id, with_for_update=True)
        publish(bench, event)
        eventually(
            lambda: bench.step(event, StepName.RENDER).status,
            until=lambda status: status is StepStatus.RUNNING,
        )
        for process in worker.children():
            process.kill()
    assert ended(bench, event).status is StepStatus.COMPLETED
    assert key_of(event) in bench.bucket.keys()  # noqa: SIM118  # not a mapping


def test_a_page_that_cannot_be_rendered_fails_its_job_with_a_reason(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_a_missing_page(TEXT, "Three."))
    event = requested(bench, document)
    publish(bench, event)
    step = ended(bench, event)
    assert (step.status, step.error_code, step.error_retryable) == (
        StepStatus.FAILED,
        "document_corrupt",
        False,
    )
    assert step.error_detail == "Page 2 cannot be rendered. The page is damaged."
    assert job_of(bench, event).status is JobStatus.FAILED
    assert rendered(bench, document, page=3).status is StepStatus.COMPLETED


def test_the_image_of_a_cancelled_job_is_deleted(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    event = requested(bench, document)
    # A worker that was killed stored it after the cleanup of the upload.
    bench.bucket.put(key_of(event), b"late")
    with Session(bench.engine) as session, session.begin():
        session.execute(
            update(Step).where(Step.job_id == event.job_id).values(status=StepStatus.CANCELLED)
        )
    publish(bench, event)
    eventually(bench.bucket.keys, until=lambda keys: key_of(event) not in keys)


def test_a_document_that_is_deleted_meanwhile_leaves_no_image(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    event = requested(bench, document)
    bench.bucket.put(key_of(event), b"late")
    with Session(bench.engine) as session, session.begin():
        session.execute(delete(Document).where(Document.id == document.id))
    publish(bench, event)
    step = ended(bench, event)
    assert (step.status, step.error_code) == (StepStatus.FAILED, "document_not_found")
    assert key_of(event) not in bench.bucket.keys()  # noqa: SIM118  # not a mapping


def test_a_page_of_a_file_with_malware_is_not_rendered(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    event = requested(bench, document)
    with Session(bench.engine) as session, session.begin():
        session.execute(
            update(Document).where(Document.id == document.id).values(scan_state=ScanState.INFECTED)
        )

    publish(bench, event)

    assert ended(bench, event).status is StepStatus.FAILED
    assert key_of(event) not in bench.bucket.keys()  # noqa: SIM118  # not a mapping


def test_a_revision_that_is_deleted_meanwhile_leaves_no_image(bench: Workbench) -> None:
    document = read_document(bench, pdfs.with_pages(TEXT, "Two."))
    event = requested(bench, document)
    bench.bucket.put(key_of(event), b"late")
    with Session(bench.engine) as session, session.begin():
        session.execute(delete(PageImage).where(PageImage.job_id == event.job_id))
    publish(bench, event)
    step = ended(bench, event)
    assert (step.status, step.error_code) == (StepStatus.FAILED, "not_found")
    assert key_of(event) not in bench.bucket.keys()  # noqa: SIM118  # not a mapping
