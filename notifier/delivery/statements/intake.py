"""Turns a group of events into deliveries, in one statement."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import structlog

from notifier.delivery.statements.arrays import Blobs, Texts, Uuids
from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.work import DueDelivery, QueueState, ReceivedEvent, Recorded
from schemas.events.envelope import REFERENCES
from schemas.ids import DeliveryId, EventId, WebhookId
from schemas.tables.inbox import NOTIFIER

log = structlog.stdlib.get_logger(__name__)

ROWS_MAX: Final = 500
"""Rows of the answer that are read at once: an event to thousands of endpoints must not stop the loop."""

DUE_MAX: Final = 3_000
"""Deliveries of a group that are attempted without a read; more have no room in memory."""

FEW_ENDPOINTS: Final = 20
"""Endpoints of a tenant whose events get all their deliveries at once."""

DELIVERIES_MAX: Final = 1_000
"""Most deliveries that a group adds for another tenant: they take a tenth of a second, and the
events of all tenants wait. The events of a tenant with more get their deliveries by `fan_out`."""

RACES_MAX: Final = 3
"""Repetitions of a group of which another process records an event at the same time."""

SUBSCRIBES: Final[LiteralString] = """
    (cardinality(webhooks.event_types) = 0 OR EXISTS (
        SELECT FROM unnest(webhooks.event_types) AS subscribed (type)
        WHERE subscribed.type = {type} OR subscribed.type = '*'
           OR right(subscribed.type, 2) = '.*' AND starts_with({type}, left(subscribed.type, -1))
    ))
"""
"""Whether an endpoint subscribes to a type of events, or to a prefix such as ``document.*``."""

# A scalar: the planner could join a NOT EXISTS with all jobs.
IS_WANTED: Final[LiteralString] = """
    (SELECT batches.events FROM jobs JOIN batches ON batches.id = jobs.batch_id WHERE jobs.id = message.job_id)
    IS DISTINCT FROM 'batch'
