"""Deletes the callbacks of uploads that have ended, and the rows of endpoints deleted long ago."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Delivery
from schemas.tables.webhooks import Webhook, WebhookSecret

BATCH: Final = 500

LAST_EVENT_GRACE: Final = timedelta(days=7)
"""A relay that is down for less time than this still brings the last event of an upload to its callback."""

LOG_GRACE: Final = timedelta(days=8)
"""Deliveries are deleted with the partition of their week, so up to a week after their retention."""

# The offset makes PostgreSQL probe the index of pending deliveries for each endpoint that it finds.
# Without it, a join could read every pending delivery.
_HAS_PENDING: Final = (
    select(Delivery.id)
    .where(Delivery.webhook_id == Webhook.id, Delivery.status == DeliveryStatus.PENDING)
    .correlate(Webhook)
    .offset(0)
    .exists()
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was deleted.

    Attributes:
        callbacks: callbacks whose upload was cancelled, failed or expired, with their secrets.
        removed: rows of endpoints whose deliveries are no longer kept.
    """

    callbacks: int
    removed: int


def sweep(context: Context, budget: Budget) -> Summary:
    callbacks = removed = 0
    count = BATCH
    while count == BATCH and not budget.is_spent:
        with context.transaction() as session:
            count = _delete_callbacks(session)
        callbacks += count
    count = BATCH
    kept = context.settings.delivery_retention + LOG_GRACE
    while count == BATCH and not budget.is_spent:
        with context.transaction() as session:
            count = _remove(session, older_than=kept)
        removed += count
    return Summary(callbacks=callbacks, removed=removed)


def _delete_callbacks(session: Session) -> int:
    ended = session.scalars(
        select(Webhook.id)
        .where(
            Webhook.upload_ended_at < func.now() - LAST_EVENT_GRACE,
            Webhook.deleted_at.is_(None),
            ~_HAS_PENDING,
        )
        .order_by(Webhook.upload_ended_at)
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    session.execute(
        update(Webhook).where(Webhook.id.in_(ended)).values(deleted_at=func.now(), headers=None)
    )
    session.execute(delete(WebhookSecret).where(WebhookSecret.webhook_id.in_(ended)))
    return len(ended)


def _remove(session: Session, *, older_than: timedelta) -> int:
    old = (
        select(Webhook.id)
        .where(Webhook.deleted_at < func.now() - older_than, ~_HAS_PENDING)
        .order_by(Webhook.deleted_at)
        .limit(BATCH)
    )
    # The queue of an endpoint is deleted with its row.
    statement = delete(Webhook).where(Webhook.id.in_(old)).returning(Webhook.id)
    return len(session.execute(statement).all())
