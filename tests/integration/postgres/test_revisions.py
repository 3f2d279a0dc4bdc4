"""The triggers on steps increment a job's revision at every change that clients see.

A revision is the id of an event of `GET /jobs/{id}/events`, and wakes the requests that wait.
"""

import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from sqlalchemy import create_engine, null, select, text, update
from sqlalchemy.orm import Session

from gateway.jobs import view
from schemas.events.envelope import Envelope
from schemas.ids import EventId, JobId
from schemas.lifecycle import JobStatus, StepStatus
from schemas.settings import DatabaseSettings, StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from tests.factories.jobs import a_job_row, step_update
from tests.factories.uploads import add_finalized_upload, add_tenant

NEVER_CHANGES = {"name", "unit", "queued_at"}
CHANGES_WITH = {
    "event_id": "status",
    "started_at": "status",
    "finished_at": "status",
    "error_code": "status",
    "error_detail": "status",
    "error_retryable": "status",
}
"""Columns that every statement sets together with a column of a trigger."""


@pytest.fixture
def session(database: DatabaseSettings) -> Iterator[Session]:
    engine = create_engine(database.database_url.get_secret_value())
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def event(session: Session) -> Envelope:
    """The event of a job whose transfer is queued."""
    return add_finalized_upload(
        session, tenant_id=add_tenant(session), staging_dir=None, content=b"content"
    )


@pytest.fixture
def job_id(event: Envelope) -> JobId:
    assert event.job_id is not None
    return event.job_id


def revision_of(session: Session, job_id: JobId) -> int:
    return session.scalars(select(Job.revision).where(Job.id == job_id)).one()


class ReadColumns:
    """Records which columns of a step are read."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._values = {
            "name": StepName.TRANSFER,
            "status": StepStatus.FAILED,
            "done": 0,
            "total": 0,
            "error_code": "staging_corrupt",
        }

    def __getattr__(self, name: str) -> object:
        self.names.add(name)
        return self._values.get(name)


def test_the_triggers_cover_every_column_of_a_step_that_clients_see(session: Session) -> None:
    step = ReadColumns()
    view.show(a_job_row(JobStatus.FAILED), [cast("Step", step)])
    definitions = session.scalars(
        text(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger"
            " WHERE tgname IN ('count_revision', 'derive_job')"
        )
    )
    counted = {
        name
        for definition in definitions
        for name in re.findall(r"new\.(\w+)", definition, re.IGNORECASE)
    }

    assert step.names - NEVER_CHANGES - CHANGES_WITH.keys() == counted
    assert set(CHANGES_WITH.values()) <= counted


@pytest.mark.parametrize(
    "change",
    [
        {"done": 1},
        {"total": 8},
        {"attempts": 1},
        {"status": StepStatus.RUNNING},
        {"status": StepStatus.COMPLETED},
        {"status": StepStatus.FAILED},
        {"status": StepStatus.CANCELLED},
    ],
    ids=str,
)
def test_a_change_that_clients_see_increments_the_revision(
    session: Session, job_id: JobId, change: dict[str, Any]
) -> None:
    before = revision_of(session, job_id)

    session.execute(step_update(job_id, StepName.TRANSFER, **change))

    assert revision_of(session, job_id) == before + 1


@pytest.mark.parametrize(
    "change",
    [
        {"lease_owner": "a"},
        {"done_at_claim": 5},
        {"checkpoint": {"part": 1}},
        {"releases": 2},
        {"done": 0, "total": 7},
        {"status": StepStatus.QUEUED},
    ],
    ids=str,
)
def test_a_change_that_clients_do_not_see_keeps_the_revision(
    session: Session, job_id: JobId, change: dict[str, Any]
) -> None:
    before = revision_of(session, job_id)

    session.execute(step_update(job_id, StepName.TRANSFER, **change))

    assert revision_of(session, job_id) == before


def test_a_release_alone_keeps_the_revision(session: Session, job_id: JobId) -> None:
    """A release wakes no client: the job of the step is queued before and after."""
    session.execute(step_update(job_id, StepName.TRANSFER, status=StepStatus.WAITING))
    before = revision_of(session, job_id)

    job = session.get_one(Job, job_id)
    session.execute(steps.release(job.tenant_id, StepName.TRANSFER, settings=StepSettings()))

    assert session.scalars(select(Step.status)).one() == StepStatus.QUEUED
    assert revision_of(session, job_id) == before


def test_a_new_step_increments_the_revision_after_the_result_was_changed(
    session: Session, job_id: JobId
) -> None:
    before = revision_of(session, job_id)
    job = session.get_one(Job, job_id)

    session.execute(update(Job).where(Job.id == job_id).values(result=null()))
    assert revision_of(session, job_id) == before
    steps.add_step(
        session,
        StepName.CLEANUP,
        job_id=job_id,
        tenant_id=job.tenant_id,
        priority=job.priority,
        event_id=EventId(job_id),
    )
    session.flush()

    assert revision_of(session, job_id) == before + 1
