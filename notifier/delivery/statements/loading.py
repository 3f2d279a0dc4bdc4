"""Reads the due deliveries of own queues, and endpoints."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from notifier.delivery.settlement import REFUSALS
from notifier.delivery.statements.arrays import Texts, Times, Uuids
from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.statements.intake import SUBSCRIBES
from notifier.delivery.work import (
    DueDelivery,
    Endpoint,
    EndpointState,
    Loaded,
    StoredSecret,
)
from schemas import queues, topology
from schemas.ids import DeliveryId, EventId, WebhookId
from schemas.tables.inbox import NOTIFIER

log = structlog.stdlib.get_logger(__name__)

ORDER_WAIT: Final = timedelta(seconds=60)
"""How long an ordered delivery waits for an earlier event of its upload that has not arrived: the
relay and the broker may change the order. A lost event must not stop the later ones for ever."""

ORDER_RECHECK: Final = timedelta(seconds=1)
"""After this time an ordered delivery is looked at again, if the delivery before it is due now."""

_REFUSALS: Final = ", ".join(str(int(status)) for status in sorted(REFUSALS))

# First: a delivery that becomes due between the two statements is in both answers, and in none
# if they were the other way round.
_QUEUES: Final = """
SELECT delivery_queues.webhook_id, webhooks.version, least(
    (SELECT next_attempt_at FROM deliveries
     WHERE webhook_id = webhooks.id AND status = 'pending' AND (attempts_made > 0) IS FALSE AND next_attempt_at > now()
     ORDER BY next_attempt_at LIMIT 1),
    (SELECT next_attempt_at FROM deliveries
     WHERE webhook_id = webhooks.id AND status = 'pending' AND (attempts_made > 0) IS TRUE AND next_attempt_at > now()
     ORDER BY next_attempt_at LIMIT 1)
)
FROM delivery_queues JOIN webhooks ON webhooks.id = delivery_queues.webhook_id
WHERE delivery_queues.webhook_id = ANY(%(webhook_id)b) AND delivery_queues.owner = %(owner)b
"""

_CANDIDATES: Final = """
    SELECT id, webhook_id, tenant_id, event_id, event_type, upload_id, attempts_made, ordered, next_attempt_at
    FROM deliveries
    WHERE webhook_id = webhooks.id AND status = 'pending' AND (attempts_made > 0) IS {is_retry}
      AND next_attempt_at <= now() AND id NOT IN (SELECT unnest(%(known)b))
    ORDER BY next_attempt_at, id LIMIT %(limit)b
"""

# The version is not known before the row of the endpoint is read; a paused endpoint has no due deliveries.
_DUE: Final = f"""
SELECT due.id, due.webhook_id, due.tenant_id, due.event_id, due.event_type, due.upload_id, due.attempts_made,
       due.ordered, due.next_attempt_at,
       CASE WHEN due.attempts_made > 0 THEN (
           SELECT coalesce(bool_and(coalesce(status_code, 0) IN ({_REFUSALS})), true) FROM attempts WHERE delivery_id = due.id
       ) ELSE true END,
       CASE WHEN due.ordered THEN (
           SELECT before.next_attempt_at FROM deliveries AS before
           WHERE before.webhook_id = due.webhook_id AND before.upload_id = due.upload_id
             AND before.event_id < due.event_id AND before.status = 'pending' AND before.ordered
           ORDER BY before.event_id LIMIT 1
       ) END,
       CASE WHEN due.ordered THEN (
           SELECT max(CASE WHEN inbox.event_id IS NULL THEN before.created_at ELSE now() END)
           FROM events AS before
           LEFT JOIN inbox ON inbox.consumer = '{NOTIFIER}' AND inbox.event_id = before.id
           WHERE before.job_id = (SELECT job_id FROM events WHERE id = due.event_id) AND before.id < due.event_id
             AND before.id > waybill_first_uuid7(now() - interval '1 hour')
             AND before.tenant_id = due.tenant_id AND before.upload_id = due.upload_id
             AND before.type = ANY(%(types)b) AND {SUBSCRIBES.replace("{type}", "before.type")}
             AND (inbox.event_id IS NULL OR EXISTS (
                 SELECT FROM fan_outs
                 WHERE fan_outs.tenant_id = before.tenant_id AND fan_outs.event_id = before.id
                   AND fan_outs.reached < due.webhook_id
             ))
       ) END,
       now()
FROM unnest(%(webhook_id)b) AS queue (webhook_id)
JOIN webhooks ON webhooks.id = queue.webhook_id AND webhooks.paused_at IS NULL
CROSS JOIN LATERAL (
    ({_CANDIDATES.format(is_retry="FALSE")}) UNION ALL ({_CANDIDATES.format(is_retry="TRUE")}) LIMIT %(limit)b
) AS due
"""  # noqa: S608  # constants of this module

# The row may have changed since it was read: the delivery before it was settled, and made it due.
_WAIT: Final = """
UPDATE deliveries SET next_attempt_at = waiting.until
FROM unnest(%(id)b, %(seen)b, %(until)b) AS waiting (id, seen, until)
WHERE deliveries.id = waiting.id AND deliveries.status = 'pending' AND deliveries.next_attempt_at = waiting.seen
"""

# A message of another publisher could name an event of another tenant, whose bytes must not be sent.
_EVENTS: Final = "SELECT id, tenant_id, body, traceparent FROM events WHERE id = ANY(%(id)b)"

_ENDPOINTS: Final = """
SELECT webhooks.id, tenant_id, version, deleted_at IS NOT NULL, disabled_at IS NOT NULL, paused_at IS NOT NULL, url,
       headers, timeout, concurrency, rate, ordered, secrets.secret, secrets.expires_at
