"""Disables endpoints, and settles the deliveries of endpoints that receive no more."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from notifier.delivery.statements.arrays import Uuids
from notifier.delivery.statements.connections import DedicatedConnection
from schemas.events.endpoints import DELIVERIES_COUNTED_MAX, EndpointDisabled
from schemas.ids import DeliveryId, WebhookId
from schemas.lifecycle import DisabledReason, DiscardReason
from schemas.tables.events import emit

SOURCE: Final = "/waybill/notifier"

_DISABLE: Final = text(
    """
    UPDATE webhooks SET disabled_at = now(), disabled_reason = :reason
    WHERE id = :webhook_id AND disabled_at IS NULL AND deleted_at IS NULL
    RETURNING tenant_id, url, description, disabled_at,
        (SELECT failing_since FROM delivery_queues WHERE webhook_id = webhooks.id) AS failing_since,
        (SELECT count(*) FROM (
            SELECT FROM deliveries WHERE webhook_id = webhooks.id AND status = 'pending' LIMIT :counted_max
        ) AS pending) AS deliveries_kept
    """
)

_WAKE: Final = text("UPDATE delivery_queues SET due_at = now() WHERE webhook_id = :webhook_id")

# Rows that are locked are being settled by their own answer, or by another process.
_DISCARD: Final = """
UPDATE deliveries SET status = 'discarded', reason = %(reason)b, next_attempt_at = NULL, settled_at = now()
FROM (
    SELECT id FROM deliveries
    WHERE webhook_id = %(webhook_id)b AND status = 'pending' AND id NOT IN (SELECT unnest(%(keep)b))
      -- The endpoint may have been enabled again since the caller read it.
      AND EXISTS (
          SELECT FROM webhooks
          WHERE id = %(webhook_id)b AND (disabled_at IS NOT NULL OR deleted_at IS NOT NULL)
      )
    LIMIT %(limit)b FOR UPDATE SKIP LOCKED
) AS pending
WHERE deliveries.id = pending.id
RETURNING deliveries.id
"""


async def disable(
    connection: AsyncConnection, webhook_id: WebhookId, *, reason: DisabledReason
) -> bool:
    """Disable an endpoint and emit `endpoint.disabled`; see `Store.disable`.

    Args:
        connection: in a transaction.
        webhook_id: the endpoint.
        reason: kept with the endpoint.

    Returns:
        False if it is disabled or deleted already.
    """
    answer = await connection.execute(
        _DISABLE,
        {"webhook_id": webhook_id, "reason": reason, "counted_max": DELIVERIES_COUNTED_MAX},
    )
    row = answer.mappings().first()
    if row is None:
        return False
    now = row["disabled_at"]
    async with AsyncSession(bind=connection) as session:
        emit(
            session,
            EndpointDisabled(
                endpoint_id=webhook_id,
                url=row["url"],
                description=row["description"],
                reason=reason,
                failing_since=row["failing_since"] if reason is DisabledReason.FAILING else None,
                disabled_at=now,
                deliveries_kept=row["deliveries_kept"],
            ),
            tenant_id=row["tenant_id"],
            source=SOURCE,
            now=now,
        )
        await session.flush()
    # Whichever process owns the queue next discards the deliveries, if this one ends before.
    await connection.execute(_WAKE, {"webhook_id": webhook_id})
    return True


async def discard(
    connection: DedicatedConnection,
    webhook_id: WebhookId,
    *,
    reason: DiscardReason,
    keep: Collection[DeliveryId],
    limit: int,
) -> int:
    """Discard pending deliveries of an endpoint; see `Store.discard`."""
    rows = await connection.rows(
        _DISCARD,
        {"webhook_id": webhook_id, "reason": reason, "keep": Uuids(keep), "limit": limit},
    )
    return len(rows)
