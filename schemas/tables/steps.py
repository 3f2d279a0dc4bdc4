"""Steps of jobs, and the statements that add, release and cancel them.

Triggers keep what follows from a step: its ticket, the counters of its tenant, and the status of
its job. A transaction locks rows in this order: upload, usage of the tenant, steps, counters of
the tenant's steps, job. A transaction that ends one step and adds the next locks the counters of
the second after the job; that is safe because every transaction takes the steps of a job in the
order of their ordinals. Any other order could end in a deadlock.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString

from sqlalchemy import (
    Executable,
    ForeignKey,
    Index,
    Interval,
    Text,
    Update,
    Uuid,
    bindparam,
    func,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Session, mapped_column

from schemas.ids import EventId, JobId, TenantId
from schemas.lifecycle import ACTIVE_STEPS, Priority, StepStatus
from schemas.settings import StepSettings
from schemas.steps import STEPS, StepName
from schemas.tables.base import Base
from schemas.tables.outbox import OutboxMessage


class Step(Base):
    """What a worker does for a job: its lease, progress, checkpoint and attempts.

    Only the worker that holds the lease changes a running step; see `pipeline.steps`.
    """

    __tablename__ = "steps"

    job_id: Mapped[JobId] = mapped_column(
        ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[StepName] = mapped_column(primary_key=True)
    ordinal: Mapped[int]
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    priority: Mapped[Priority]
    event_id: Mapped[EventId | None]
    """The event that starts the step; None for a step that ended before steps were recorded."""
    status: Mapped[StepStatus] = mapped_column(default=StepStatus.WAITING)
    ticket: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of the step among those of its tenant, name and priority, in the order of arrival."""
    done: Mapped[int] = mapped_column(server_default=text("0"))
    total: Mapped[int | None]
    unit: Mapped[str | None]
    done_at_claim: Mapped[int] = mapped_column(server_default=text("0"))
    """`done` when a worker last claimed the step; a larger `done` is progress since."""
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts that failed and were counted."""
    releases: Mapped[int] = mapped_column(server_default=text("0"))
    """How often the event of the step was given to the broker."""
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    checkpoint: Mapped[dict[str, Any] | None]
    """What the next worker needs to resume; its content belongs to the step."""
    overdue_at: Mapped[datetime | None]
    """When the watchdog releases the step again, if no worker has claimed it by then."""
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    error_retryable: Mapped[bool | None]

    __table_args__ = (
        Index(
            "ix_steps_waiting",
            "tenant_id",
            "name",
            "priority",
            "ticket",
            postgresql_where=text("status = 'waiting'"),
        ),
        Index(
            "ix_steps_overdue",
            "overdue_at",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
    )


class TenantSteps(Base):
    """Counters of a tenant's steps of one name and priority; only a trigger writes them."""

    __tablename__ = "tenant_steps"

    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    name: Mapped[StepName] = mapped_column(primary_key=True)
    priority: Mapped[Priority] = mapped_column(primary_key=True)
    waiting: Mapped[int] = mapped_column(server_default=text("0"))
    in_broker: Mapped[int] = mapped_column(server_default=text("0"))
    """Steps that are queued or running."""
    issued: Mapped[int] = mapped_column(server_default=text("0"))
    """Tickets issued so far."""
    released: Mapped[int] = mapped_column(server_default=text("0"))
    """Steps that no longer wait; the difference from a ticket is about the place in line."""
    finished: Mapped[int] = mapped_column(server_default=text("0"))
    """Steps that ended; two readings give the rate."""

    __table_args__ = (
        Index("ix_tenant_steps_waiting", "tenant_id", postgresql_where=text("waiting > 0")),
    )


OVERDUE_MAX: Final = timedelta(hours=1)
"""Longest time between two releases of a step that no worker claims."""

