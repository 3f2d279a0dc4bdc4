"""Walks the deliveries of an endpoint, or the events of its tenant, from the oldest on.

A batch reads a bounded number of rows in the order of an index, whatever it selects of them, and
continues after the last row of the batch before. Its changes and its checkpoint are one transaction:
a worker that is killed repeats nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString, Self
from uuid import UUID

import msgspec
from sqlalchemy import Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP
from sqlalchemy.orm import Session

from pipeline.context import database_time
from pipeline.replay import pacing
from pipeline.replay.errors import EndpointDeleted, EndpointOff
from schemas.events.endpoints import ReplayRequested
from schemas.ids import DeliveryId, EventId, TenantId, first_uuid7
from schemas.lifecycle import FAILED_DELIVERIES
from schemas.policy import event_filters
from schemas.policy.retry_schedule import ATTEMPTS_MAX
from schemas.queues import NOTIFY
from schemas.tables.deliveries import IS_FAILED, make_queue_due
from schemas.tables.events import NO_FEED
from schemas.tables.inbox import NOTIFIER
from schemas.topology import SUBSCRIPTIONS

BATCH: Final = 200
"""Rows of a transaction; each is locked until its end."""

# Locked against a change that disables or deletes the endpoint: its deliveries are then discarded
# after this transaction.
_ENDPOINT: Final = text(
    """
    SELECT deleted_at, disabled_at, upload_id, event_types, metadata_filter, ordered
    FROM webhooks WHERE id = :webhook_id FOR SHARE
    """
)

_DELIVERIES: Final[LiteralString] = """
    SELECT id, event_id, event_type, status,
           EXISTS (SELECT FROM events WHERE events.id = event_id AND position IS DISTINCT FROM :no_feed) AS is_stored
    FROM deliveries
    WHERE webhook_id = :webhook_id AND id > :after AND id < :before {condition}
    ORDER BY id LIMIT :limit
