"""Sends a ping, or the example of an event, to one endpoint.

The event is neither published nor in the feed: only this endpoint receives it. It counts as applied,
so that the ledger is even and the watchdog does not publish it.
"""

from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import SessionStatements, transaction_time
from gateway.deliveries import queries
from gateway.http import idempotency
from gateway.http.problems import InvalidRequest
from gateway.settings import API_PREFIX, EVENT_SOURCE
from schemas.api.deliveries import EndpointTest, EndpointTestLinks
from schemas.events.endpoints import Ping
from schemas.events.envelope import REFERENCES, Event
from schemas.events.examples import example_of
from schemas.ids import EventId, TenantId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.queues import NOTIFY
from schemas.tables.deliveries import Delivery, delivery_id_of, make_queue_due
from schemas.tables.events import NO_FEED, EventRecord, record_of
from schemas.tables.inbox import NOTIFIER, InboxMessage
from schemas.topology import SUBSCRIPTIONS

log = structlog.stdlib.get_logger(__name__)

TEST_SOURCE: Final = "/waybill/test"
"""The source of an example: a receiver can tell it from a fact."""


async def ping(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    webhook_id: WebhookId,
    keyed: idempotency.KeyedRequest | None,
    traceparent: str | None,
) -> EndpointTest:
    """Send a ping to an endpoint, or return the ping of an earlier request with the key.

    Raises:
        WebhookNotFound, WebhookDisabled: nothing is delivered to the endpoint.
        IdempotencyKeyReused: the key is bound to another request.
    """
    return await _send(
        session,
        Ping(endpoint_id=webhook_id),
        source=EVENT_SOURCE,
        tenant_id=tenant_id,
        webhook_id=webhook_id,
        keyed=keyed,
        traceparent=traceparent,
    )


async def send_example(
    session: AsyncSession,
    event_type: str,
    *,
    tenant_id: TenantId,
    webhook_id: WebhookId,
    keyed: idempotency.KeyedRequest | None,
    traceparent: str | None,
) -> EndpointTest:
    """Send the example of an event to an endpoint, whatever types the endpoint receives.

    Raises:
        InvalidRequest: no endpoint receives this type of events.
        WebhookNotFound, WebhookDisabled, IdempotencyKeyReused: as `ping`.
    """
    types = (*SUBSCRIPTIONS[NOTIFY], Ping.TYPE)
    if event_type not in types:
        raise InvalidRequest(f"{event_type!r} is none of {', '.join(types)}", field="event_type")
    return await _send(
        session,
        example_of(event_type),
        source=TEST_SOURCE,
        tenant_id=tenant_id,
        webhook_id=webhook_id,
        keyed=keyed,
        traceparent=traceparent,
    )


async def _send(
    session: AsyncSession,
    event: Event,
    *,
    source: str,
    tenant_id: TenantId,
    webhook_id: WebhookId,
    keyed: idempotency.KeyedRequest | None,
    traceparent: str | None,
) -> EndpointTest:
    now = await transaction_time(session)
    record = record_of(event, tenant_id=tenant_id, source=source, now=now, traceparent=traceparent)
    # An example refers to nothing that exists; with the endpoint, tests can be found.
    record |= dict.fromkeys(REFERENCES) | {"endpoint_id": webhook_id, "position": NO_FEED}
    event_id: EventId = record["id"]
    bound_to = EventId(
        await idempotency.first_use(
            SessionStatements(session), keyed, tenant_id=tenant_id, resource_id=event_id
        )
    )
    if bound_to == event_id:
        await queries.lock_live_endpoint(session, tenant_id=tenant_id, webhook_id=webhook_id)
        session.add(EventRecord(**record))
        session.add(InboxMessage(consumer=NOTIFIER, event_id=event_id, deliveries=1))
        session.add(
            Delivery(
                id=delivery_id_of(event_id, webhook_id),
                tenant_id=tenant_id,
                webhook_id=webhook_id,
                event_id=event_id,
                event_type=event.TYPE,
                status=DeliveryStatus.PENDING,
                next_attempt_at=now,
            )
        )
        await session.flush()
        await session.execute(make_queue_due(webhook_id))
        log.info("webhook.tested", webhook_id=str(webhook_id), event_type=event.TYPE)
    delivery_id = delivery_id_of(bound_to, webhook_id)
    return EndpointTest(
        event_id=bound_to,
        delivery_id=delivery_id,
        links=EndpointTestLinks(
            delivery=f"{API_PREFIX}/deliveries/{delivery_id}",
            event=f"{API_PREFIX}/events/{bound_to}",
        ),
    )
