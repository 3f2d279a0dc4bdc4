"""Deliveries that are due to one endpoint, with their events: a backlog as after a long outage."""

from typing import Final, LiteralString
from uuid import UUID

import psycopg

# Longest due first, in the order of the events. Half a millisecond lies between two of them, so a million are
# in the partitions of one week or two.
_SEED: Final[LiteralString] = """
    WITH event AS (
        SELECT (
            left(replace(waybill_first_uuid7(now() - interval '500 microseconds' * n)::text, '-', ''), 12) || '7'
            || left(md5(n::text), 3) || '8' || left(md5(%(webhook_id)s || ' ' || n::text), 15)
        )::uuid AS id, webhooks.tenant_id, gen_random_uuid() AS upload_id, now() - interval '500 microseconds' * n AS at
        FROM webhooks CROSS JOIN generate_series(%(rows)s, 1, -1) AS n
        WHERE webhooks.id = %(webhook_id)s::uuid
    ),
    stored AS (
        INSERT INTO events (id, tenant_id, type, subject, upload_id, body, created_at)
        SELECT id, tenant_id, 'upload.cancelled', upload_id::text, upload_id, convert_to(format(
                   '{"specversion":"1.0","id":"%%s","source":"/waybill/seed","type":"upload.cancelled","subject":"%%s","time":"%%s",'
                   '"datacontenttype":"application/json","tenantid":"%%s","data":{"upload_id":"%%s","filename":"a.pdf"}}',
                   id, upload_id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), tenant_id, upload_id
               ), 'UTF8'), at
        FROM event
    ),
    recorded AS (
        INSERT INTO inbox (consumer, event_id, processed_at, deliveries) SELECT 'notifier', id, at, 1 FROM event
    ),
    added AS (
        INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, upload_id, status, attempts_made, next_attempt_at,
                                created_at)
        SELECT waybill_delivery_id(id, %(webhook_id)s::uuid), tenant_id, %(webhook_id)s::uuid, id, 'upload.cancelled', upload_id,
               'pending', %(attempts_made)s, at, at
        FROM event
    )
    UPDATE delivery_queues SET due_at = now() WHERE webhook_id = %(webhook_id)s::uuid
"""


def seed_due(
    connection: psycopg.Connection[object],
    webhook_id: UUID,
    *,
    rows: int,
    attempts_made: int = 0,
) -> None:
    """Add deliveries that are due now, in one transaction, and update the statistics.

    Args:
        connection: commits each statement.
        webhook_id: the endpoint; it should have no earlier deliveries.
        rows: number of deliveries.
        attempts_made: 0 for first attempts, more for retries, whose attempts are not in the log.
    """
    values = {"webhook_id": str(webhook_id), "rows": rows, "attempts_made": attempts_made}
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(_SEED, values)
        cursor.execute("ANALYZE events, inbox, deliveries, delivery_queues")
