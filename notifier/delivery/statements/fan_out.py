"""Adds the deliveries of an event to many endpoints, a part in each transaction."""

from typing import Final
from uuid import UUID

from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.statements.intake import MATCHES
from schemas.ids import TenantId
from schemas.tables.inbox import NOTIFIER

PART: Final = 500
"""Endpoints of one part, which takes 30 ms."""

_FIRST: Final = UUID(int=0)

# As the intake does, with two differences: the owner of a queue is woken, also if it is this process, and the
# deliveries are no answer, so nothing is lost with the answer.
_ADD_PART: Final = f"""
WITH message AS MATERIALIZED (
    SELECT fan_outs.event_id AS id, fan_outs.tenant_id, fan_outs.reached, events.type, events.upload_id,
           events.job_id, events.endpoint_id
    FROM fan_outs LEFT JOIN events ON events.id = fan_outs.event_id AND events.tenant_id = fan_outs.tenant_id
    WHERE fan_outs.tenant_id > %(after)b
    ORDER BY fan_outs.tenant_id, fan_outs.event_id LIMIT 1 FOR UPDATE OF fan_outs SKIP LOCKED
),
subscription AS MATERIALIZED (
    SELECT message.id AS event_id, message.tenant_id, message.type, message.upload_id, endpoint.*
    FROM message CROSS JOIN LATERAL (
        SELECT webhooks.id AS webhook_id, webhooks.ordered, webhooks.disabled_at, webhooks.paused_at FROM webhooks
        WHERE webhooks.upload_id IS NULL AND webhooks.id > message.reached AND message.type IS NOT NULL AND {MATCHES}
        ORDER BY webhooks.id LIMIT {PART}
    ) AS endpoint
),
paused AS MATERIALIZED (
    SELECT id FROM webhooks
    WHERE id IN (SELECT webhook_id FROM subscription WHERE paused_at IS NOT NULL) AND paused_at IS NOT NULL
    ORDER BY id FOR SHARE
),
added AS (
    INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, upload_id, status, reason, ordered,
                            attempts_made, next_attempt_at, settled_at)
    SELECT waybill_delivery_id(event_id, webhook_id), tenant_id, webhook_id, event_id, type, upload_id,
           CASE WHEN disabled_at IS NULL THEN 'pending' ELSE 'discarded' END,
           CASE WHEN disabled_at IS NOT NULL THEN 'endpoint_disabled' END,
           ordered AND upload_id IS NOT NULL, 0,
           CASE WHEN disabled_at IS NULL THEN now() END,
           CASE WHEN disabled_at IS NOT NULL THEN now() END
    FROM subscription
    ON CONFLICT DO NOTHING
    RETURNING webhook_id, status
),
counted AS (
    UPDATE inbox SET deliveries = inbox.deliveries + (SELECT count(*) FROM added)
    FROM message WHERE inbox.consumer = '{NOTIFIER}' AND inbox.event_id = message.id
),
queue AS MATERIALIZED (
    SELECT webhook_id FROM delivery_queues
    WHERE webhook_id IN (SELECT webhook_id FROM added WHERE status = 'pending' EXCEPT SELECT id FROM paused)
    ORDER BY webhook_id FOR NO KEY UPDATE
),
woken AS (
    UPDATE delivery_queues SET due_at = least(delivery_queues.due_at, now())
    FROM queue WHERE delivery_queues.webhook_id = queue.webhook_id
),
continued AS (
    UPDATE fan_outs SET reached = last.webhook_id
    FROM message, (SELECT webhook_id FROM subscription ORDER BY webhook_id OFFSET {PART - 1}) AS last
    WHERE fan_outs.tenant_id = message.tenant_id AND fan_outs.event_id = message.id
),
ended AS (
    DELETE FROM fan_outs USING message
    WHERE fan_outs.tenant_id = message.tenant_id AND fan_outs.event_id = message.id
      AND (SELECT count(*) FROM subscription) < {PART}
)
SELECT tenant_id FROM message
"""  # noqa: S608  # constants of this module


async def add_part(connection: DedicatedConnection, *, after: TenantId | None) -> TenantId | None:
    """Add the next part of the deliveries of an event; see `Store.fan_out`."""
    rows = await connection.rows(_ADD_PART, {"after": after or _FIRST})
    return rows[0][0] if rows else None
