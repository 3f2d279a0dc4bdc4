"""How an endpoint does, from its last attempts: the cost does not grow with its log or its backlog."""

from typing import Any, Final, LiteralString

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import SessionStatements
from schemas.api.webhooks import BACKLOG_MAX, LastError, WebhookHealth
from schemas.ids import WebhookId

ATTEMPTS: Final = 100
"""The last attempts that the figures are about."""

DELIVERED: Final = "delivered"

# The last deliveries, and those that wait for a retry: behind a long backlog of an endpoint that
# hangs, no attempt of the last deliveries is made yet.
HEALTH: Final[LiteralString] = """
    WITH recent AS (
        (SELECT id FROM deliveries WHERE webhook_id = %(webhook_id)s ORDER BY id DESC LIMIT %(attempts)s)
        UNION
        (SELECT id FROM deliveries
         WHERE webhook_id = %(webhook_id)s AND status = 'pending' AND (attempts_made > 0)
         ORDER BY next_attempt_at DESC LIMIT %(attempts)s)
    ), last AS (
        SELECT attempt.* FROM recent CROSS JOIN LATERAL (
            SELECT started_at, duration_us, outcome, status_code, error FROM attempts
            WHERE delivery_id = recent.id ORDER BY number DESC LIMIT %(attempts)s
        ) AS attempt
        ORDER BY started_at DESC LIMIT %(attempts)s
    ), error AS (
        SELECT * FROM last WHERE outcome <> %(delivered)s ORDER BY started_at DESC LIMIT 1
    )
    SELECT count(last.started_at) AS attempts,
           count(*) FILTER (WHERE last.outcome = %(delivered)s) AS delivered,
           percentile_disc(0.95) WITHIN GROUP (ORDER BY last.duration_us)
               FILTER (WHERE last.status_code IS NOT NULL) AS p95_us,
           max(last.started_at) FILTER (WHERE last.outcome = %(delivered)s) AS last_delivered_at,
           (SELECT count(*) FROM (
               SELECT FROM deliveries WHERE webhook_id = %(webhook_id)s AND status = 'pending' LIMIT %(backlog)s
           ) AS pending) AS backlog,
           queue.failing_since, queue.blocked_until,
           error.started_at AS error_at, error.outcome AS error_outcome, error.status_code AS error_status,
           error.error AS error_text
    FROM delivery_queues AS queue LEFT JOIN last ON true LEFT JOIN error ON true
    WHERE queue.webhook_id = %(webhook_id)s
    GROUP BY queue.webhook_id, error.started_at, error.outcome, error.status_code, error.error
"""


async def health_of(session: AsyncSession, webhook_id: WebhookId) -> WebhookHealth:
    """Return the health of an endpoint, whose row exists."""
    [found] = await SessionStatements(session).rows(
        HEALTH,
        {
            "webhook_id": webhook_id,
            "attempts": ATTEMPTS,
            "delivered": DELIVERED,
            "backlog": BACKLOG_MAX,
        },
    )
    return WebhookHealth(
        attempts=found.attempts,
        success_share=found.delivered / found.attempts if found.attempts else None,
        latency_p95_ms=None if found.p95_us is None else found.p95_us / 1000,
        last_error=_last_error(found),
        last_delivered_at=found.last_delivered_at,
        backlog=found.backlog,
        failing_since=found.failing_since,
        blocked_until=found.blocked_until,
    )


def _last_error(found: Any) -> LastError | None:  # noqa: ANN401  # a row of the statement
    if found.error_at is None:
        return None
    return LastError(
        at=found.error_at,
        outcome=found.error_outcome,
        status_code=found.error_status,
        error=found.error_text,
    )
