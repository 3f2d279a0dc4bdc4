"""The ledger of webhooks: what the events of a time have, against what the log of deliveries has.

Every event that reached the notifier has a row in `inbox` with the number of its deliveries, and each
delivery is delivered, pending, exhausted or discarded. The sums are equal, whatever is killed
meanwhile.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from schemas import queues, topology
from schemas.ids import TenantId
from schemas.tables.inbox import NOTIFIER

EVENTS_MAX: Final = 50_000
"""Most events that one ledger reads: these and their deliveries take about a second."""

# The ids alone come first: the planner then reads them from the index of the tenant. `OFFSET 0` keeps
# the planner from a join that reads the rows of all tenants.
LEDGER: Final[TextClause] = text(
    f"""
    WITH walked AS MATERIALIZED (
        SELECT id FROM events
        WHERE tenant_id = :tenant_id AND id >= waybill_first_uuid7(:since) AND id < waybill_first_uuid7(:until)
        ORDER BY id LIMIT :limit
    ),
    -- Null if all events were read. The events of the last millisecond belong to the next ledger, which begins there.
    cut AS (
        SELECT (left(replace(id::text, '-', ''), 12) || repeat('0', 20))::uuid AS first
        FROM walked ORDER BY id OFFSET :limit - 1
    ),
    event AS MATERIALIZED (
        SELECT walked.id, applied.deliveries,
               (left(replace(walked.id::text, '-', ''), 16) || repeat('0', 16))::uuid AS first_delivery,
               (left(replace(walked.id::text, '-', ''), 16) || repeat('f', 16))::uuid AS last_delivery
        FROM walked
        CROSS JOIN LATERAL (SELECT type FROM events WHERE id = walked.id OFFSET 0) AS stored
        LEFT JOIN LATERAL (
            SELECT deliveries FROM inbox WHERE consumer = '{NOTIFIER}' AND event_id = walked.id OFFSET 0
        ) AS applied ON true
        WHERE ((SELECT first FROM cut) IS NULL OR walked.id < (SELECT first FROM cut))
          AND (stored.type = ANY(:types) OR applied.deliveries IS NOT NULL)
    ),
    -- The deliveries of an event are a range of ids, so one probe of an index finds them.
    delivery AS (
        SELECT of_event.status, count(*) AS number
        FROM event CROSS JOIN LATERAL (
            SELECT status FROM deliveries
            WHERE id >= event.first_delivery AND id <= event.last_delivery AND event_id = event.id OFFSET 0
        ) AS of_event
        GROUP BY of_event.status
    )
    SELECT (SELECT count(*) FROM event) AS events,
           (SELECT count(*) FROM event
            WHERE deliveries IS NULL OR id IN (SELECT event_id FROM fan_outs WHERE tenant_id = :tenant_id)) AS waiting,
           (SELECT coalesce(sum(deliveries), 0) FROM event) AS published,
           (SELECT first FROM cut) AS cut,
           coalesce((SELECT number FROM delivery WHERE status = 'delivered'), 0) AS delivered,
           coalesce((SELECT number FROM delivery WHERE status = 'pending'), 0) AS pending,
           coalesce((SELECT number FROM delivery WHERE status = 'exhausted'), 0) AS exhausted,
           coalesce((SELECT number FROM delivery WHERE status = 'discarded'), 0) AS discarded
    """  # noqa: S608  # constants of this module
)
"""Returns one row; see `values_of` and `ledger_of`."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The ledger of a tenant.

    Attributes:
        until: the end of the range; earlier than asked for if there are `EVENTS_MAX` events or more.
        is_complete: whether the range ends where it was asked for.
        events: events that endpoints can receive.
        waiting: those that have not reached the notifier, or do not have all their deliveries yet.
        published: deliveries that the others have.
    """

    since: datetime
    until: datetime
    is_complete: bool
    events: int
    waiting: int
    published: int
    delivered: int
    pending: int
    exhausted: int
    discarded: int

    @property
    def difference(self) -> int:
        """What is missing in the log; 0."""
        return self.published - (self.delivered + self.pending + self.exhausted + self.discarded)


def values_of(*, tenant_id: TenantId, since: datetime, until: datetime) -> dict[str, Any]:
    """Return the parameters of `LEDGER`.

    Args:
        tenant_id: the owner of the events.
        since: the start; not older than `INBOX_RETENTION`, nor than the deliveries that are kept.
        until: the end of the range.
    """
    return {
        "tenant_id": tenant_id,
        "since": since,
        "until": until,
        "types": list(topology.SUBSCRIPTIONS[queues.NOTIFY]),
        "limit": EVENTS_MAX,
    }


def ledger_of(row: Row[Any], *, since: datetime, until: datetime) -> Ledger:
    """Return what the row of `LEDGER` says."""
    return Ledger(
        since=since,
        until=until if row.cut is None else _time_of(row.cut),
        is_complete=row.cut is None,
        events=row.events,
        waiting=row.waiting,
        published=int(row.published),
        delivered=row.delivered,
        pending=row.pending,
        exhausted=row.exhausted,
        discarded=row.discarded,
    )


def _time_of(event_id: UUID) -> datetime:
    return datetime.fromtimestamp((event_id.int >> 80) / 1000, tz=UTC)
