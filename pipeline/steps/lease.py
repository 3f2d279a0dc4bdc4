"""The lease of a step: claimed by one worker, renewed by its heartbeat, released or lost.

Every change is conditional on the caller's lease. A worker whose lease expired cannot
overwrite what its successor writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Executable,
    Interval,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from pipeline.steps.errors import LeaseHeld, LeaseLost, StepCancelled, UnknownStep
from schemas.errors import DomainError
from schemas.ids import JobId, TenantId
from schemas.lifecycle import ACTIVE_STEPS, Priority, StepStatus
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.base import table_of
from schemas.tables.steps import Step, TenantSteps

_STEPS: Final = table_of(Step)
_COUNTERS: Final = table_of(TenantSteps)


def _is(
    job_id: JobId | ColumnElement[JobId], name: StepName | ColumnElement[StepName]
) -> ColumnElement[bool]:
    return and_(_STEPS.c.job_id == job_id, _STEPS.c.name == name)


def is_free() -> ColumnElement[bool]:
    """Return the condition that no worker holds the lease of a step."""
    return or_(_STEPS.c.lease_until.is_(None), _STEPS.c.lease_until < func.now())


# Built once: building costs as much of the processor as executing.
_LEASE_END: Final = func.now() + bindparam("lease", type_=Interval())
_CLAIM: Final = (
    update(_STEPS)
    .where(
        _is(bindparam("of_job"), bindparam("step")), _STEPS.c.status.in_(ACTIVE_STEPS), is_free()
    )
    .values(
        status=StepStatus.RUNNING,
        lease_owner=bindparam("owner"),
        lease_until=_LEASE_END,
        done_at_claim=_STEPS.c.done,
        started_at=func.coalesce(_STEPS.c.started_at, func.now()),
        overdue_at=_LEASE_END + bindparam("overdue", type_=Interval()),
    )
    .returning(
        _STEPS.c.tenant_id,
        _STEPS.c.priority,
        _STEPS.c.done,
        _STEPS.c.total,
        _STEPS.c.checkpoint,
        (_STEPS.c.started_at == func.now()).label("is_first"),
    )
)
_CHANGE: Final = (
    update(_STEPS)
    .where(
        _is(bindparam("of_job"), bindparam("step")),
        _STEPS.c.lease_owner == bindparam("owner"),
        _STEPS.c.status == StepStatus.RUNNING,
    )
    .returning(_STEPS.c.job_id)
)
"""Changes the columns that are among its parameters."""
_RENEW: Final = _CHANGE.values(
    lease_until=_LEASE_END, done=func.greatest(_STEPS.c.done, bindparam("done_so_far"))
)
_RESTART: Final = _CHANGE.values(lease_until=_LEASE_END, done=0)
_HOLD: Final = (
    update(_STEPS)
    .where(
        _is(bindparam("of_job"), bindparam("step")),
        _STEPS.c.status == bindparam("ended"),
        is_free(),
    )
    .values(lease_owner=bindparam("owner"), lease_until=_LEASE_END)
    .returning(_STEPS.c.job_id)
)
_RENEW_HOLD: Final = (
    update(_STEPS)
    .where(_is(bindparam("of_job"), bindparam("step")), _STEPS.c.lease_owner == bindparam("owner"))
    .values(lease_until=_LEASE_END)
    .returning(_STEPS.c.job_id)
)
_COMPLETE: Final = _CHANGE.values(
    status=StepStatus.COMPLETED,
    checkpoint=None,
    lease_owner=None,
    lease_until=None,
    overdue_at=None,
    finished_at=func.now(),
)
_LET_WAIT: Final = _CHANGE.values(
    status=StepStatus.WAITING,
    done_at_claim=_STEPS.c.done,
    lease_owner=None,
    lease_until=None,
    overdue_at=None,
)


@dataclass(frozen=True, kw_only=True)
class ClaimedStep:
    """A step that only this worker works on until its lease expires.

    Attributes:
        owner: identifies the claim; another claim of the step has another owner.
        done: what earlier deliveries did, in the unit of the step.
        checkpoint: what an earlier delivery recorded to resume from.
        is_first: whether no worker has claimed the step before.
    """

    job_id: JobId
    name: StepName
    tenant_id: TenantId
    priority: Priority
    owner: str
    done: int
    total: int | None
    checkpoint: Mapping[str, Any] | None
    is_first: bool = False


@dataclass(frozen=True, kw_only=True)
class HeldStep:
    """A step that has ended and that no client can retry while its worker cleans up after it."""

    job_id: JobId
    name: StepName
    owner: str


def claim(
    session: Session, *, job_id: JobId, name: StepName, owner: str, settings: StepSettings
) -> ClaimedStep | StepStatus:
    """Take the lease of a step, or return the final status of a step that has ended.

    Raises:
        LeaseHeld: another worker has the lease.
        UnknownStep: there is no such job, or it has no such step.
    """
    step = session.execute(
        _CLAIM,
        {
            "of_job": job_id,
            "step": name,
            "owner": owner,
            "lease": settings.step_lease,
            "overdue": settings.step_overdue,
        },
    ).one_or_none()
    if step is None:
        return why_not_claimed(session, job_id=job_id, name=name)
    return ClaimedStep(
        job_id=job_id,
        name=name,
        tenant_id=step.tenant_id,
        priority=step.priority,
        owner=owner,
        done=step.done,
        total=step.total,
        checkpoint=step.checkpoint,
        is_first=step.is_first,
    )


def renew(
    session: Session,
    claimed: ClaimedStep,
    *,
    lease: timedelta,
    done: int,
    total: int | None,
    checkpoint: Mapping[str, Any] | None = None,
) -> None:
    """Renew the lease and record progress and checkpoint; progress never decreases.

    Raises:
        StepCancelled: the client cancelled meanwhile.
        LeaseLost: the lease expired and another worker took over.
    """
    _change(
        session,
        claimed,
        _RENEW,
        lease=lease,
        done_so_far=done,
        total=total,
        checkpoint=checkpoint,
    )


def restart(
    session: Session,
    claimed: ClaimedStep,
    *,
    lease: timedelta,
    total: int | None,
    checkpoint: Mapping[str, Any] | None,
    forget_claim: bool = False,
) -> None:
    """Renew the lease and reset progress to zero, because what earlier deliveries did is lost.

    `done_at_claim` stays unless `forget_claim` is set: crashes count until more is done than was
    lost, so a step that loses its progress again and again ends.

    Raises:
        StepCancelled, LeaseLost: see `renew`.
    """
    _change(
        session,
        claimed,
        _RESTART,
        lease=lease,
        total=total,
        checkpoint=checkpoint,
        **({"done_at_claim": 0} if forget_claim else {}),
    )


def complete(
    session: Session, claimed: ClaimedStep, *, done: int, total: int | None, settings: StepSettings
) -> None:
    """End a step, and release the next waiting steps of its tenant.

    Raises:
        StepCancelled, LeaseLost: see `renew`; the transaction must roll back.
    """
    _change(session, claimed, _COMPLETE, done=done, total=total)
    session.execute(steps.release(claimed.tenant_id, claimed.name, settings=settings))


def fail(
    session: Session,
    *,
    job_id: JobId,
    name: StepName,
    error: DomainError,
    settings: StepSettings,
    status: StepStatus = StepStatus.FAILED,
) -> StepStatus | None:
    """End a step with an error, and release the next waiting steps of its tenant.

    Args:
        session: the session of the caller.
        job_id: the job.
        name: the step.
        error: why it ends.
        settings: shares of the tenants.
        status: `COMPLETED` for a step whose failure does not fail its job.

    Returns:
        None; or the final status of a step that has ended before.

    Raises:
        LeaseHeld: another worker has the lease; it may succeed.
        UnknownStep: there is no such job, or it has no such step.
    """
    tenant_id = session.scalar(
        update(_STEPS)
        .where(_is(job_id, name), _STEPS.c.status.in_(ACTIVE_STEPS), is_free())
        .values(
            status=status,
            error_code=error.code,
            error_detail=str(error),
            error_retryable=error.retryable,
            lease_owner=None,
            lease_until=None,
            overdue_at=None,
            finished_at=func.now(),
        )
        .returning(_STEPS.c.tenant_id)
    )
    if tenant_id is None:
        return why_not_claimed(session, job_id=job_id, name=name)
    session.execute(steps.release(tenant_id, name, settings=settings))
    return None


def hold(
    session: Session,
    *,
    job_id: JobId,
    name: StepName,
    status: StepStatus,
    owner: str,
    lease: timedelta,
) -> HeldStep | None:
    """Take the lease of a step that has ended, for the cleanup after it.

    Without the lease, the cleanup could delete what a retry has stored meanwhile.

    Returns:
        None if the step has not this status any more: it was retried.

    Raises:
        LeaseHeld: another worker has the lease.
        UnknownStep: there is no such job, or it has no such step.
    """
    own = {"of_job": job_id, "step": name, "owner": owner, "ended": status, "lease": lease}
    if session.execute(_HOLD, own).first() is not None:
        return HeldStep(job_id=job_id, name=name, owner=owner)
    found = session.execute(
        select(_STEPS.c.status, _STEPS.c.lease_owner).where(_is(job_id, name))
    ).one_or_none()
    if found is None:
        raise UnknownStep(job_id, name)
    if found.status == status:
        raise LeaseHeld(f"held by {found.lease_owner}")
    return None


def renew_hold(session: Session, held: HeldStep, *, lease: timedelta) -> None:
    """Renew the lease of a step that has ended.

    Raises:
        LeaseLost: the lease expired, and a client retried the step or another worker cleans up.
    """
    own = {"of_job": held.job_id, "step": held.name, "owner": held.owner, "lease": lease}
    if session.execute(_RENEW_HOLD, own).first() is None:
        raise LeaseLost


def release_lease(session: Session, claimed: ClaimedStep | HeldStep) -> None:
    """End the lease so that the next delivery can claim the step at once."""
    session.execute(
        update(_STEPS)
        .where(_is(claimed.job_id, claimed.name), _STEPS.c.lease_owner == claimed.owner)
        .values(lease_owner=None, lease_until=None),
    )


def postpone(
    session: Session,
    *,
    job_id: JobId,
    name: StepName,
    delay: timedelta,
    attempts: int,
    settings: StepSettings,
) -> None:
    """Record that the event of a step returns after `delay`, unless a worker holds the lease."""
    session.execute(
        update(_STEPS)
        .where(_is(job_id, name), _STEPS.c.status.in_(ACTIVE_STEPS), is_free())
        .values(
            status=StepStatus.QUEUED,
            attempts=attempts,
            overdue_at=func.now() + delay + settings.step_overdue,
        )
    )


def give_place(
    session: Session,
    claimed: ClaimedStep,
    *,
    checkpoint: Mapping[str, Any] | None,
    settings: StepSettings,
) -> bool:
    """Let the next waiting step of the tenant have the place of this one; False if none waits.

    This one then waits behind those that wait now, with its first event.

    Raises:
        StepCancelled, LeaseLost: see `renew`; the transaction must roll back.
    """
    others = select(_STEPS.c.job_id).where(
        _STEPS.c.tenant_id == claimed.tenant_id,
        _STEPS.c.name == claimed.name,
        _STEPS.c.priority == claimed.priority,
        _STEPS.c.status == StepStatus.WAITING,
    )
    if not session.scalar(select(exists(others))):
        return False
    # The step before the counters, as its end locks them.
    _change(session, claimed, _LET_WAIT, checkpoint=checkpoint)
    ticket = session.scalar(
        update(_COUNTERS)
        .where(
            _COUNTERS.c.tenant_id == claimed.tenant_id,
            _COUNTERS.c.name == claimed.name,
            _COUNTERS.c.priority == claimed.priority,
        )
        .values(issued=_COUNTERS.c.issued + 1)
        .returning(_COUNTERS.c.issued)
    )
    session.execute(update(_STEPS).where(_is(claimed.job_id, claimed.name)).values(ticket=ticket))
    session.execute(steps.release(claimed.tenant_id, claimed.name, settings=settings))
    return True


def got_further(session: Session, *, job_id: JobId, name: StepName) -> bool:
    """Return whether the last worker did more than the step had at that worker's claim."""
    further = session.scalar(
        # A step that has ended makes no more progress.
        select(_STEPS.c.done > _STEPS.c.done_at_claim).where(
            _is(job_id, name), _STEPS.c.status.in_(ACTIVE_STEPS)
        )
    )
    return bool(further)


def why_not_claimed(session: Session, *, job_id: JobId, name: StepName) -> StepStatus:
    """Return the final status of a step that could not be claimed.

    Raises:
        LeaseHeld: the step has not ended; another worker has the lease.
        UnknownStep: there is no such job, or it has no such step.
    """
    found = session.execute(
        select(_STEPS.c.status, _STEPS.c.lease_owner).where(_is(job_id, name))
    ).one_or_none()
    if found is None:
        raise UnknownStep(job_id, name)
    if found.status in ACTIVE_STEPS:
        raise LeaseHeld(f"held by {found.lease_owner}")
    status: StepStatus = found.status
    return status


def _change(
    session: Session,
    claimed: ClaimedStep,
    statement: Executable,
    **parameters: Any,  # noqa: ANN401  # values of columns, and parameters of the statement
) -> None:
    own = {"of_job": claimed.job_id, "step": claimed.name, "owner": claimed.owner}
    if session.execute(statement, own | parameters).first() is not None:
        return
    status = session.scalar(select(_STEPS.c.status).where(_is(claimed.job_id, claimed.name)))
    raise StepCancelled if status == StepStatus.CANCELLED else LeaseLost
