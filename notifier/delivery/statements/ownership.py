"""Which process owns a queue, and from when on a queue is due.

An owner of queues is a row of `deliverers`. Its row ends once, by `ended_at`; from then on every
statement treats its queues as free, and a process that finds its row ended continues under a new
id. So no two processes own a queue, whatever one of them has missed.
"""

import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from notifier.delivery.statements.arrays import Uuids
from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.work import QueueState
from schemas.ids import WebhookId

LEASE: Final = timedelta(seconds=5)
"""How long a process counts as alive after it has proved it."""

FREEING_MAX: Final = timedelta(seconds=1)

BATCH: Final = 500
"""Queues in one transaction."""

OVERDUE: Final = timedelta(seconds=30)
"""How late a delivery is when the owner of its queue is reminded of it."""

# By the index of due deliveries, which has first attempts and retries apart.
_NEXT_ATTEMPT: Final = """least(
    (SELECT next_attempt_at FROM deliveries
     WHERE webhook_id = {queue} AND status = 'pending' AND (attempts_made > 0) IS FALSE AND next_attempt_at IS NOT NULL
     ORDER BY next_attempt_at LIMIT 1),
    (SELECT next_attempt_at FROM deliveries
     WHERE webhook_id = {queue} AND status = 'pending' AND (attempts_made > 0) IS TRUE AND next_attempt_at IS NOT NULL
     ORDER BY next_attempt_at LIMIT 1)
)"""

_NEXT_OF_QUEUE: Final = _NEXT_ATTEMPT.format(queue="delivery_queues.webhook_id")

# When a queue without an owner is due; null while its endpoint is paused, or nothing is pending.
_DUE_AT: Final = f"""(
    SELECT CASE WHEN next.attempt_at IS NOT NULL THEN greatest(next.attempt_at, delivery_queues.blocked_until) END
    FROM webhooks, LATERAL (SELECT {_NEXT_OF_QUEUE} AS attempt_at OFFSET 0) AS next
    WHERE webhooks.id = delivery_queues.webhook_id AND webhooks.paused_at IS NULL
)"""  # noqa: S608  # constants of this module

_REGISTER: Final = """
INSERT INTO deliverers (id, name, alive_until) VALUES (%(owner)b, %(name)b, now() + %(lease)b)
"""

# Another process ends a row that is not renewed in time. It locks the row: a renewal that commits meanwhile counts.
_RENEW: Final = """
WITH renewed AS (
    UPDATE deliverers SET alive_until = now() + %(lease)b WHERE id = %(owner)b AND ended_at IS NULL
    RETURNING id
),
ended AS (
    UPDATE deliverers SET ended_at = now() WHERE id IN (
        SELECT id FROM deliverers
        WHERE ended_at IS NULL AND alive_until < now() AND id <> %(owner)b FOR NO KEY UPDATE SKIP LOCKED
    )
    RETURNING id
)
SELECT EXISTS (SELECT FROM renewed),
       EXISTS (SELECT FROM ended) OR EXISTS (
           SELECT FROM deliverers JOIN delivery_queues ON delivery_queues.owner = deliverers.id
           WHERE deliverers.ended_at IS NOT NULL
       )
"""

# A statement that began before the end of its process may still commit: rows stay for a day, to find such queues.
_FORGET: Final = """
DELETE FROM deliverers WHERE ended_at < now() - interval '1 day'
AND NOT EXISTS (SELECT FROM delivery_queues WHERE owner = deliverers.id)
"""

_FREE: Final = f"""
WITH left_behind AS MATERIALIZED (
    SELECT webhook_id FROM delivery_queues
    WHERE owner IN (SELECT id FROM deliverers WHERE ended_at IS NOT NULL)
    ORDER BY webhook_id LIMIT %(limit)b FOR NO KEY UPDATE
)
UPDATE delivery_queues SET owner = NULL, due_at = least(delivery_queues.due_at, {_DUE_AT})
FROM left_behind WHERE delivery_queues.webhook_id = left_behind.webhook_id
RETURNING delivery_queues.webhook_id
"""  # noqa: S608  # constants of this module

_END: Final = "UPDATE deliverers SET ended_at = now() WHERE id = %(owner)b AND ended_at IS NULL"

# A row that is locked is being made due by another transaction, which notifies this process when it commits.
_TAKE: Final = """
WITH due AS MATERIALIZED (
    SELECT webhook_id FROM delivery_queues
    WHERE due_at <= now() AND (owner IS NULL OR owner = %(owner)b)
      AND EXISTS (SELECT FROM deliverers WHERE id = %(owner)b AND ended_at IS NULL)
    ORDER BY due_at LIMIT %(limit)b FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE delivery_queues SET owner = %(owner)b, due_at = NULL
FROM due WHERE delivery_queues.webhook_id = due.webhook_id
RETURNING delivery_queues.webhook_id, tenant_id, blocked_until, throttles, failing_since, failures
"""

_RELEASE: Final = f"""
WITH idle AS MATERIALIZED (
    SELECT webhook_id FROM delivery_queues
    WHERE webhook_id = ANY(%(webhook_id)b) AND owner = %(owner)b AND due_at IS NULL
    ORDER BY webhook_id FOR NO KEY UPDATE
)
UPDATE delivery_queues SET owner = NULL, due_at = {_DUE_AT}
FROM idle WHERE delivery_queues.webhook_id = idle.webhook_id
RETURNING delivery_queues.webhook_id
"""  # noqa: S608  # constants of this module

