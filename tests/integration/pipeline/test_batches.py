"""Batches: turns of their lines, ends, pauses, cancels, and what deaths leave."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from gateway.batches.cancel import cancel_batch
from gateway.db import CONNECTION, Database
from pipeline.batch import start
from schemas import object_keys
from schemas.events import envelope
from schemas.events.batches import BatchCancelled, BatchCompleted, BatchFailed
from schemas.events.envelope import Envelope
from schemas.ids import EventId, JobId, TenantId, UploadId, uuid7
from schemas.lifecycle import (
    BatchLineState,
    BatchStatus,
    JobStatus,
    Priority,
    StepStatus,
    UploadStatus,
)
from schemas.runtime import postgres
from schemas.runtime.jobs.cancel import cancel_job
from schemas.runtime.jobs.retry import retry_job
from schemas.settings import DatabaseSettings, StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.batches import Batch
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.steps import Step, TenantSteps, lock_share
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Chunk, Upload
from schemas.topology import ATTEMPT_HEADER, CRASHES_HEADER, RETRY_TIERS
from tests.eventually import eventually
from tests.factories.batches import batch_of, receive_batch, references
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.batch_worker import BatchWorker, batch_worker
from tests.integration.pipeline.workbench import Workbench, prepare_staging, workbench

WAITING, STARTED = BatchLineState.WAITING, BatchLineState.STARTED
COMPLETED, FAILED = BatchLineState.COMPLETED, BatchLineState.FAILED
CANCELLED, REJECTED = BatchLineState.CANCELLED, BatchLineState.REJECTED


class Death(BaseException):
    """The worker dies."""


@pytest.fixture
def worker(database: DatabaseSettings, tmp_path: Path) -> Iterator[BatchWorker]:
    with batch_worker(database, work_dir=tmp_path, batch_open_max=4) as worker:
        yield worker


@pytest.fixture
def tenant_id(worker: BatchWorker) -> TenantId:
    with worker.session() as session:
        return add_tenant(session)


def received(
    worker: BatchWorker,
    tenant_id: TenantId,
    sources: list[dict[str, Any] | None] | None = None,
    *,
    count: int = 10,
    **options: Any,  # noqa: ANN401  # any option of a batch
) -> Envelope:
    with worker.session() as session:
        return receive_batch(
            session,
            tenant_id,
            references(tenant_id, count) if sources is None else sources,
            settings=worker.context.settings,
            **options,
        )


def run_to_end(worker: BatchWorker, event: Envelope) -> None:
    """Give the batch turns, and end its jobs, until it is completed."""
    while not worker.deliver_from_tier(event):
        worker.end_jobs(event, at_most=100)


def an_upload(
    session: Session,
    tenant_id: TenantId,
    *,
    chunks: int = 1,
    **columns: Any,  # noqa: ANN401  # any column
) -> UploadId:
    """Add an upload of one chunk that is open; `chunks` are stored."""
    upload_id = UploadId(uuid4())
    session.add(
        Upload(
            id=upload_id,
            tenant_id=tenant_id,
            **{
                "status": UploadStatus.OPEN,
                "filename": "a.bin",
                "size": 3,
                "chunk_size": 3,
                "chunk_count": 1,
                "expires_at": datetime.now(UTC) + timedelta(hours=1),
                **columns,
            },
        )
    )
    session.flush()
    session.add_all(
        Chunk(upload_id=upload_id, index=index, size=3, sha256=bytes(32)) for index in range(chunks)
    )
    return upload_id


# Turns


def test_a_turn_starts_lines_in_order_up_to_the_most_open(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id)

    assert not worker.deliver(event)

    assert worker.states(event) == {STARTED: 4, WAITING: 6}
    assert [line.state for line in worker.lines(event)] == [STARTED] * 4 + [WAITING] * 6
    assert worker.retried[-1]["tier"] == RETRY_TIERS[0]
    assert worker.job(event).status is JobStatus.PROCESSING
    assert not worker.deliver_from_tier(event)
    assert worker.states(event) == {STARTED: 4, WAITING: 6}


def test_a_started_line_is_an_upload_with_a_job_of_priority_bulk(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    source = {
        "object_key": f"{object_keys.incoming(tenant_id)}a/b.pdf",
        "content_type": "application/pdf",
        "sha256": "0" * 64,
        "metadata": {"case": "7"},
    }
    event = received(worker, tenant_id, [source], metadata={"case": "1", "origin": "archive"})

    worker.deliver(event)

    (line,) = worker.lines(event)
    with worker.session() as session:
        job = session.get_one(Job, line.job_id)
        upload = session.get_one(Upload, job.upload_id)
        step = session.get_one(Step, (job.id, StepName.TRANSFER))
        started = envelope.decode(session.get_one(EventRecord, step.event_id).body)
    assert (job.batch_id, job.priority) == (batch_of(event), Priority.BULK)
    assert (upload.filename, upload.source_key) == ("b.pdf", source["object_key"])
    assert (upload.content_type, upload.sha256) == ("application/pdf", "0" * 64)
    assert upload.client_metadata == {"case": "7", "origin": "archive"}
    assert (started.type, started.job_id) == ("upload.finalized", job.id)
    assert step.status is StepStatus.QUEUED


def test_only_the_share_of_the_tenant_is_given_to_the_broker(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id)

    worker.deliver(event)

    with worker.session() as session:
        statuses = session.scalars(
            select(Step.status)
            .where(Step.tenant_id == tenant_id, Step.name == StepName.TRANSFER)
            .order_by(Step.ticket)
        ).all()
    assert statuses == [StepStatus.QUEUED] * 2 + [StepStatus.WAITING] * 2


def test_an_interactive_job_goes_to_the_broker_before_the_waiting_lines(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id)
    worker.deliver(event)
    job_id = JobId(uuid4())
    with worker.session() as session:
        session.add(Job(id=job_id, tenant_id=tenant_id, priority=Priority.INTERACTIVE))
        session.flush()
        steps.add_step(
            session,
            StepName.TRANSFER,
            job_id=job_id,
            tenant_id=tenant_id,
            priority=Priority.INTERACTIVE,
            event_id=EventId(uuid7(datetime.now(UTC))),
        )
        session.flush()
        session.execute(
            steps.release(tenant_id, StepName.TRANSFER, settings=worker.context.settings)
        )

    with worker.session() as session:
        statuses = session.scalars(
            select(Step.status).where(Step.tenant_id == tenant_id, Step.name == StepName.TRANSFER)
        ).all()
        interactive = session.get_one(Step, (job_id, StepName.TRANSFER))
    assert interactive.status is StepStatus.QUEUED
    assert Counter(statuses) == {StepStatus.QUEUED: 3, StepStatus.WAITING: 2}


def test_a_line_with_an_upload_id_finalizes_the_upload(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    with worker.session() as session:
        upload_id = an_upload(session, tenant_id)
        partial = an_upload(session, tenant_id, chunks=0)
        foreign = an_upload(session, add_tenant(session))
    named = [upload_id, upload_id, partial, foreign]
    event = received(worker, tenant_id, [{"upload_id": str(each)} for each in named])

    worker.deliver(event)

    assert worker.states(event) == {STARTED: 1, FAILED: 3}
    first, *refused = worker.lines(event)
    assert [line.error_code for line in refused] == [
        "upload_not_open",
        "upload_incomplete",
        "upload_not_found",
    ]
    with worker.session() as session:
        upload = session.get_one(Upload, upload_id)
        assert upload.status is UploadStatus.FINALIZED
        assert upload.finalized_at is not None
        assert session.get_one(Job, first.job_id).upload_id == upload_id
        assert session.get_one(Upload, partial).status is UploadStatus.OPEN


def test_a_line_that_cannot_become_a_job_fails_and_the_others_go_on(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    good, other = references(tenant_id, 2)
    foreign = {"object_key": "incoming/another/a.bin"}
    image = {**other, "content_type": "image/png"}
    with worker.session() as session:
        session.get_one(Tenant, tenant_id).allowed_types = ["application/*"]
    event = received(worker, tenant_id, [foreign, None, good, image])

    run_to_end(worker, event)

    assert worker.states(event) == {COMPLETED: 1, FAILED: 2, REJECTED: 1}
    codes = [line.error_code for line in worker.lines(event)]
    assert codes == ["reference_refused", "invalid_request", None, "type_not_allowed"]


def test_a_turn_that_has_no_more_time_asks_for_the_next_at_once(
    worker: BatchWorker, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.batch.task.GROUP", 1)
    monkeypatch.setattr("pipeline.batch.task.TURN_MAX", timedelta(0))
    event = received(worker, tenant_id)
    before = worker.wakes(event)

    worker.deliver(event)

    assert worker.wakes(event) == before + 1


def test_a_turn_without_an_error_resets_crashes_and_attempts(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    worker = worker.with_settings(task_attempts=20)
    event = received(worker, tenant_id)

    worker.deliver(event, crashes=1, attempt=7)

    retried = worker.retried[-1]
    assert (retried[CRASHES_HEADER], retried[ATTEMPT_HEADER]) == (0, 0)


def test_an_extra_message_has_its_turn_and_does_not_wait_in_a_tier(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id)
    worker.deliver(event)
    worker.end_jobs(event, at_most=2)
    waits = len(worker.retried)

    assert worker.deliver(event)

    assert worker.states(event) == {COMPLETED: 2, STARTED: 4, WAITING: 4}
    assert len(worker.retried) == waits
    assert worker.step(event).status is StepStatus.QUEUED


def test_the_step_is_woken_when_half_of_the_started_lines_have_ended_and_when_all_have(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id)
    worker.deliver(event)
    before, wakes = worker.wakes(event), []

    for _ in range(4):
        worker.end_jobs(event, at_most=1)
        wakes.append(worker.wakes(event) - before)

    assert wakes == [0, 1, 1, 2]


# The end


def test_the_last_line_completes_the_batch_once(worker: BatchWorker, tenant_id: TenantId) -> None:
    event = received(worker, tenant_id, [*references(tenant_id, 9), None])

    run_to_end(worker, event)
    assert worker.deliver(event)

    assert worker.states(event) == {COMPLETED: 9, REJECTED: 1}
    batch, job = worker.batch(event), worker.job(event)
    assert batch.status is BatchStatus.COMPLETED
    assert batch.finished_at is not None
    assert batch.expires_at - batch.finished_at >= worker.context.settings.batch_retention
    assert job.status is JobStatus.COMPLETED
    assert job.result == {"lines": 10, "rejected": 1, "completed": 9, "failed": 0, "cancelled": 0}
    (completed,) = worker.emitted(event)
    assert isinstance(completed.data, BatchCompleted)
    assert (completed.data.lines, completed.data.completed) == (10, 9)
    step = worker.step(event)
    assert (step.done, step.total) == (10, 10)


def test_a_batch_of_rejected_lines_completes_at_once(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id, [None, None])

    assert worker.deliver(event)

    assert worker.batch(event).status is BatchStatus.COMPLETED


def test_a_failed_job_fails_its_line_with_the_error_of_its_step(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id, count=1)
    worker.deliver(event)

    worker.end_jobs(event, at_most=1, status=StepStatus.FAILED)

    (line,) = worker.lines(event)
    assert (line.state, line.error_code, line.error_detail) == (FAILED, "store_rejected", "refused")


def test_a_job_that_is_tried_again_opens_its_line_again(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id, count=1)
    worker.deliver(event)
    worker.end_jobs(event, at_most=1, status=StepStatus.FAILED)
    (line,) = worker.lines(event)

    worker.set_step(line.job_id, StepStatus.QUEUED)
    assert worker.states(event) == {STARTED: 1}
    (line,) = worker.lines(event)
    assert line.error_code is None
    assert not worker.deliver_from_tier(event)
    worker.set_step(line.job_id, StepStatus.COMPLETED)
    assert worker.deliver(event)

    assert worker.states(event) == {COMPLETED: 1}


def test_a_batch_that_always_fails_is_failed_and_goes_on_when_its_job_is_tried_again(
    worker: BatchWorker, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = received(worker, tenant_id)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.batch.task.start_lines", _raise(RuntimeError("a bug")))
        with pytest.raises(Exception, match="RuntimeError"):
            worker.deliver(event)

    assert worker.batch(event).status is BatchStatus.FAILED
    assert worker.job(event).status is JobStatus.FAILED
    (failed,) = worker.emitted(event)
    assert isinstance(failed.data, BatchFailed)
    assert failed.data.code == "internal"
    with worker.session() as session:
        retry_job(
            session,
            session.get_one(Job, event.job_id),
            actor="test",
            export_ttl=timedelta(days=1),
            settings=worker.context.settings,
        )
    run_to_end(worker, event)
    assert worker.states(event) == {COMPLETED: 10}


# Deaths


@pytest.mark.parametrize("at", ["_add_uploads", "_add_jobs", "_record"])
def test_a_worker_that_dies_in_a_group_starts_no_line_twice(
    worker: BatchWorker, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    event = received(worker, tenant_id)
    monkeypatch.setattr("pipeline.batch.task.GROUP", 2)
    done = getattr(start, at)
    groups = 0

    def dies_in_the_second_group(*args: object, **options: object) -> object:
        nonlocal groups
        groups += 1
        result = done(*args, **options)
        if groups == 2:
            raise Death
        return result

    with monkeypatch.context() as patch:
        patch.setattr(start, at, dies_in_the_second_group)
        with pytest.raises(Death):
            worker.deliver(event)
    assert worker.states(event) == {STARTED: 2, WAITING: 8}

    run_to_end(worker, event)

    assert worker.states(event) == {COMPLETED: 10}
    _assert_each_line_is_one_job(worker, event, count=10)


def test_a_worker_that_lost_its_lease_starts_nothing(
    worker: BatchWorker, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = received(worker, tenant_id)
    done = start._record  # noqa: SLF001  # a moment in the middle of a group

    def loses_its_lease(session: Session, *args: Any, **options: Any) -> None:  # noqa: ANN401  # any
        done(session, *args, **options)
        session.execute(
            update(Step).where(Step.job_id == event.job_id).values(lease_owner="another")
        )

    monkeypatch.setattr(start, "_record", loses_its_lease)

    assert not worker.deliver(event)

    assert worker.states(event) == {WAITING: 10}
    with worker.session() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


# Pause


def test_a_paused_batch_starts_nothing_and_goes_on_when_it_is_resumed(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id)
    worker.deliver(event)
    _set_status(worker, event, BatchStatus.PAUSED)
    worker.end_jobs(event, at_most=3)

    worker.deliver(event)
    assert worker.states(event) == {COMPLETED: 3, STARTED: 1, WAITING: 6}
    _set_status(worker, event, BatchStatus.PROCESSING)
    run_to_end(worker, event)

    assert worker.states(event) == {COMPLETED: 10}


def test_a_paused_batch_gives_its_place_to_one_that_waits(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    worker = worker.with_settings(tenant_bulk_steps_max=1)
    paused, waiting = (received(worker, tenant_id) for _ in range(2))
    assert worker.step(waiting).status is StepStatus.WAITING
    _set_status(worker, paused, BatchStatus.PAUSED)

    assert worker.deliver(paused)

    assert worker.step(waiting).status is StepStatus.QUEUED
    assert worker.step(paused).status is StepStatus.WAITING
    run_to_end(worker, waiting)
    assert worker.states(waiting) == {COMPLETED: 10}
    # Its end gives the place back.
    assert worker.step(paused).status is StepStatus.QUEUED
    _set_status(worker, paused, BatchStatus.PROCESSING)
    run_to_end(worker, paused)
    assert worker.states(paused) == {COMPLETED: 10}
    with worker.session() as session:
        counters = session.get_one(TenantSteps, (tenant_id, StepName.BATCH, Priority.BULK))
        assert (counters.waiting, counters.in_broker) == (0, 0)


def test_a_pause_during_a_group_undoes_the_group(
    worker: BatchWorker, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = received(worker, tenant_id)
    done = start._record  # noqa: SLF001  # a moment in the middle of a group

    def paused_meanwhile(*args: Any, **options: Any) -> None:  # noqa: ANN401  # any
        done(*args, **options)
        _set_status(worker, event, BatchStatus.PAUSED)

    monkeypatch.setattr(start, "_record", paused_meanwhile)

    worker.deliver(event)

    assert worker.states(event) == {WAITING: 10}


# Cancel


def test_a_cancelled_batch_cancels_waiting_lines_and_open_jobs(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id)
    worker.deliver(event)
    worker.end_jobs(event, at_most=1)

    cancel = _cancelled(worker, event, tenant_id)
    assert worker.job(event).status is JobStatus.CANCELLED
    assert worker.deliver(event)
    assert worker.states(event) == {COMPLETED: 1, STARTED: 3, WAITING: 6}
    assert worker.deliver(cancel)
    assert worker.deliver(cancel)

    assert worker.states(event) == {COMPLETED: 1, CANCELLED: 9}
    batch = worker.batch(event)
    assert (batch.status, batch.finished_at is not None) == (BatchStatus.CANCELLED, True)
    (cancelled,) = worker.emitted(event)
    assert isinstance(cancelled.data, BatchCancelled)
    assert (cancelled.data.completed, cancelled.data.cancelled) == (1, 9)
    with worker.session() as session:
        left = session.scalar(
            select(func.count())
            .select_from(Upload)
            .where(Upload.tenant_id == tenant_id, Upload.status == UploadStatus.FINALIZED)
        )
    assert left == 1  # that of the line that had ended: the test stores no object


def test_a_cancel_that_dies_goes_on(
    worker: BatchWorker, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = received(worker, tenant_id)
    worker.deliver(event)
    cancel = _cancelled(worker, event, tenant_id)
    monkeypatch.setattr("pipeline.batch.cleanup_task.PIECE", 2)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.batch.cleanup_task._cancel_job", _raise(Death()))
        with pytest.raises(Death):
            worker.deliver(cancel)
    assert worker.states(event) == {STARTED: 4, CANCELLED: 6}

    assert worker.deliver(cancel)

    assert worker.states(event) == {CANCELLED: 10}


def test_a_cancel_also_cancels_a_job_whose_file_is_stored(
    worker: BatchWorker, tenant_id: TenantId
) -> None:
    event = received(worker, tenant_id, count=1)
    worker.deliver(event)
    (line,) = worker.lines(event)
    with worker.session() as session:
        job = session.get_one(Job, line.job_id)
        session.execute(
            update(Upload).where(Upload.id == job.upload_id).values(status=UploadStatus.STORED)
        )
    cancel = _cancelled(worker, event, tenant_id)

    assert worker.deliver(cancel)

    assert worker.states(event) == {CANCELLED: 1}
    with worker.session() as session:
        job = session.get_one(Job, line.job_id)
        assert session.get_one(Upload, job.upload_id).status is UploadStatus.CANCELLED


def test_a_job_that_ends_while_its_batch_is_cancelled_keeps_its_result(
    worker: BatchWorker, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = received(worker, tenant_id, count=2)
    worker.deliver(event)
    ended, _ = worker.lines(event)
    cancel = _cancelled(worker, event, tenant_id)

    def ends_first(session: Session, job: Job, **options: Any) -> bool:  # noqa: ANN401  # any
        if job.id == ended.job_id:
            worker.set_step(ended.job_id, StepStatus.COMPLETED)
        return cancel_job(session, job, **options)

    monkeypatch.setattr("pipeline.batch.cleanup_task.cancel_job", ends_first)

    assert worker.deliver(cancel)

    assert worker.states(event) == {COMPLETED: 1, CANCELLED: 1}


def _set_status(worker: BatchWorker, event: Envelope, status: BatchStatus) -> None:
    with worker.session() as session:
        session.execute(update(Batch).where(Batch.id == batch_of(event)).values(status=status))


def _cancelled(worker: BatchWorker, event: Envelope, tenant_id: TenantId) -> Envelope:
    """Cancel a batch as the gateway does; return the event that starts its cleanup."""

    async def cancel() -> bool:
        engine = postgres.build_async_engine(worker.context.settings, connection=CONNECTION)
        async with Database(engine).tenant_lock(tenant_id) as session:
            changed = await cancel_batch(
                session,
                tenant_id=tenant_id,
                batch_id=batch_of(event),
                settings=worker.context.settings,
            )
        await engine.dispose()
        return changed

    assert asyncio.run(cancel())
    with worker.session() as session:
        step = session.get_one(Step, (event.job_id, StepName.CLEANUP))
        return envelope.decode(session.get_one(EventRecord, step.event_id).body)


def _assert_each_line_is_one_job(worker: BatchWorker, event: Envelope, *, count: int) -> None:
    with worker.session() as session:
        keys = session.scalars(
            select(Upload.source_key)
            .join(Job, Job.upload_id == Upload.id)
            .where(Job.batch_id == batch_of(event))
        ).all()
        uploads = session.scalar(
            text("SELECT count(*) FROM uploads WHERE tenant_id = :tenant_id").bindparams(
                tenant_id=event.tenantid
            )
        )
    assert len(set(keys)) == len(keys) == uploads == count


def _raise(error: BaseException) -> Any:  # noqa: ANN401  # a function
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# The task in a worker


@pytest.fixture(scope="module")
def system(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    settings = {"STEP_LEASE": "3s", "BATCH_OPEN_MAX": "8"}
    with infrastructure.scoped("batches", settings=settings, template=migrated_template) as own:
        prepare_staging(own)
        own.start_services("relay", "transfer", "batch")
        yield own


def test_a_batch_survives_the_death_of_its_worker_in_the_middle_of_a_turn(system: Stack) -> None:
    with workbench(system) as bench:
        with Session(bench.engine) as session, session.begin():
            tenant_id = add_tenant(session)
            sources = references(tenant_id, 20)
            session.add(
                TenantSteps(
                    tenant_id=tenant_id, name=StepName.TRANSFER, priority=Priority.INTERACTIVE
                )
            )
        for source in sources[1:]:
            bench.bucket.put(source["object_key"], b"good")
        with Session(bench.engine) as session, session.begin():
            # The turn waits for this lock, after it has added uploads and jobs.
            session.execute(lock_share(tenant_id, StepName.TRANSFER))
            with Session(bench.engine) as other, other.begin():
                event = receive_batch(other, tenant_id, sources, settings=StepSettings())
            eventually(lambda: _waits_for_a_lock(bench), until=bool)
            for process in psutil.Process(system.processes["batch"].pid).children():
                process.kill()

        def batch() -> Batch:
            with Session(bench.engine) as session:
                return session.get_one(Batch, batch_of(event))

        ended = eventually(
            batch, until=lambda batch: batch.finished_at is not None, within=timedelta(seconds=90)
        )

        counts = (ended.lines, ended.completed, ended.failed, ended.started)
        assert (ended.status, counts) == (BatchStatus.COMPLETED, (20, 19, 1, 0))
        with Session(bench.engine) as session:
            jobs = session.scalars(
                select(Upload.source_key)
                .join(Job, Job.upload_id == Upload.id)
                .where(Job.batch_id == ended.id)
            ).all()
        assert sorted(filter(None, jobs)) == [source["object_key"] for source in sources]
        keys = bench.bucket.keys()
        stored = [key for key in keys if key.startswith(f"originals/{tenant_id}/")]
        assert len(stored) == 19


def _waits_for_a_lock(bench: Workbench) -> bool:
    # A transaction of its own: the view does not change within one.
    with Session(bench.engine) as session:
        return bool(
            session.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO steps%'"
                )
            )
        )