"""
"""Whether the event is not that of a document whose batch has no events for each document."""

# A message of another publisher could name an upload of another tenant.
MATCHES: Final = (
    "webhooks.tenant_id = message.tenant_id AND webhooks.deleted_at IS NULL"
    # The news of a disabled endpoint goes to the other endpoints of its tenant.
    " AND webhooks.id IS DISTINCT FROM message.endpoint_id AND "
    + SUBSCRIBES.replace("{type}", "message.type")
    + """ AND (webhooks.metadata_filter IS NULL OR EXISTS (
        SELECT FROM uploads
        WHERE uploads.id = message.upload_id AND uploads.tenant_id = message.tenant_id
          AND uploads.metadata @> webhooks.metadata_filter
    )) AND """
    + IS_WANTED
)

_SUBSCRIPTION: Final = (
    "SELECT message.id AS event_id, message.tenant_id, message.type, message.upload_id, webhooks.id AS webhook_id,"
    " webhooks.ordered, webhooks.disabled_at, webhooks.paused_at FROM message JOIN webhooks ON "
)

# No join of two sets that grow with the group: the plan is made for ten messages, and a nested loop
# over a full group would take a hundred times as long.
_RECORD: Final = f"""
WITH message AS MATERIALIZED (
    SELECT * FROM unnest(
        %(id)b, %(tenant_id)b, %(type)b, %(subject)b, %(body)b, %(traceparent)b,
        {", ".join(f"%({name})b" for name in REFERENCES)}
    ) AS message (id, tenant_id, type, subject, body, traceparent, {", ".join(REFERENCES)})
    WHERE NOT EXISTS (SELECT FROM inbox WHERE consumer = '{NOTIFIER}' AND event_id = message.id)
      -- Nothing of a deleted tenant comes back.
      AND NOT EXISTS (SELECT FROM tenant_deletions WHERE tenant_deletions.tenant_id = message.tenant_id)
),
-- Also a tenant whose earlier events wait for deliveries: the events of an upload keep their order.
crowd AS MATERIALIZED (
    SELECT tenant_id FROM (SELECT tenant_id, count(*) AS events FROM message GROUP BY tenant_id) AS tenant
    WHERE EXISTS (SELECT FROM fan_outs WHERE fan_outs.tenant_id = tenant.tenant_id)
       OR EXISTS (
           SELECT FROM webhooks
           WHERE webhooks.tenant_id = tenant.tenant_id AND webhooks.upload_id IS NULL AND webhooks.deleted_at IS NULL
           OFFSET greatest({FEW_ENDPOINTS}, {DELIVERIES_MAX} / tenant.events)
       )
),
subscription AS MATERIALIZED (
    {_SUBSCRIPTION} webhooks.upload_id IS NULL AND message.tenant_id NOT IN (SELECT tenant_id FROM crowd) AND {MATCHES}
    UNION ALL
    {_SUBSCRIPTION} webhooks.upload_id = message.upload_id AND {MATCHES}
),
recorded AS (
    INSERT INTO inbox (consumer, event_id, deliveries)
    SELECT '{NOTIFIER}', id, sum(deliveries)
    FROM (SELECT id, 0 AS deliveries FROM message UNION ALL SELECT event_id, 1 FROM subscription) AS counted
    GROUP BY id ORDER BY id
),
fanned_out AS (
    INSERT INTO fan_outs (tenant_id, event_id, reached)
    SELECT tenant_id, id, '{UUID(int=0)}' FROM message WHERE tenant_id IN (SELECT tenant_id FROM crowd)
),
-- The event has a row, unless another publisher sent it, or it is replayed after its retention.
stored AS (
    INSERT INTO events (id, tenant_id, type, subject, body, traceparent, {", ".join(REFERENCES)})
    SELECT id, tenant_id, type, subject, body, traceparent, {", ".join(REFERENCES)} FROM message
    ON CONFLICT DO NOTHING
),
-- Locked: if the endpoint is activated meanwhile, either its deliveries are offered here, or the process that
-- looks for its deliveries afterwards finds them.
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
    RETURNING id, webhook_id, event_id, ordered, status
),
-- In one order in every process: two that lock the same queues must not wait for each other. The row that is
-- locked is the newest, whatever the statement saw before.
queue AS MATERIALIZED (
    SELECT delivery_queues.*, webhooks.version
    FROM delivery_queues JOIN webhooks ON webhooks.id = delivery_queues.webhook_id
    WHERE delivery_queues.webhook_id IN (
        SELECT webhook_id FROM added WHERE status = 'pending' EXCEPT SELECT id FROM paused
    )
    ORDER BY delivery_queues.webhook_id FOR NO KEY UPDATE OF delivery_queues
),
living AS MATERIALIZED (SELECT id FROM deliverers WHERE id = %(owner)b AND ended_at IS NULL),
-- The owner of a queue does not see these deliveries before the commit, so it is notified always.
changed AS (
    UPDATE delivery_queues SET
        owner = coalesce(delivery_queues.owner, (SELECT id FROM living)),
        due_at = CASE WHEN delivery_queues.owner IS NOT NULL OR NOT EXISTS (SELECT FROM living) THEN now() END
    FROM queue
    WHERE delivery_queues.webhook_id = queue.webhook_id
      AND (delivery_queues.owner IS DISTINCT FROM %(owner)b OR NOT EXISTS (SELECT FROM living))
)
SELECT event_id, id, webhook_id, ordered, NULL::uuid, NULL::uuid, NULL::timestamptz, NULL::bigint,
       NULL::timestamptz, NULL::bigint, NULL::timestamptz, NULL::bigint
FROM added WHERE status = 'pending'
UNION ALL
SELECT NULL, NULL, webhook_id, EXISTS (SELECT FROM living), tenant_id, owner, due_at, version,
       blocked_until, throttles, failing_since, failures
FROM queue
UNION ALL
SELECT NULL, NULL, NULL, true, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM crowd
UNION ALL
SELECT repeated.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM (SELECT unnest(%(id)b) AS id EXCEPT SELECT id FROM message) AS repeated
"""  # noqa: S608  # constants of this module

# The first recording may have been committed without an answer: its deliveries are not in memory then.
_UNREAD_OF_REPEATED: Final = """
SELECT DISTINCT delivery_queues.webhook_id
FROM unnest(%(id)b) AS repeated (id)
JOIN deliveries ON deliveries.event_id = repeated.id AND deliveries.status = 'pending'
    AND deliveries.id >= (left(replace(repeated.id::text, '-', ''), 16) || repeat('0', 16))::uuid
    AND deliveries.id <= (left(replace(repeated.id::text, '-', ''), 16) || repeat('f', 16))::uuid
