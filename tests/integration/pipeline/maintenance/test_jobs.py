"""The sweep that deletes ended jobs, and uploads without a document."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from pipeline.context import Context
from pipeline.maintenance import jobs
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.jobs import Summary
from schemas.ids import JobId, TenantId
from schemas.lifecycle import JobStatus, Priority, StepStatus, UploadStatus
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.documents import Document, Page, PageImage
from schemas.tables.jobs import Job
from schemas.tables.steps import Step, TenantSteps
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Chunk, Upload
from tests.factories import ended
from tests.factories.exports import request_export
from tests.factories.readings import add_stored
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import ample_budget, count


@pytest.fixture
def tenant_id(context: Context) -> TenantId:
    with context.transaction() as session:
        return add_tenant(session)


def jobs_left(context: Context) -> set[JobId]:
    with context.transaction() as session:
        return set(session.scalars(select(Job.id)))


@pytest.mark.parametrize("status", [UploadStatus.FAILED, UploadStatus.CANCELLED])
def test_an_ended_job_is_deleted_with_its_steps_and_its_upload(
    context: Context, tenant_id: TenantId, status: UploadStatus
) -> None:
    with context.transaction() as session:
        upload = ended.add_upload(session, tenant_id, status=status)
        ended.add_job(session, tenant_id, status=JobStatus(status), upload=upload)
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=1, uploads=1)
    assert [count(context, table) for table in (Job, Step, Upload, Chunk)] == [0, 0, 0, 0]


def test_jobs_are_kept_until_their_retention_is_over(context: Context, tenant_id: TenantId) -> None:
    with context.transaction() as session:
        upload = ended.add_upload(session, tenant_id, status=UploadStatus.FAILED)
        at = ended.yesterday(session)
        ended.add_job(session, tenant_id, status=JobStatus.FAILED, upload=upload, at=at)
        add_stored(session, tenant_id=tenant_id)  # an open job
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=0, uploads=0)
    assert (count(context, Job), count(context, Upload)) == (2, 2)


def test_a_document_outlives_its_job_and_keeps_its_upload(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        document = ended.add_document(session, tenant_id)
        used = session.scalars(select(TenantUsage.bytes)).one()
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=1, uploads=0)
    tables = (Job, Step, Chunk, Upload, Document, Page)
    assert [count(context, table) for table in tables] == [0, 0, 0, 1, 1, 2]
    with context.transaction() as session:
        assert session.get_one(Document, document.id).job_id == document.job_id
        assert session.scalars(select(TenantUsage.bytes)).one() == used


def test_the_job_of_an_export_is_kept_as_long_as_the_export(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        event = request_export(session, tenant_id)
        job = session.get_one(Job, event.job_id)
        session.get_one(Step, (job.id, StepName.EXPORT)).status = StepStatus.COMPLETED
        session.flush()
        session.refresh(job)
        job.finished_at = ended.LONG_AGO
        other = ended.add_job(session, tenant_id, at=ended.LONG_AGO + timedelta(days=1))
    assert jobs.sweep(context, ample_budget()).jobs == 1
    assert jobs_left(context) == {job.id} != {other.id}


def test_a_job_is_kept_until_its_cleanup_has_ended(context: Context, tenant_id: TenantId) -> None:
    with context.transaction() as session:
        upload = ended.add_upload(session, tenant_id, status=UploadStatus.CANCELLED)
        job = ended.add_job(session, tenant_id, status=JobStatus.CANCELLED, upload=upload)
        steps.add_step(
            session,
            StepName.CLEANUP,
            job_id=job.id,
            tenant_id=tenant_id,
            priority=Priority.INTERACTIVE,
            event_id=ended.an_event_id(),
        )
        session.flush()
        session.refresh(job)
        job.finished_at = ended.LONG_AGO
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=0, uploads=0)
    with context.transaction() as session:
        session.get_one(Step, (job.id, StepName.CLEANUP)).status = StepStatus.COMPLETED
        session.flush()
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=1, uploads=1)
    with context.transaction() as session:
        open_steps = session.scalars(select(TenantSteps.waiting + TenantSteps.in_broker)).all()
    assert set(open_steps) == {0}


def test_a_job_whose_upload_a_request_has_locked_is_kept(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        upload = ended.add_upload(session, tenant_id, status=UploadStatus.FAILED)
        locked = ended.add_job(session, tenant_id, status=JobStatus.FAILED, upload=upload)
        ended.add_job(session, tenant_id)
    with context.transaction() as request:
        request.execute(select(Upload).where(Upload.id == upload.id).with_for_update())
        assert jobs.sweep(context, ample_budget()) == Summary(jobs=1, uploads=0)
    assert jobs_left(context) == {locked.id}
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=1, uploads=1)


def test_an_image_outlives_its_job_and_a_page_without_one_may_be_asked_for_again(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        document = ended.add_document(session, tenant_id)
        ended.add_image(session, document, page=1, status=JobStatus.COMPLETED)
        ended.add_image(session, document, page=2, status=JobStatus.FAILED)
    assert jobs.sweep(context, ample_budget()).jobs == 3
    with context.transaction() as session:
        images = session.execute(select(PageImage.page, PageImage.job_id)).all()
    assert [tuple(image) for image in images] == [(1, None)]


@pytest.mark.parametrize(
    "status", [UploadStatus.EXPIRED, UploadStatus.CANCELLED, UploadStatus.FAILED]
)
def test_an_upload_that_was_never_finalized_is_deleted_after_its_expiry(
    context: Context, tenant_id: TenantId, status: UploadStatus
) -> None:
    with context.transaction() as session:
        at = ended.yesterday(session)
        for each in (ended.LONG_AGO, at):
            ended.add_upload(session, tenant_id, status=status, is_finalized=False, at=each)
        ended.add_upload(session, tenant_id, status=UploadStatus.OPEN, is_finalized=False)
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=0, uploads=1)
    assert count(context, Upload) == 2


def test_every_job_is_deleted_in_short_transactions(
    context: Context, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    monkeypatch.setattr(jobs, "CHUNKS", 3)
    with context.transaction() as session:
        for chunks in (1, 4, 2, 2, 1):
            upload = ended.add_upload(session, tenant_id, status=UploadStatus.FAILED, chunks=chunks)
            ended.add_job(session, tenant_id, status=JobStatus.FAILED, upload=upload)
            ended.add_upload(session, tenant_id, status=UploadStatus.EXPIRED, is_finalized=False)
    assert jobs.sweep(context, ample_budget()) == Summary(jobs=5, uploads=10)
    assert [count(context, table) for table in (Job, Upload, Chunk)] == [0, 0, 0]


def test_a_sweep_without_time_deletes_no_job(context: Context, tenant_id: TenantId) -> None:
    with context.transaction() as session:
        ended.add_job(session, tenant_id)
    assert jobs.sweep(context, Budget(ends_at=0)) == Summary(jobs=0, uploads=0)
