"""Publishes facts again that the notifier never received.

The broker loses them if the queue `notify` is purged or deleted, or if its data is lost. The
notifier records every event that it receives in its inbox, so the events that are missing there
are lost, unless they still wait in the queue.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Interval, RowMapping, bindparam, text, update

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas import queues, topology
from schemas.ids import EventId
from schemas.tables.inbox import NOTIFIER, CheckedEvents
from schemas.tables.outbox import OutboxMessage

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 1000

TIMES_MAX: Final = 3
"""How often a fact is published again; an event that the notifier rejects would come back for ever."""

# The notifier refuses the events of a tenant that is being deleted. The inbox forgets events after `INBOX_RETENTION`. An event that may be forgotten is not looked at: its
# webhooks would be sent twice.
_UNCHECKED: Final = text(
    """
    SELECT events.id, events.type,
           EXISTS (SELECT FROM inbox WHERE consumer = :consumer AND inbox.event_id = events.id)
               OR EXISTS (SELECT FROM tenant_deletions WHERE tenant_deletions.tenant_id = events.tenant_id) AS is_applied,
           (SELECT count(*) FROM outbox WHERE outbox.event_id = events.id AND queue = :queue) AS times,
           EXISTS (SELECT FROM outbox WHERE outbox.event_id = events.id AND published_at IS NULL) AS is_pending
    FROM events
    WHERE id > (
            SELECT greatest(up_to, waybill_first_uuid7(now() - :remembered)) FROM checked_events WHERE consumer = :consumer
        )
      AND id < waybill_first_uuid7(now() - :overdue)
      AND type = ANY(:types)
    ORDER BY id
    LIMIT :limit
    """
).bindparams(bindparam("overdue", type_=Interval()), bindparam("remembered", type_=Interval()))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What follows from a batch of events.

    Attributes:
        lost: events to publish again.
        given_up: events that were published again often enough; an operator has to look.
        checked: the last event before the first one that has to be looked at again.
    """

    lost: Sequence[EventId]
    given_up: Sequence[EventId]
    checked: EventId | None


def judge(rows: Sequence[RowMapping]) -> Verdict:
    """Decide about events in the order of their ids."""
    open_events = [row for row in rows if not row["is_applied"]]
    given_up = [row["id"] for row in open_events if row["times"] >= TIMES_MAX]
    again = [row["id"] for row in open_events if row["times"] < TIMES_MAX]
    lost = [row["id"] for row in open_events if row["id"] in again and not row["is_pending"]]
    before = [row["id"] for row in rows if not again or row["id"] < again[0]]
    return Verdict(lost=lost, given_up=given_up, checked=before[-1] if before else None)


def sweep(context: Context, budget: Budget, *, is_queue_empty: Callable[[], bool]) -> int:
    """Publish lost facts again; return how many.

    Args:
        context: the database.
        budget: the time for this.
        is_queue_empty: whether no message waits in `notify`. While messages wait there, a fact that
            is missing in the inbox is probably one of them.
    """
    published = 0
    while not budget.is_spent:
        with context.transaction() as session:
            rows = (
                session.execute(
                    _UNCHECKED,
                    {
                        "consumer": NOTIFIER,
                        "queue": queues.NOTIFY,
                        "overdue": context.settings.step_overdue,
                        "remembered": context.settings.inbox_retention,
                        "types": list(topology.SUBSCRIPTIONS[queues.NOTIFY]),
                        "limit": BATCH,
                    },
                )
                .mappings()
                .all()
            )
            verdict = judge(rows)
            if (verdict.lost or verdict.given_up) and not is_queue_empty():
                return published
            session.add_all(
                OutboxMessage(event_id=event_id, queue=queues.NOTIFY) for event_id in verdict.lost
            )
            if verdict.checked is not None:
                session.execute(
                    update(CheckedEvents)
                    .where(CheckedEvents.consumer == NOTIFIER)
                    .values(up_to=verdict.checked)
                )
        for event_id in verdict.lost:
            log.warning("watchdog.fact_published_again", event_id=str(event_id))
        for event_id in verdict.given_up:
            log.error("watchdog.fact_given_up", event_id=str(event_id), times=TIMES_MAX)
        published += len(verdict.lost)
        if len(rows) < BATCH or verdict.lost:
            break
    return published
