"""Deletes the callbacks of uploads that have ended, and the rows of endpoints deleted long ago."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas.tables import retention
from schemas.tables.webhooks import Webhook, WebhookSecret

BATCH: Final = 500


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
    while count == BATCH and not budget.is_spent:
        with context.transaction() as session:
            count = _remove(session, kept_for=context.settings.delivery_retention)
        removed += count
    return Summary(callbacks=callbacks, removed=removed)


def _delete_callbacks(session: Session) -> int:
    ended = session.scalars(
        retention.callbacks()
        .order_by(Webhook.upload_ended_at)
        .limit(BATCH)
        .with_for_update(key_share=True, skip_locked=True)
    ).all()
    session.execute(
        update(Webhook).where(Webhook.id.in_(ended)).values(deleted_at=func.now(), headers=None)
    )
    session.execute(delete(WebhookSecret).where(WebhookSecret.webhook_id.in_(ended)))
    return len(ended)


def _remove(session: Session, *, kept_for: timedelta) -> int:
    old = (
        retention.endpoints(deliveries_kept_for=kept_for)
        .with_only_columns(Webhook.id)
        .order_by(Webhook.deleted_at)
        .limit(BATCH)
    )
    # The queue of an endpoint is deleted with its row.
    statement = delete(Webhook).where(Webhook.id.in_(old)).returning(Webhook.id)
    return len(session.execute(statement).all())