JOIN delivery_queues ON delivery_queues.webhook_id = deliveries.webhook_id AND delivery_queues.owner = %(owner)b
"""


async def record_events(
    connection: DedicatedConnection, events: Sequence[ReceivedEvent], *, owner: UUID
) -> Recorded:
    """Add the deliveries of a group of events; see `Store.record_events`."""
    by_id = {event.envelope.id: event for event in events}
    values = _values([by_id[event_id] for event_id in sorted(by_id)]) | {"owner": owner}
    for _ in range(RACES_MAX - 1):
        try:
            rows = await connection.rows(_RECORD, values)
            break
        except psycopg.errors.UniqueViolation:
            # Another process has recorded an event since the statement began; it is repeated now.
            log.info("consumer.recorded_elsewhere", events=len(by_id))
    else:
        rows = await connection.rows(_RECORD, values)

    group = _Group(owner)
    for first in range(0, len(rows), ROWS_MAX):
        for row in rows[first : first + ROWS_MAX]:
            group.add(row)
        await asyncio.sleep(0)
    due, unread = group.deliveries_of_own_queues(by_id)
    if group.repeated:
        found = await connection.rows(
            _UNREAD_OF_REPEATED, {"id": Uuids(group.repeated), "owner": owner}
        )
        unread.update(webhook_id for (webhook_id,) in found)
    return Recorded(
        repeated=len(events) - len(by_id) + len(group.repeated),
        taken=group.taken,
        due=due,
        unread=unread,
        has_fan_outs=group.has_fan_outs,
    )


class _Group:
    """The answer to `_RECORD`: rows of pending deliveries, their queues, repeated events, crowds."""

    def __init__(self, owner: UUID) -> None:
        self._owner = owner
        self._added: list[tuple[EventId, DeliveryId, WebhookId, bool]] = []
        self._versions: dict[WebhookId, int] = {}  # of the endpoints whose queues are owned
        self._unread: set[WebhookId] = set()
        self.taken: list[QueueState] = []
        self.repeated: list[EventId] = []
        self.has_fan_outs = False

    def add(self, row: tuple[Any, ...]) -> None:
        event_id, delivery_id, webhook_id, flag = row[:4]
        if delivery_id is not None:
            self._added.append((event_id, delivery_id, webhook_id, flag))
        elif event_id is not None:
            self.repeated.append(event_id)
        elif webhook_id is None:
            self.has_fan_outs = True
        elif flag and row[5] in (None, self._owner):
            self._add_own_queue(row)

    def _add_own_queue(self, row: tuple[Any, ...]) -> None:
        webhook_id, _, tenant_id, owner_before, due_at, version, *state = row[2:]
        self._versions[webhook_id] = version
        if owner_before is not None:
            return
        blocked_until, throttles, failing_since, failures = state
        self.taken.append(
            QueueState(
                webhook_id=webhook_id,
                tenant_id=tenant_id,
                blocked_until=blocked_until,
                throttles=throttles,
                failing_since=failing_since,
                failures=failures,
            )
        )
        if due_at is not None:
            self._unread.add(webhook_id)

    def deliveries_of_own_queues(
        self, events: Mapping[EventId, ReceivedEvent]
    ) -> tuple[list[DueDelivery], set[WebhookId]]:
        """Return the deliveries that can be attempted at once, and the queues that have others."""
        due: list[DueDelivery] = []
        unread = set(self._unread)
        # Ids of events follow their times, so that the events of an upload are offered in order.
        for event_id, delivery_id, webhook_id, ordered in sorted(self._added):
            version = self._versions.get(webhook_id)
            if version is None:
                continue
            if ordered or len(due) >= DUE_MAX:
                unread.add(webhook_id)
                continue
            event = events[event_id]
            envelope = event.envelope
            due.append(
                DueDelivery(
                    delivery_id=delivery_id,
                    webhook_id=webhook_id,
                    tenant_id=envelope.tenantid,
                    event_id=event_id,
                    event_type=envelope.type,
                    upload_id=envelope.upload_id,
                    version=version,
                    attempts_made=0,
                    ordered=False,
                    body=event.body,
                    traceparent=event.traceparent,
                )
            )
        return due, unread


def _values(events: Sequence[ReceivedEvent]) -> dict[str, object]:
    envelopes = [event.envelope for event in events]
    references = [envelope.references for envelope in envelopes]
    return {
        "id": Uuids(envelope.id for envelope in envelopes),
        "tenant_id": Uuids(envelope.tenantid for envelope in envelopes),
        "type": Texts(envelope.type for envelope in envelopes),
        "subject": Texts(envelope.subject for envelope in envelopes),
        "body": Blobs(event.body for event in events),
        "traceparent": Texts(event.traceparent for event in events),
        **{name: Uuids(each[name] for each in references) for name in REFERENCES},
    }
