"""Releases steps again that no worker has and that no message will start.

A message is lost if its queue is purged or deleted, or if the broker loses its data. Nobody
reports that, so the watchdog goes by time: each release of a step sets a time by which a worker
should have claimed it. A step that only waits in a long queue gets a second message, which changes
nothing when it arrives.
"""

from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Interval, Text, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas import topology
from schemas.settings import StepSettings
from schemas.steps import STEPS, StepName
from schemas.tables import steps
from schemas.tables.outbox import OutboxMessage

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 100
"""Steps per transaction."""

# A step whose lease is live, or whose event the relay has not published yet, is not lost. A step
# whose event killed its worker until the broker dead-lettered it waits for an operator's replay:
# released again, it would kill workers for ever. One event starts several steps of a job, each by a
# message to a queue of its own.
_RELEASE_OVERDUE: Final = text(
    """
    WITH overdue AS (
        SELECT job_id, name,
               coalesce(lease_until >= now(), false) OR EXISTS (
                   SELECT FROM outbox
                   WHERE outbox.event_id = steps.event_id AND queue = :queues ->> steps.name AND published_at IS NULL
               ) OR EXISTS (
                   SELECT FROM dead_letters
                   WHERE dead_letters.event_id = steps.event_id AND state = 'waiting'
                     AND dead_letters.queue IN (:queues ->> steps.name, :unrouted)
               ) AS is_held
        FROM steps
        WHERE status IN ('queued', 'running') AND overdue_at < now()
        ORDER BY overdue_at
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE steps SET
        status = CASE WHEN is_held THEN steps.status ELSE 'queued' END,
        releases = steps.releases + CASE WHEN is_held THEN 0 ELSE 1 END,
        overdue_at = now() + least(:overdue * power(2, least(steps.releases, 16)), :overdue_max)
    FROM overdue
    WHERE steps.job_id = overdue.job_id AND steps.name = overdue.name
    RETURNING steps.job_id, steps.name, steps.event_id, steps.releases, is_held
    """
).bindparams(
    bindparam("overdue", type_=Interval()),
    bindparam("overdue_max", type_=Interval()),
    bindparam("queues", {name: kind.queue for name, kind in STEPS.items()}, type_=JSONB()),
    bindparam("unrouted", topology.UNROUTED.name, type_=Text()),
)

_WITH_ROOM: Final = text(
    """
    SELECT DISTINCT tenant_id, name FROM tenant_steps
    WHERE waiting > 0
      AND in_broker < CASE priority WHEN 'interactive' THEN :interactive_max ELSE :bulk_max END
    """
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a look of the watchdog did.

    Attributes:
        released: steps released again.
        alarms: those of them that were released more often than `STEP_ALARM_AFTER`.
    """

    released: int
    alarms: int
    complete: bool


def sweep(context: Context, budget: Budget) -> Summary:
    """Release every overdue step again, and every waiting step that its tenant has room for."""
    released = alarms = 0
    is_last = False
    while not is_last and not budget.is_spent:
        with context.transaction() as session:
            found, batch = release_overdue(session, settings=context.settings)
        is_last = found < BATCH
        released += len(batch)
        alarms += sum(_report(step, settings=context.settings) for step in batch)
    _release_waiting(context, budget)
    return Summary(released=released, alarms=alarms, complete=is_last)


@dataclass(frozen=True, kw_only=True)
class ReleasedStep:
    """A step that was released again; `releases` counts every release so far."""

    job_id: str
    name: StepName
    releases: int


def release_overdue(session: Session, *, settings: StepSettings) -> tuple[int, list[ReleasedStep]]:
    """Release up to `BATCH` overdue steps again, longest overdue first.

    Returns:
        How many steps were overdue, and those of them that were released.
    """
    rows = session.execute(
        _RELEASE_OVERDUE,
        {
            "limit": BATCH,
            "overdue": settings.step_overdue,
            "overdue_max": max(steps.OVERDUE_MAX, settings.step_overdue),
        },
    ).all()
    lost = [row for row in rows if not row.is_held]
    session.add_all(
        OutboxMessage(event_id=row.event_id, queue=STEPS[StepName(row.name)].queue) for row in lost
    )
    return len(rows), [
        ReleasedStep(job_id=str(row.job_id), name=StepName(row.name), releases=row.releases)
        for row in lost
    ]


def _report(step: ReleasedStep, *, settings: StepSettings) -> bool:
    """Log a release; return whether it is an alarm."""
    is_alarm = step.releases > settings.step_alarm_after
    report = log.error if is_alarm else log.warning
    report("watchdog.step_released", job_id=step.job_id, step=step.name, releases=step.releases)
    return is_alarm


def _release_waiting(context: Context, budget: Budget) -> None:
    """Release waiting steps that the end of an earlier step did not release.

    For example after `TENANT_STEPS_MAX` was raised.
    """
    settings = context.settings
    with context.transaction() as session:
        with_room = session.execute(
            _WITH_ROOM,
            {
                "interactive_max": settings.tenant_steps_max,
                "bulk_max": settings.tenant_bulk_steps_max,
            },
        ).all()
    for tenant_id, name in with_room:
        if budget.is_spent:
            return
        with context.transaction() as session:
            session.execute(steps.release(tenant_id, StepName(name), settings=settings))
