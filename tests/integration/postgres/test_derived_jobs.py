"""A job's status, stage and times follow from its steps, and the counters from all steps."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, func, select, update
from sqlalchemy.orm import Session

from schemas.ids import EventId, JobId, TenantId, uuid7
from schemas.lifecycle import SETTLED_JOBS, JobKind, JobStatus, Priority, StepStatus
from schemas.settings import DatabaseSettings, StepSettings
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.jobs import Job
from schemas.tables.steps import Step, TenantSteps
from tests.factories.uploads import add_tenant


@pytest.fixture
def engine(database: DatabaseSettings) -> Iterator[Engine]:
    engine = create_engine(database.database_url.get_secret_value())
    yield engine
    engine.dispose()


def add_job(
    session: Session,
    *names: StepName,
    tenant_id: TenantId | None = None,
    priority: Priority = Priority.INTERACTIVE,
) -> JobId:
    """Add a job without an upload; its steps wait."""
    tenant_id = tenant_id or add_tenant(session)
    job = Job(id=JobId(uuid4()), tenant_id=tenant_id, kind=JobKind.UPLOAD)
    session.add(job)
    session.flush()
    for name in names:
        steps.add_step(
            session,
            name,
            job_id=job.id,
            tenant_id=tenant_id,
            priority=priority,
            event_id=EventId(uuid7(datetime.now(UTC))),
        )
    session.commit()
    return job.id


def change(session: Session, job_id: JobId, name: StepName, **values: object) -> None:
    session.execute(update(Step).where(Step.job_id == job_id, Step.name == name).values(**values))


def job_of(engine: Engine, job_id: JobId) -> Job:
    with Session(engine) as session:
        return session.get_one(Job, job_id)


BOTH = (StepName.TRANSFER, StepName.INGEST)


@pytest.mark.parametrize(
    ("transfer", "ingest", "expected"),
    [
        ("waiting", None, (JobStatus.QUEUED, JobStage.TRANSFER)),
        ("queued", None, (JobStatus.QUEUED, JobStage.TRANSFER)),
        ("running", None, (JobStatus.PROCESSING, JobStage.TRANSFER)),
        ("completed", None, (JobStatus.COMPLETED, JobStage.DONE)),
        ("failed", None, (JobStatus.FAILED, JobStage.TRANSFER)),
        ("cancelled", None, (JobStatus.CANCELLED, JobStage.TRANSFER)),
        ("completed", "waiting", (JobStatus.PROCESSING, JobStage.INGEST)),
        ("completed", "running", (JobStatus.PROCESSING, JobStage.INGEST)),
        ("completed", "completed", (JobStatus.COMPLETED, JobStage.DONE)),
        ("completed", "failed", (JobStatus.FAILED, JobStage.INGEST)),
        ("completed", "cancelled", (JobStatus.CANCELLED, JobStage.INGEST)),
    ],
)
def test_a_job_follows_from_its_steps(
    engine: Engine, transfer: str, ingest: str | None, expected: tuple[JobStatus, JobStage]
) -> None:
    with Session(engine) as session:
        job_id = add_job(session, StepName.TRANSFER)
    with Session(engine) as session, session.begin():
        started = None if transfer in {"waiting", "queued"} else func.now()
        change(session, job_id, StepName.TRANSFER, status=transfer, started_at=started)
    if ingest is not None:
        with Session(engine) as session, session.begin():
            tenant_id = session.get_one(Job, job_id).tenant_id
            steps.add_step(
                session,
                StepName.INGEST,
                job_id=job_id,
                tenant_id=tenant_id,
                priority=Priority.INTERACTIVE,
                event_id=EventId(uuid7(datetime.now(UTC))),
            )
            session.flush()
            change(session, job_id, StepName.INGEST, status=ingest)
    job = job_of(engine, job_id)
    assert (job.status, job.stage) == expected
    assert (job.finished_at is not None) == (job.status in SETTLED_JOBS)


def test_a_cleanup_makes_a_completed_job_cancelled(engine: Engine) -> None:
    with Session(engine) as session:
        job_id = add_job(session, StepName.TRANSFER)
        change(session, job_id, StepName.TRANSFER, status=StepStatus.COMPLETED)
        session.commit()
        completed_at = job_of(engine, job_id).finished_at
        tenant_id = session.get_one(Job, job_id).tenant_id
        steps.add_step(
            session,
            StepName.CLEANUP,
            job_id=job_id,
            tenant_id=tenant_id,
            priority=Priority.INTERACTIVE,
            event_id=EventId(uuid7(datetime.now(UTC))),
        )
        session.commit()
    job = job_of(engine, job_id)
    assert (job.status, job.stage) == (JobStatus.CANCELLED, JobStage.DONE)
    assert job.finished_at is not None
    assert completed_at is not None
    assert job.finished_at > completed_at, "it ends again, with the purge"
    with Session(engine) as session, session.begin():
        change(session, job_id, StepName.CLEANUP, status=StepStatus.COMPLETED)
    assert job_of(engine, job_id).finished_at == job.finished_at


def test_a_job_is_completed_when_two_workers_complete_its_last_steps_at_once(
    engine: Engine,
) -> None:
    with Session(engine) as session:
        jobs = [add_job(session, *BOTH) for _ in range(20)]

    def complete(job_id: JobId, name: StepName) -> None:
        with Session(engine) as session, session.begin():
            change(session, job_id, name, status=StepStatus.COMPLETED, started_at=func.now())

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(complete, job_id, name) for job_id in jobs for name in BOTH]:
            done.result()
    assert {job_of(engine, job_id).status for job_id in jobs} == {JobStatus.COMPLETED}


def test_the_revision_moves_with_what_clients_see_and_not_with_the_lease(engine: Engine) -> None:
    with Session(engine) as session:
        job_id = add_job(session, StepName.TRANSFER)

    def revision_after(**values: object) -> int:
        with Session(engine) as session, session.begin():
            change(session, job_id, StepName.TRANSFER, **values)
        return job_of(engine, job_id).revision

    revision = job_of(engine, job_id).revision
    assert revision_after(status=StepStatus.QUEUED) == revision, "it waited, and it waits"
    assert revision_after(lease_owner="worker", lease_until=func.now()) == revision
    assert revision_after(status=StepStatus.RUNNING) == revision + 1
    assert revision_after(done=1) == revision + 2
    assert revision_after(done=1, lease_until=func.now()) == revision + 2
    assert revision_after(total=5) == revision + 3


def test_the_counters_of_a_tenant_follow_its_steps(engine: Engine) -> None:
    with Session(engine) as session:
        tenant_id = add_tenant(session)
        session.commit()
        jobs = [add_job(session, StepName.TRANSFER, tenant_id=tenant_id) for _ in range(5)]
        for job_id, status in zip(
            jobs,
            ("waiting", "queued", "running", "completed", "cancelled"),
            strict=True,
        ):
            change(session, job_id, StepName.TRANSFER, status=status)
        session.commit()
        counters = session.scalars(
            select(TenantSteps).where(TenantSteps.tenant_id == tenant_id)
        ).one()
        assert (counters.waiting, counters.in_broker) == (1, 2)
        assert (counters.issued, counters.released, counters.finished) == (5, 4, 2)
        tickets = session.scalars(select(Step.ticket).order_by(Step.ticket)).all()
        assert tickets == [1, 2, 3, 4, 5]


def test_steps_of_both_priorities_end_at_once_without_a_deadlock(engine: Engine) -> None:
    with Session(engine) as session:
        tenant_id = add_tenant(session)
        session.commit()
        jobs = [
            add_job(session, StepName.TRANSFER, tenant_id=tenant_id, priority=priority)
            for _ in range(30)
            for priority in Priority
        ]
        session.execute(update(Step).values(status=StepStatus.RUNNING))
        session.commit()

    def end(job_id: JobId) -> None:
        with Session(engine) as session, session.begin():
            change(session, job_id, StepName.TRANSFER, status=StepStatus.COMPLETED)
            session.execute(steps.release(tenant_id, StepName.TRANSFER, settings=StepSettings()))

    with ThreadPoolExecutor(8) as threads:
        # A deadlock raises here.
        for done in [threads.submit(end, job_id) for job_id in jobs]:
            done.result()
    assert {job_of(engine, job_id).status for job_id in jobs} == {JobStatus.COMPLETED}
