"""Reads the events of a tenant. A statement is a whole transaction, so that no wait holds one."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

from gateway.db import Statements
from gateway.events.errors import CursorExpired, EventNotFound
from gateway.feed_tail import FeedEvent, FeedPosition, Page
from schemas.events.endpoints import Ping
from schemas.ids import EventId, TenantId
from schemas.queues import NOTIFY
from schemas.topology import SUBSCRIPTIONS

SCANNED_MAX: Final = 400
"""Events that one statement reads; more than the largest default page."""

TAIL_EVENTS: Final = 100
"""Events of one page for all streams of a tenant."""

FEED_TYPES: Final = SUBSCRIPTIONS[NOTIFY]
"""What webhooks carry; an event that only starts a step is not for clients."""

PAGE: Final[LiteralString] = """
    SELECT position, id, type, CASE WHEN type = ANY(%(types)s) THEN body END AS body
    FROM events
    WHERE tenant_id = %(tenant_id)s AND position > %(after)s
    ORDER BY position
    LIMIT %(limit)s
"""

NEWEST: Final[LiteralString] = """
    SELECT position FROM events
    WHERE tenant_id = %(tenant_id)s AND position IS NOT NULL
    ORDER BY position DESC
    LIMIT 1
"""

# Events are deleted by the week. A week without a partition that is older than the newest one was deleted.
RETENTION: Final[LiteralString] = """
    WITH kept AS (
        SELECT to_timestamp(substr(inhrelid::regclass::text, 8) || '+00', 'YYYYMMDDTZH') AS monday
        FROM pg_inherits
        WHERE inhparent = 'events'::regclass AND inhrelid <> 'events_default'::regclass
    )
    SELECT now() AS now, EXISTS (
        SELECT FROM generate_series(
            date_trunc('week', greatest(%(up_to)s, now() - interval '1 year'), 'UTC'),
            least(now(), (SELECT max(monday) FROM kept)),
            interval '7 days'
        ) AS week
        WHERE week NOT IN (SELECT monday FROM kept)
    ) AS is_expired
"""

BODY: Final[LiteralString] = """
    SELECT body FROM events
    WHERE id = %(event_id)s AND tenant_id = %(tenant_id)s AND type = ANY(%(types)s)
"""


async def page_after(
    statements: Statements,
    after: FeedPosition | None,
    *,
    tenant_id: TenantId,
    types: Collection[str],
    limit: int,
    scanned_max: int | None = None,
) -> Page:
    """Return the events after a place in the feed; None is its beginning.

    Reads at most `SCANNED_MAX` events, or `scanned_max`, so a page may have fewer events than its
    limit, and even none, although more follow.

    Raises:
        CursorExpired: events after the place were deleted.
    """
    count = max(SCANNED_MAX if scanned_max is None else scanned_max, limit)
    retention = await _retention(statements, after)
    rows = await statements.rows(
        PAGE,
        {
            "tenant_id": tenant_id,
            "after": 0 if after is None else after.position,
            "types": list(types),
            "limit": count + 1,
        },
    )
    scanned = rows[:count]
    found = [row for row in scanned if row.body is not None]
    if len(found) > limit:
        shown, last, has_more = found[:limit], found[limit - 1], True
    else:
        shown, last, has_more = found, (scanned[-1] if scanned else None), len(rows) > count
    return Page(
        events=[
            FeedEvent(
                place=FeedPosition(position=row.position, up_to=_time_of(row)),
                type=row.type,
                body=bytes(row.body),
            )
            for row in shown
        ],
        end=FeedPosition(
            position=last.position if last else (after.position if after else 0),
            up_to=_time_of(last) if last and has_more else retention.now,
        ),
        has_more=has_more,
    )


async def tail_after(statements: Statements, tenant_id: TenantId, after: FeedPosition) -> Page:
    """Return the events of every type after a place, for all streams of the tenant."""
    return await page_after(
        statements, after, tenant_id=tenant_id, types=FEED_TYPES, limit=TAIL_EVENTS
    )


async def check_kept(statements: Statements, after: FeedPosition) -> None:
    """Check that every event after a place is stored.

    Raises:
        CursorExpired: events after the place were deleted.
    """
    await _retention(statements, after)


async def newest(statements: Statements, tenant_id: TenantId) -> FeedPosition:
    """Return the end of the feed."""
    row = await statements.first_row(NEWEST, {"tenant_id": tenant_id})
    retention = await _retention(statements, None)
    return FeedPosition(position=0 if row is None else row.position, up_to=retention.now)


async def body_of(statements: Statements, *, tenant_id: TenantId, event_id: EventId) -> bytes:
    """Return an event as webhooks carry it.

    Raises:
        EventNotFound: there is no such event for clients of the tenant.
    """
    types = [*FEED_TYPES, Ping.TYPE]
    row = await statements.first_row(
        BODY, {"event_id": event_id, "tenant_id": tenant_id, "types": types}
    )
    if row is None:
        raise EventNotFound(event_id)
    return bytes(row.body)


async def _retention(statements: Statements, after: FeedPosition | None) -> Any:  # noqa: ANN401  # the row of `RETENTION`
    """Return the database's time.

    Raises:
        CursorExpired: events after the place were deleted.
    """
    # The beginning of the feed is the oldest event that is kept, so nothing is missed.
    up_to = None if after is None else after.up_to
    row = await statements.first_row(RETENTION, {"up_to": up_to})
    if row is None:
        raise RuntimeError("the time was not read")
    if after is not None and row.is_expired:
        raise CursorExpired
    return row


def _time_of(row: Any) -> datetime:  # noqa: ANN401  # of `PAGE`
    """Return the time of an event, with which its id begins."""
    return datetime.fromtimestamp((row.id.int >> 80) / 1000, tz=UTC)
