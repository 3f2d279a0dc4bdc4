"""Sends one delivery again."""

import structlog
from sqlalchemy import func, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.deliveries import queries
from gateway.deliveries.errors import DeliveryExhausted, EventExpired
from schemas.api.deliveries import DeliveryView
from schemas.ids import DeliveryId, TenantId
from schemas.lifecycle import DeliveryStatus
from schemas.policy.retry_schedule import ATTEMPTS_MAX
from schemas.tables.deliveries import Delivery, make_queue_due
from schemas.tables.events import EventRecord

log = structlog.stdlib.get_logger(__name__)


async def resend(
    session: AsyncSession, *, tenant_id: TenantId, delivery_id: DeliveryId
) -> DeliveryView:
    """Make a delivery pending and due now.

    A delivery that is due stays as it is.

    Attempts go on counting. The delivery does not hold up the later events of an ordered endpoint:
    these may have been delivered already.

    Raises:
        DeliveryNotFound: the tenant has no such delivery.
        WebhookNotFound, WebhookDisabled: nothing is delivered to its endpoint.
        DeliveryExhausted: it has `ATTEMPTS_MAX` attempts.
        EventExpired: the event is no longer stored.
    """
    delivery = await queries.delivery_of(session, tenant_id=tenant_id, delivery_id=delivery_id)
    if delivery.attempts_made >= ATTEMPTS_MAX:
        raise DeliveryExhausted(delivery_id, attempts_max=ATTEMPTS_MAX)
    await queries.lock_live_endpoint(session, tenant_id=tenant_id, webhook_id=delivery.webhook_id)
    is_stored = select(EventRecord.id).where(EventRecord.id == delivery.event_id)
    if await session.scalar(is_stored) is None:
        raise EventExpired(delivery.event_id)
    is_changed = await session.scalar(
        update(Delivery)
        .where(
            Delivery.id == delivery_id,
            Delivery.attempts_made < ATTEMPTS_MAX,
            or_(Delivery.status != DeliveryStatus.PENDING, Delivery.next_attempt_at > func.now()),
        )
        .values(
            status=DeliveryStatus.PENDING,
            reason=null(),
            ordered=False,
            next_attempt_at=func.now(),
            settled_at=null(),
        )
        .returning(Delivery.id)
    )
    await session.execute(make_queue_due(delivery.webhook_id))
    await session.refresh(delivery)
    if is_changed is not None:
        log.info("delivery.resent", delivery_id=str(delivery_id))
    return (await queries.show_all(session, [delivery]))[0]
