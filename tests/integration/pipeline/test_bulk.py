"""Actions on many jobs: what they change, and what is counted after deaths and cancels."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.bulk.task import ActOnJobs
from pipeline.bulk.walk import BATCH, Walk
from pipeline.context import Context, build_context, database_time, install_context
from pipeline.ingest.extractors import registry
from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.jobs import JobActionRequested
from schemas.ids import JobId, TenantId
from schemas.lifecycle import (
    JobAction,
    JobKind,
    JobStatus,
    Priority,
    StepStatus,
    UploadStatus,
)
from schemas.settings import DatabaseSettings
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.events import EventRecord, emit
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload
from tests.factories.jobs import step_update
from tests.factories.readings import add_stored
from tests.factories.uploads import add_finalized_upload, add_tenant
from tests.integration.pipeline.transfer_worker import worker_settings

ALL_KINDS = tuple(kind for kind in JobKind if kind is not JobKind.BULK)


class Died(BaseException):
    """Stands for the death of a worker."""


class _ActOnJobs(ActOnJobs):
    """A class of its own: the registration changes the class."""

    abstract = True


class BulkWorker:
    """The real task and a real database, without a broker."""

    def __init__(self, context: Context) -> None:
        self.context = context
        install_context(context)
        self._task = _ActOnJobs()
        app = Celery("tests", set_as_current=False)
        app.conf["waybill_task_attempts"] = 1
        app.register_task(self._task)
        with self.session() as session:
            self.tenant_id = add_tenant(session)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.context.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def order(self, action: JobAction, **chosen: Any) -> Envelope:  # noqa: ANN401  # any field of the filter
        """Request an action as the gateway does."""
        kinds = chosen.pop("kinds", ALL_KINDS)
        with self.session() as session:
            job = Job(
                id=JobId(uuid4()),
                tenant_id=self.tenant_id,
                kind=JobKind.BULK,
                stage=JobStage.BULK,
            )
            session.add(job)
            session.flush()
            event_id = emit(
                session,
                JobActionRequested(
                    job_id=job.id,
                    action=action,
                    filter=json.dumps(chosen),
                    kinds=kinds,
                    created_before=database_time(session),
                ),
                tenant_id=self.tenant_id,
                source="/test",
                now=database_time(session),
            )
            steps.add_step(
                session,
                StepName.BULK,
                job_id=job.id,
                tenant_id=self.tenant_id,
                priority=Priority.INTERACTIVE,
                event_id=event_id,
            )
            session.flush()
            session.execute(
                steps.release(self.tenant_id, StepName.BULK, settings=self.context.settings)
            )
            return envelope.decode(session.get_one(EventRecord, event_id).body)

    def deliver(self, event: Envelope) -> None:
        self._task.push_request(**{DELIVERY_HEADER: {"crashes": 0, "attempt": 0, "waits": 0}})
        try:
            self._task.run(ReceivedEvent(envelope=event, body=envelope.encode(event)))
        finally:
            self._task.pop_request()

    def result(self, event: Envelope) -> dict[str, Any] | None:
        with self.session() as session:
            job = session.get_one(Job, event.job_id)
        return job.result

    def statuses(self, jobs: Sequence[JobId]) -> list[JobStatus]:
        with self.session() as session:
            found = {row.id: row.status for row in session.execute(select(Job.id, Job.status))}
        return [found[job_id] for job_id in jobs]

    def uploads(self, count: int, *, tenant_id: TenantId | None = None) -> list[JobId]:
        """Add finalized uploads whose transfers are queued; the oldest first."""
        jobs = []
        for _ in range(count):
            with self.session() as session:
                event = add_finalized_upload(
                    session,
                    tenant_id=tenant_id or self.tenant_id,
                    staging_dir=None,
                    content=b"x",
                )
            assert event.job_id is not None
            jobs.append(event.job_id)
        return jobs

    def failed_readings(self, count: int) -> list[JobId]:
        """Add jobs whose documents could not be read."""
        jobs = []
        for _ in range(count):
            with self.session() as session:
                reading = add_stored(session, tenant_id=self.tenant_id)
                session.flush()
                for name, status in (
                    (StepName.METADATA, StepStatus.COMPLETED),
                    (StepName.INGEST, StepStatus.FAILED),
                ):
                    session.execute(step_update(reading.job_id, name, status))
            jobs.append(reading.job_id)
        return jobs


@pytest.fixture
def worker(database: DatabaseSettings, tmp_path: Path) -> Iterator[BulkWorker]:
    context = build_context(
        worker_settings(database, work_dir=tmp_path, staging_dir=tmp_path, step_lease="1ms"),
        will_be_read=registry.will_be_read,
    )
    yield BulkWorker(context)
    context.engine.dispose()


def test_every_open_job_of_the_filter_is_cancelled(worker: BulkWorker) -> None:
    mine = worker.uploads(3)
    ended = worker.failed_readings(1)
    with worker.session() as session:
        stranger = add_tenant(session)
    theirs = worker.uploads(1, tenant_id=stranger)
    with worker.session() as session:
        session.execute(step_update(mine[1], StepName.TRANSFER, StepStatus.RUNNING))

    event = worker.order(JobAction.CANCEL, kind="upload")
    later = worker.uploads(1)
    worker.deliver(event)

    assert worker.statuses(mine) == [JobStatus.CANCELLED] * 3
    assert worker.statuses(ended) == [JobStatus.FAILED]
    assert worker.statuses([*theirs, *later]) == [JobStatus.QUEUED] * 2
    assert worker.result(event) == {"action": "cancel", "done": 3, "skipped": 0, "failed": 0}
    with worker.session() as session:
        uploads = session.scalars(
            select(Upload.status).join(Job, Job.upload_id == Upload.id).where(Job.id.in_(mine))
        ).all()
    assert set(uploads) == {UploadStatus.CANCELLED}


def test_failed_jobs_are_retried_and_cancelled_ones_only_by_name(worker: BulkWorker) -> None:
    readings = worker.failed_readings(3)
    transfer = worker.uploads(1)[0]
    cancelled = worker.uploads(1)[0]
    with worker.session() as session:
        session.execute(step_update(transfer, StepName.TRANSFER, StepStatus.FAILED))
        session.execute(steps.cancel(cancelled))

    event = worker.order(JobAction.RETRY)
    worker.deliver(event)

    assert worker.statuses(readings) == [JobStatus.QUEUED] * 3
    # The bytes of a failed transfer are deleted.
    assert worker.result(event) == {"action": "retry", "done": 3, "skipped": 1, "failed": 0}
    assert worker.statuses([transfer, cancelled]) == [JobStatus.FAILED, JobStatus.CANCELLED]
    named = worker.order(JobAction.RETRY, status="cancelled")
    worker.deliver(named)
    assert worker.result(named) == {"action": "retry", "done": 0, "skipped": 1, "failed": 0}


def test_a_job_that_a_worker_cleans_up_after_counts_as_failed(worker: BulkWorker) -> None:
    (busy,) = worker.failed_readings(1)
    with worker.session() as session:
        now = database_time(session)
        session.execute(
            step_update(
                busy, StepName.INGEST, lease_owner="x", lease_until=now.replace(year=now.year + 1)
            )
        )

    event = worker.order(JobAction.RETRY)
    worker.deliver(event)

    assert worker.result(event) == {"action": "retry", "done": 0, "skipped": 0, "failed": 1}


def test_an_action_changes_only_the_kinds_of_its_order(worker: BulkWorker) -> None:
    uploads = worker.uploads(2)

    event = worker.order(JobAction.CANCEL, kinds=(JobKind.EXPORT,))
    worker.deliver(event)

    assert worker.statuses(uploads) == [JobStatus.QUEUED] * 2
    assert worker.result(event) == {"action": "cancel", "done": 0, "skipped": 0, "failed": 0}


@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_a_worker_that_dies_counts_no_job_twice_and_forgets_none(
    worker: BulkWorker, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    jobs = worker.uploads(7)
    event = worker.order(JobAction.CANCEL)
    acted = 0
    act = Walk.act

    def dying(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # those of `act`
        nonlocal acted
        result = act(*arguments, **named)
        acted += 1
        if acted == after + 1:
            raise Died  # after the change, before its commit
        return result

    monkeypatch.setattr(Walk, "act", dying)
    with pytest.raises(Died):
        worker.deliver(event)
    assert worker.statuses(jobs).count(JobStatus.CANCELLED) == after

    worker.deliver(event)

    assert worker.statuses(jobs) == [JobStatus.CANCELLED] * 7
    assert worker.result(event) == {"action": "cancel", "done": 7, "skipped": 0, "failed": 0}
    worker.deliver(event)
    assert worker.result(event) == {"action": "cancel", "done": 7, "skipped": 0, "failed": 0}


def test_an_action_that_is_cancelled_stops_before_the_next_job(
    worker: BulkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = worker.uploads(4)
    event = worker.order(JobAction.CANCEL)
    assert event.job_id is not None
    bulk, act = event.job_id, Walk.act
    acted = 0

    def cancelled_meanwhile(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401  # those of `act`
        nonlocal acted
        acted += 1
        if acted == 3:
            with worker.session() as session:
                session.execute(steps.cancel(bulk))
        return act(*arguments, **named)

    monkeypatch.setattr(Walk, "act", cancelled_meanwhile)
    worker.deliver(event)

    assert worker.statuses(jobs) == [JobStatus.CANCELLED] * 2 + [JobStatus.QUEUED] * 2
    assert worker.statuses([bulk]) == [JobStatus.CANCELLED]


def test_an_action_walks_more_jobs_than_one_statement_reads(worker: BulkWorker) -> None:
    jobs = worker.uploads(BATCH + 1)

    event = worker.order(JobAction.CANCEL)
    worker.deliver(event)

    assert worker.result(event) == {
        "action": "cancel",
        "done": BATCH + 1,
        "skipped": 0,
        "failed": 0,
    }
    assert set(worker.statuses(jobs)) == {JobStatus.CANCELLED}
