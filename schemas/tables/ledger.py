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
"""Most events of one ledger: reading these and their deliveries takes about a second."""

LEDGER: Final[TextClause] = text(
    f"""
    WITH event AS MATERIALIZED (
        SELECT events.id, inbox.deliveries,
               (left(replace(events.id::text, '-', ''), 16) || repeat('0', 16))::uuid AS first_delivery,
               (left(replace(events.id::text, '-', ''), 16) || repeat('f', 16))::uuid AS last_delivery
        FROM events LEFT JOIN inbox ON inbox.consumer = '{NOTIFIER}' AND inbox.event_id = events.id
        WHERE events.tenant_id = :tenant_id
          AND events.id >= waybill_first_uuid7(:since) AND events.id < waybill_first_uuid7(:until)
          AND (events.type = ANY(:types) OR inbox.event_id IS NOT NULL)
        ORDER BY events.id LIMIT :limit
    ),
    -- The deliveries of an event are a range of ids, so one probe of an index finds them.
    delivery AS (
        SELECT deliveries.status, count(*) AS number
        FROM event JOIN deliveries
            ON deliveries.id >= event.first_delivery AND deliveries.id <= event.last_delivery
            AND deliveries.event_id = event.id
        GROUP BY deliveries.status
    )
    SELECT (SELECT count(*) FROM event) AS events,
           (SELECT count(*) FROM event WHERE deliveries IS NULL) AS waiting,
           (SELECT coalesce(sum(deliveries), 0) FROM event) AS published,
           (SELECT id FROM event ORDER BY id DESC LIMIT 1) AS last,
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
        until: the end of the range; earlier than asked for if there are more than `EVENTS_MAX` events.
        is_complete: whether the range ends where it was asked for.
        events: events that endpoints can receive.
        waiting: those that have not reached the notifier.
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
    is_complete = row.events < EVENTS_MAX
    return Ledger(
        since=since,
        until=until if is_complete else _time_of(row.last),
        is_complete=is_complete,
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