_OWNED: Final = """
SELECT webhook_id FROM delivery_queues WHERE webhook_id = ANY(%(webhook_id)b) AND owner = %(owner)b
"""

_REMIND_ALL: Final = """
UPDATE delivery_queues SET due_at = now() WHERE webhook_id IN (
    SELECT webhook_id FROM delivery_queues WHERE owner = %(owner)b AND due_at IS NULL
    ORDER BY webhook_id FOR NO KEY UPDATE
)
"""

# A loose index scan: one step for each endpoint with pending deliveries, whatever their number.
_WITH_PENDING: Final = """
WITH RECURSIVE found AS (
    (SELECT webhook_id FROM deliveries WHERE status = 'pending' ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT deliveries.webhook_id FROM deliveries
        WHERE status = 'pending' AND deliveries.webhook_id > found.webhook_id ORDER BY deliveries.webhook_id LIMIT 1
    )
    FROM found WHERE found.webhook_id IS NOT NULL
)
SELECT webhook_id FROM found WHERE webhook_id IS NOT NULL
"""

_REMIND: Final = f"""
WITH forgotten AS MATERIALIZED (
    SELECT delivery_queues.webhook_id, pending.due_at
    FROM delivery_queues, LATERAL (SELECT {_DUE_AT} AS due_at OFFSET 0) AS pending
    WHERE delivery_queues.webhook_id = ANY(%(webhook_id)b) AND pending.due_at IS NOT NULL
      AND (delivery_queues.due_at IS NULL OR delivery_queues.due_at > pending.due_at)
      AND (delivery_queues.owner IS NULL OR pending.due_at < now() - %(overdue)b)
    ORDER BY delivery_queues.webhook_id FOR NO KEY UPDATE OF delivery_queues
)
UPDATE delivery_queues SET due_at = forgotten.due_at
FROM forgotten WHERE delivery_queues.webhook_id = forgotten.webhook_id
RETURNING delivery_queues.webhook_id, delivery_queues.owner IS NOT NULL
"""  # noqa: S608  # constants of this module


async def register(connection: DedicatedConnection, *, owner: UUID, name: str) -> None:
    await connection.rows(_REGISTER, {"owner": owner, "name": name, "lease": LEASE})


async def renew(connection: DedicatedConnection, *, owner: UUID) -> bool:
    """Prove that `owner` is alive, and free the queues of processes that are not.

    Returns:
        False if the row of `owner` has ended.
    """
    values = {"owner": owner, "lease": LEASE}
    ((is_alive, has_left_behind),) = await connection.rows(_RENEW, values)
    if has_left_behind:
        await _free(connection)
    return bool(is_alive)


async def end(connection: DedicatedConnection, *, owner: UUID) -> None:
    """End the row of `owner` and free its queues."""
    await connection.rows(_END, {"owner": owner})
    await _free(connection)


async def _free(connection: DedicatedConnection) -> None:
    # Longer, and the next proof would be late. The rest is freed after it, or by another process.
    deadline = time.monotonic() + FREEING_MAX.total_seconds()
    freed = BATCH
    while freed == BATCH and time.monotonic() < deadline:
        freed = len(await connection.rows(_FREE, {"limit": BATCH}))
    await connection.rows(_FORGET, {})


async def take(connection: DedicatedConnection, *, owner: UUID, limit: int) -> Sequence[QueueState]:
    rows = await connection.rows(_TAKE, {"owner": owner, "limit": limit})
    return [
        QueueState(
            webhook_id=webhook_id,
            tenant_id=tenant_id,
            blocked_until=blocked_until,
            throttles=throttles,
            failing_since=failing_since,
            failures=failures,
        )
        for webhook_id, tenant_id, blocked_until, throttles, failing_since, failures in rows
    ]


async def release(
    connection: DedicatedConnection, webhook_ids: Collection[WebhookId], *, owner: UUID
) -> Collection[WebhookId]:
    """Give queues back; return those that `owner` does not own any more."""
    values = {"webhook_id": Uuids(sorted(webhook_ids)), "owner": owner}
    released = {row[0] for row in await connection.rows(_RELEASE, values)}
    if len(released) == len(set(webhook_ids)):
        return released
    # The others have become due, or an earlier release was committed without an answer.
    still_owned = {row[0] for row in await connection.rows(_OWNED, values)}
    return set(webhook_ids) - still_owned


async def remind_all(connection: DedicatedConnection, *, owner: UUID) -> None:
    """Make every queue of `owner` due, so that `take` returns it."""
    await connection.rows(_REMIND_ALL, {"owner": owner})


async def remind(connection: DedicatedConnection) -> tuple[int, int]:
    """Make queues due that have due deliveries but are not due.

    Returns:
        How many without an owner, and how many of which the owner leaves a delivery overdue.
    """
    found = [row[0] for row in await connection.rows(_WITH_PENDING, {})]
    free = owned = 0
    for start in range(0, len(found), BATCH):
        rows = await connection.rows(
            _REMIND, {"webhook_id": Uuids(found[start : start + BATCH]), "overdue": OVERDUE}
        )
        owned += sum(is_owned for _, is_owned in rows)
        free += sum(not is_owned for _, is_owned in rows)
    return free, owned