FROM webhooks LEFT JOIN LATERAL (
    SELECT array_agg(secret ORDER BY created_at DESC, id) AS secret,
           array_agg(expires_at ORDER BY created_at DESC, id) AS expires_at
    FROM webhook_secrets WHERE webhook_id = webhooks.id AND (expires_at IS NULL OR expires_at > now())
) AS secrets ON true
WHERE webhooks.id = ANY(%(webhook_id)b)
"""


async def load(
    connection: DedicatedConnection,
    known: Mapping[WebhookId, Collection[DeliveryId]],
    *,
    owner: UUID,
    limit: int,
) -> Loaded:
    """Read due deliveries; see `Store.load`."""
    states = await connection.rows(_QUEUES, {"webhook_id": Uuids(sorted(known)), "owner": owner})
    versions = {webhook_id: version for webhook_id, version, _ in states}
    rows = await connection.rows(
        _DUE,
        {
            "webhook_id": Uuids(versions),
            "known": Uuids(each for webhook_id in versions for each in known[webhook_id]),
            # One more shows that there are more.
            "limit": limit + 1,
            "types": Texts(topology.SUBSCRIPTIONS[queues.NOTIFY]),
        },
    )
    found: dict[WebhookId, int] = dict.fromkeys(versions, 0)
    next_due = {webhook_id: at for webhook_id, _, at in states if at is not None}
    chosen = []
    waiting: list[tuple[DeliveryId, datetime, datetime]] = []
    for row in rows:
        delivery_id, webhook_id = row[0], row[1]
        found[webhook_id] += 1
        if found[webhook_id] > limit:
            continue
        next_attempt_at, _, before_at, missing_since, now = row[8:]
        until = _wait_until(before_at, missing_since, now=now)
        if until is None:
            if missing_since is not None:
                log.warning("delivery.order_given_up", delivery_id=str(delivery_id))
            chosen.append(row)
        else:
            waiting.append((delivery_id, next_attempt_at, until))
            next_due[webhook_id] = min(next_due.get(webhook_id, until), until)
    if waiting:
        waiting.sort()
        ids, seen, until_times = zip(*waiting, strict=True)
        await connection.rows(
            _WAIT, {"id": Uuids(ids), "seen": Times(seen), "until": Times(until_times)}
        )
    bodies = await _bodies(connection, {row[3] for row in chosen})
    due = []
    for row in chosen:
        delivery_id, webhook_id, tenant_id, event_id, event_type, upload_id, made, ordered = row[:8]
        event_tenant, body, traceparent = bodies.get(event_id, (None, None, None))
        if event_tenant != tenant_id:
            body = traceparent = None
        due.append(
            DueDelivery(
                delivery_id=delivery_id,
                webhook_id=webhook_id,
                tenant_id=tenant_id,
                event_id=event_id,
                event_type=event_type,
                upload_id=upload_id,
                version=versions[webhook_id],
                attempts_made=made,
                ordered=ordered,
                only_refused=row[9],
                body=body,
                traceparent=traceparent,
            )
        )
    return Loaded(
        due=due,
        more={webhook_id for webhook_id, count in found.items() if count > limit},
        next_due=next_due,
        lost=known.keys() - versions.keys(),
    )


def _wait_until(
    before_at: datetime | None, missing_since: datetime | None, *, now: datetime
) -> datetime | None:
    """Return until when an ordered delivery waits; None if it is the next one of its upload.

    Args:
        before_at: when the first pending delivery of the upload before it is due.
        missing_since: the time of the last event before it that has not arrived; now, if an event
            before it has arrived and its deliveries are still being added.
        now: the time of the database.
    """
    recheck = now + ORDER_RECHECK
    if before_at is not None:
        return max(before_at, recheck)
    if missing_since is not None and missing_since > now - ORDER_WAIT:
        return recheck
    return None


async def _bodies(
    connection: DedicatedConnection, event_ids: Collection[EventId]
) -> dict[EventId, tuple[UUID, bytes, str | None]]:
    if not event_ids:
        return {}
    rows = await connection.rows(_EVENTS, {"id": Uuids(sorted(event_ids))})
    return {event_id: (tenant_id, body, trace) for event_id, tenant_id, body, trace in rows}


async def endpoints(
    connection: DedicatedConnection, webhook_ids: Collection[WebhookId]
) -> Mapping[WebhookId, Endpoint]:
    """Read endpoints; see `Store.endpoints`."""
    rows = await connection.rows(_ENDPOINTS, {"webhook_id": Uuids(sorted(webhook_ids))})
    found = {}
    for (
        webhook_id,
        tenant_id,
        version,
        is_deleted,
        is_disabled,
        is_paused,
        url,
        headers,
        timeout,
        concurrency,
        rate,
        ordered,
        secrets,
        expiries,
    ) in rows:
        found[webhook_id] = Endpoint(
            webhook_id=webhook_id,
            tenant_id=tenant_id,
            version=version,
            state=_state(is_deleted=is_deleted, is_disabled=is_disabled, is_paused=is_paused),
            url=url,
            headers=headers,
            timeout=timeout,
            concurrency=concurrency,
            rate=rate,
            ordered=ordered,
            secrets=tuple(
                StoredSecret(secret=secret, expires_at=expires_at)
                for secret, expires_at in zip(secrets or (), expiries or (), strict=True)
            ),
        )
    return found


def _state(*, is_deleted: bool, is_disabled: bool, is_paused: bool) -> EndpointState:
    if is_deleted:
        return EndpointState.DELETED
    if is_disabled:
        return EndpointState.DISABLED
    return EndpointState.PAUSED if is_paused else EndpointState.ACTIVE
