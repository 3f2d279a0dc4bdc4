"""Adds the steps that follow a step, in the transaction that ends it."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from pipeline.steps.lease import ClaimedStep
from schemas.ids import EventId
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.steps import Share


def add(
    session: Session,
    claimed: ClaimedStep,
    names: Sequence[StepName],
    *,
    event_id: EventId,
    settings: StepSettings,
) -> None:
    """Add steps to the job of a step that has ended; each is released if its tenant has room.

    Args:
        session: of a transaction that has ended the step.
        claimed: the step that has ended.
        names: the steps, in the order of their ordinals.
        event_id: the event that starts them.
        settings: shares of the tenants.
    """
    # In the order of the ordinals, and before a step is added: a query would flush it.
    shares = {
        name: Share.of(session.execute(steps.lock_share(claimed.tenant_id, name))) for name in names
    }
    for name, share in shares.items():
        step = steps.add_step(
            session,
            name,
            job_id=claimed.job_id,
            tenant_id=claimed.tenant_id,
            priority=claimed.priority,
            event_id=event_id,
        )
        steps.release_at_once(session, step, share=share, settings=settings)