"""
_OF_ALL: Final = text(_DELIVERIES.replace("{condition}", ""))
_OF_FAILED: Final = text(_DELIVERIES.replace("{condition}", f"AND {IS_FAILED}"))

# An event that the notifier has not applied yet gets its deliveries there. An event that tests one
# endpoint, and the news of the endpoint itself, are not for it. The ids alone come first: the planner
# then reads them from the index of the tenant. For a subquery instead of a join it would read the whole
# inbox.
_EVENTS: Final = text(
    """
    WITH walked AS MATERIALIZED (
        SELECT id FROM events WHERE tenant_id = :tenant_id AND id > :after AND id < :before ORDER BY id LIMIT :limit
    )
    SELECT events.id, events.type, deliveries.id AS delivery_id, deliveries.status,
           position IS DISTINCT FROM :no_feed AND endpoint_id IS DISTINCT FROM :webhook_id
           AND inbox.event_id IS NOT NULL AS is_applied,
           CAST(:upload_id AS uuid) IS NULL OR coalesce(events.upload_id = CAST(:upload_id AS uuid), false) AS is_of_upload,
           CAST(:metadata_filter AS jsonb) IS NULL
           OR coalesce(uploads.metadata @> CAST(:metadata_filter AS jsonb), false) AS has_metadata,
           (SELECT batches.events FROM jobs JOIN batches ON batches.id = jobs.batch_id WHERE jobs.id = events.job_id)
               IS NOT DISTINCT FROM 'batch' AS is_quiet
    FROM walked
    JOIN events ON events.id = walked.id
    LEFT JOIN deliveries ON deliveries.id = waybill_delivery_id(events.id, :webhook_id)
    LEFT JOIN inbox ON inbox.consumer = :consumer AND inbox.event_id = events.id
    LEFT JOIN uploads ON uploads.id = events.upload_id AND uploads.tenant_id = :tenant_id
    ORDER BY events.id
    """
).bindparams(bindparam("metadata_filter", type_=JSONB(none_as_null=True)))

_ARRAYS: Final = (
    bindparam("ids", type_=ARRAY(Uuid())),
    bindparam("times", type_=ARRAY(TIMESTAMP(timezone=True))),
)

# The list of ids again, for the planner: it then looks each row up by its key.
_REPEAT: Final = text(
    """
    UPDATE deliveries
    SET status = 'pending', reason = NULL, settled_at = NULL, next_attempt_at = chosen.due_at,
        ordered = :ordered AND upload_id IS NOT NULL
    FROM unnest(:ids, :times) AS chosen (id, due_at)
    WHERE deliveries.id = chosen.id AND deliveries.id = ANY(:ids) AND deliveries.status = ANY(:statuses)
      AND deliveries.attempts_made < :attempts_max
    RETURNING deliveries.id
    """
).bindparams(*_ARRAYS, bindparam("statuses", type_=ARRAY(Text())))

_ADD: Final = text(
    """
    WITH added AS (
        INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, upload_id, status, ordered, attempts_made,
                                next_attempt_at)
        SELECT waybill_delivery_id(events.id, :webhook_id), tenant_id, :webhook_id, events.id, type, upload_id, 'pending',
               :ordered AND upload_id IS NOT NULL, 0, chosen.due_at
        FROM unnest(:ids, :times) AS chosen (id, due_at) JOIN events ON events.id = chosen.id
        WHERE events.id = ANY(:ids)
        ON CONFLICT DO NOTHING
        RETURNING event_id
    )
    UPDATE inbox SET deliveries = deliveries + 1
    FROM added WHERE inbox.consumer = :consumer AND inbox.event_id = added.event_id
    RETURNING inbox.event_id
    """
).bindparams(*_ARRAYS)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the next batch begins.

    Attributes:
        after: the id of the last row that was read; it begins with the time of its event.
        free_at: the first time that no delivery of the replay has.
        repeated: deliveries that were made due again.
        added: deliveries of events that had none.
        is_over: no row follows.
    """

    after: UUID
    free_at: datetime
    repeated: int = 0
    added: int = 0
    is_over: bool = False

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None, *, order: ReplayRequested) -> Self:
        """Return the stored checkpoint, or that of a new replay."""
        if stored is not None:
            return msgspec.convert(stored, cls)
        before = UUID(int=max(0, first_uuid7(order.since).int - 1))
        return cls(after=before, free_at=order.until)

    def encoded(self) -> dict[str, Any]:
        encoded: dict[str, Any] = msgspec.to_builtins(self)
        return encoded

    def seconds_since(self, start: datetime) -> int:
        """Return how much of the time range was read."""
        return max(0, (self.after.int >> 80) // 1000 - int(start.timestamp()))


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """What a batch selects of the rows that it read, in their order.

    Attributes:
        chosen: ids of deliveries to repeat, and of events that get a delivery.
        after: the last row that was read.
        is_over: no row follows.
    """

    chosen: Sequence[DeliveryId | EventId]
    after: UUID
    is_over: bool

    @classmethod
    def of(
        cls, rows: Sequence[Any], chosen: Sequence[DeliveryId | EventId], *, after: UUID
    ) -> Self:
        return cls(chosen=chosen, after=rows[-1].id if rows else after, is_over=len(rows) < BATCH)


def walk(
    session: Session,
    checkpoint: Checkpoint,
    order: ReplayRequested,
    *,
    tenant_id: TenantId,
    rate: float,
) -> Checkpoint:
    """Make the deliveries of one batch due; return where the next batch begins.

    Raises:
        EndpointDeleted, EndpointOff: nothing is delivered to the endpoint any more.
    """
    endpoint = session.execute(_ENDPOINT, {"webhook_id": order.endpoint_id}).one_or_none()
    if endpoint is None or endpoint.deleted_at is not None:
        raise EndpointDeleted(order.endpoint_id)
    if endpoint.disabled_at is not None:
        raise EndpointOff(order.endpoint_id)
    values = {
        "webhook_id": order.endpoint_id,
        "after": checkpoint.after,
        "before": first_uuid7(order.until),
        "no_feed": NO_FEED,
        "limit": BATCH,
    }
    if order.include_undelivered:
        values |= {
            "tenant_id": tenant_id,
            "consumer": NOTIFIER,
            "upload_id": endpoint.upload_id,
            "metadata_filter": endpoint.metadata_filter,
        }
        rows = session.execute(_EVENTS, values).all()
        chosen = _chosen_events(rows, order, subscribed=endpoint.event_types)
    else:
        only_failed = FAILED_DELIVERIES.issuperset(order.statuses)
        rows = session.execute(_OF_FAILED if only_failed else _OF_ALL, values).all()
        chosen = _chosen_deliveries(rows, order)
    selection = _Selection.of(rows, chosen, after=checkpoint.after)
    due = pacing.times(
        len(chosen), free_at=checkpoint.free_at, now=database_time(session), rate=rate
    )
    changed = {
        "webhook_id": order.endpoint_id,
        "ids": list(chosen),
        "times": list(due),
        "ordered": endpoint.ordered,
    }
    repeated = added = 0
    if chosen:
        repeated = len(
            session.execute(
                _REPEAT,
                {**changed, "statuses": list(order.statuses), "attempts_max": ATTEMPTS_MAX},
            ).all()
        )
        if order.include_undelivered:
            added = len(session.execute(_ADD, {**changed, "consumer": NOTIFIER}).all())
        session.execute(make_queue_due(order.endpoint_id))
    return msgspec.structs.replace(
        checkpoint,
        after=selection.after,
        is_over=selection.is_over,
        free_at=pacing.free_after(due, free_at=checkpoint.free_at, rate=rate),
        repeated=checkpoint.repeated + repeated,
        added=checkpoint.added + added,
    )


def _chosen_deliveries(rows: Sequence[Any], order: ReplayRequested) -> list[DeliveryId | EventId]:
    return [
        DeliveryId(row.id)
        for row in rows
        if row.is_stored
        and row.status in order.statuses
        and event_filters.selects(order.event_types, row.event_type)
    ]


def _chosen_events(
    rows: Sequence[Any], order: ReplayRequested, *, subscribed: Sequence[str]
) -> list[DeliveryId | EventId]:
    """Return the deliveries to repeat, and the events that the endpoint would receive now."""
    chosen: list[DeliveryId | EventId] = []
    for row in rows:
        if not (row.is_applied and event_filters.selects(order.event_types, row.type)):
            continue
        if row.delivery_id is not None:
            if row.status in order.statuses:
                chosen.append(DeliveryId(row.delivery_id))
        elif (
            row.type in SUBSCRIPTIONS[NOTIFY]
            and row.is_of_upload
            and row.has_metadata
            and not row.is_quiet
            and event_filters.selects(subscribed, row.type)
        ):
            chosen.append(EventId(row.id))
    return chosen