# Each statement of a transaction sees what was committed before the statement. An earlier statement
# of the transaction has locked the counters, so they cannot change, and every waiting step that
# they count is visible.
# The array makes the database look each step up by its key. It estimates a limit that it does not
# know as a tenth of the rows: with thousands of waiting steps, a join would read all steps.
_RELEASE: Final = text(
    """
    WITH room AS (
        SELECT priority, waiting,
               greatest(CASE priority WHEN 'interactive' THEN :interactive_max ELSE :bulk_max END - in_broker, 0) AS free
        FROM tenant_steps
        WHERE tenant_id = :tenant_id AND name = :name AND waiting > 0
        ORDER BY priority
        FOR UPDATE
    ), interactive AS (
        SELECT job_id FROM steps
        WHERE tenant_id = :tenant_id AND name = :name AND priority = 'interactive' AND status = 'waiting'
        ORDER BY ticket
        LIMIT (SELECT coalesce(sum(free), 0) FROM room WHERE priority = 'interactive')
        FOR UPDATE SKIP LOCKED
    ), bulk AS (
        SELECT job_id FROM steps
        WHERE tenant_id = :tenant_id AND name = :name AND priority = 'bulk' AND status = 'waiting'
        ORDER BY ticket
        LIMIT (SELECT coalesce(sum(free), 0) FROM room
               WHERE priority = 'bulk'
                 AND NOT EXISTS (SELECT FROM room WHERE priority = 'interactive' AND waiting > free))
        FOR UPDATE SKIP LOCKED
    ), released AS (
        UPDATE steps
        SET status = 'queued', releases = releases + 1, overdue_at = now() + :overdue
        WHERE name = :name AND job_id = ANY (ARRAY(SELECT job_id FROM interactive UNION ALL SELECT job_id FROM bulk))
        RETURNING event_id
    )
    INSERT INTO outbox (event_id, queue) SELECT event_id, :queue FROM released
    """
).bindparams(
    bindparam("tenant_id", type_=Uuid()),
    bindparam("name", type_=Text()),
    bindparam("queue", type_=Text()),
    bindparam("overdue", type_=Interval()),
)


@dataclass(frozen=True, kw_only=True)
class Counters:
    """A tenant's steps of one name and priority; see `TenantSteps`."""

    waiting: int = 0
    in_broker: int = 0
    released: int = 0


@dataclass(frozen=True, kw_only=True)
class Share:
    """A tenant's share of the steps of one name; locked until the transaction ends.

    Attributes:
        tenant_waiting: the tenant's waiting steps of all names but `index`.
        tenant_finished: the same for finished steps.
    """

    interactive: Counters
    bulk: Counters
    tenant_waiting: int
    tenant_finished: int

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int, int, int, int, int]]) -> "Share":
        """Return the share that the rows of `lock_share` describe."""
        counters, tenant_waiting, tenant_finished = dict[Priority, Counters](), 0, 0
        for priority, waiting, in_broker, released, tenant_waiting, tenant_finished in rows:  # noqa: B007
            counters[Priority(priority)] = Counters(
                waiting=waiting, in_broker=in_broker, released=released
            )
        return cls(
            interactive=counters.get(Priority.INTERACTIVE, Counters()),
            bulk=counters.get(Priority.BULK, Counters()),
            tenant_waiting=tenant_waiting,
            tenant_finished=tenant_finished,
        )

    def place_of(self, ticket: int, *, priority: Priority) -> int:
        """Return the place in line of a waiting step that was added under the lock."""
        return max(1, ticket - self._of(priority).released)

    def has_room(self, priority: Priority, *, settings: StepSettings) -> bool:
        """Return whether `release` would release a new step at once.

        If not, `release` would release nothing: a step that waits has no room either.
        """
        if self.interactive.waiting:
            return False
        if priority is Priority.INTERACTIVE:
            return self.interactive.in_broker < settings.tenant_steps_max
        return not self.bulk.waiting and self.bulk.in_broker < settings.tenant_bulk_steps_max

    def _of(self, priority: Priority) -> Counters:
        return self.interactive if priority is Priority.INTERACTIVE else self.bulk


# The order is that of the trigger, so that the two cannot deadlock. No job waits for a step `index`, so
# that a missing worker of these steps refuses no upload.
LOCK_SHARE: Final[LiteralString] = """
    SELECT priority, waiting, in_broker, released,
           (SELECT sum(waiting)::bigint FROM tenant_steps WHERE tenant_id = %(tenant_id)s AND name <> 'index') AS tenant_waiting,
           (SELECT sum(finished)::bigint FROM tenant_steps WHERE tenant_id = %(tenant_id)s AND name <> 'index') AS tenant_finished
    FROM tenant_steps
    WHERE tenant_id = %(tenant_id)s AND name = %(name)s
    ORDER BY priority
    FOR UPDATE
"""
"""The statement of `lock_share`, with the driver's placeholders."""

_SHARE: Final = text(re.sub(r"%\((\w+)\)s", r":\1", LOCK_SHARE)).bindparams(
    bindparam("tenant_id", type_=Uuid()), bindparam("name", type_=Text())
)


def lock_share(tenant_id: TenantId, name: StepName) -> Executable:
    """Return the statement that locks the counters of a tenant's steps of one name; see `Share.of`.

    The steps of other names are counted without a lock. A tenant without counters has nothing to
    lock: if several transactions add its first steps at the same time, they may exceed the share
    once.
    """
    return _SHARE.bindparams(tenant_id=tenant_id, name=name)


def add_step(
    session: Session | AsyncSession,
    name: StepName,
    *,
    job_id: JobId,
    tenant_id: TenantId,
    priority: Priority,
    event_id: EventId,
    total: int | None = None,
) -> Step:
    """Add a waiting step to a job; then `release_at_once`, or flush the session and execute `release`.

    Args:
        session: the session that adds the job or ends the step before.
        name: the step.
        job_id: its job.
        tenant_id: owner of the job.
        priority: of the job.
        event_id: the event that starts the step, from `emit`.
        total: how much there is to do, in the unit of the step; None if it is not known yet.
    """
    kind = STEPS[name]
    step = Step(
        job_id=job_id,
        name=name,
        ordinal=kind.ordinal,
        tenant_id=tenant_id,
        priority=priority,
        event_id=event_id,
        status=StepStatus.WAITING,
        total=total,
        unit=kind.unit,
    )
    session.add(step)
    return step


def release_at_once(
    session: Session | AsyncSession, step: Step, *, share: Share, settings: StepSettings
) -> None:
    """Give a new step to the broker if its tenant has room; otherwise the step waits.

    Does for a step that is not flushed yet what `release` does after the flush, without a
    further statement. No step of the tenant may have been added since the share was locked.
    """
    if share.has_room(step.priority, settings=settings):
        step.status = StepStatus.QUEUED
        step.releases = 1
        # In SQL: times that decide come from the database.
        step.overdue_at = func.now() + settings.step_overdue
        session.add(OutboxMessage(event_id=step.event_id, queue=STEPS[step.name].queue))


def release(tenant_id: TenantId, name: StepName, *, settings: StepSettings) -> Executable:
    """Return the statement that gives waiting steps of a tenant to the broker, as far as it has room.

    Interactive steps come first, in the order of their tickets; bulk steps are released only while
    no interactive step has to wait. Execute it after every change that adds a step or ends a step,
    in the same transaction.
    """
    return _RELEASE.bindparams(
        tenant_id=tenant_id,
        name=name,
        queue=STEPS[name].queue,
        interactive_max=settings.tenant_steps_max,
        bulk_max=settings.tenant_bulk_steps_max,
        overdue=settings.step_overdue,
    )


def cancel(*job_ids: JobId) -> Update:
    """Return the statement that cancels every step of some jobs that has not ended.

    A worker that holds the lease of a step finds out at its next heartbeat. The lease stays, because
    that worker still cleans up. Cancel all jobs in one statement whose steps have the same name: the
    triggers lock the counters after all steps, as a worker does. With two statements, the second
    waits for a step whose worker waits for the counters.
    """
    return (
        update(Step)
        .where(
            Step.job_id.in_(job_ids), Step.status.in_(ACTIVE_STEPS), Step.name != StepName.CLEANUP
        )
        .values(status=StepStatus.CANCELLED, finished_at=func.now())
        .returning(Step.name)
    )
