"""Reads deliveries with their attempts, and the endpoints that they belong to.

The log covers every endpoint that the tenant ever had: also deleted ones, and callbacks of uploads.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Integer, Uuid, any_, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.deliveries import view
from gateway.deliveries.errors import DeliveryNotFound
from gateway.webhooks.errors import WebhookDisabled, WebhookNotFound
from schemas.api.deliveries import DeliveryDetails, DeliveryView
from schemas.ids import DeliveryId, EventId, TenantId, WebhookId
from schemas.tables.deliveries import Attempt, Delivery
from schemas.tables.events import EventRecord
from schemas.tables.webhooks import Webhook

ATTEMPTS_SHOWN: Final = 100
"""Of one delivery; a client may resend one any number of times."""

# Arrays, not a list of parameters: one statement for every number of deliveries. The list of ids again,
# for the planner: it then looks each delivery up, in the partitions of their weeks.
_IDS: Final = bindparam("ids", type_=ARRAY(Uuid()))
_WANTED: Final = (
    func.unnest(_IDS, bindparam("numbers", type_=ARRAY(Integer())))
    .table_valued(column("id", Uuid()), column("number", Integer()))
    .render_derived("wanted")
)
_LAST_ATTEMPTS: Final = (
    select(Attempt)
    .join(_WANTED, (Attempt.delivery_id == _WANTED.c.id) & (Attempt.number == _WANTED.c.number))
    .where(Attempt.delivery_id == any_(_IDS))
)


async def lock_live_endpoint(
    session: AsyncSession, *, tenant_id: TenantId, webhook_id: WebhookId
) -> Webhook:
    """Return an endpoint that is neither deleted nor disabled, and stays so until the transaction ends.

    One such transaction at a time: of two that start a replay, the second finds the job of the first.
    A transaction that disables or deletes the endpoint afterwards then discards the deliveries that
    this one has made due.

    Raises:
        WebhookNotFound: the tenant has no such endpoint, or deleted it.
        WebhookDisabled: it is disabled.
    """
    webhook = await session.scalar(
        select(Webhook)
        .where(Webhook.id == webhook_id, Webhook.tenant_id == tenant_id)
        .with_for_update(key_share=True)
    )
    if webhook is None or webhook.deleted_at is not None:
        raise WebhookNotFound(webhook_id)
    if webhook.disabled_at is not None:
        raise WebhookDisabled(webhook_id)
    return webhook


async def delivery_of(
    session: AsyncSession, *, tenant_id: TenantId, delivery_id: DeliveryId
) -> Delivery:
    """Return a tenant's delivery.

    Raises:
        DeliveryNotFound: the tenant has no such delivery.
    """
    delivery = await session.scalar(
        select(Delivery).where(Delivery.id == delivery_id, Delivery.tenant_id == tenant_id)
    )
    if delivery is None:
        raise DeliveryNotFound(delivery_id)
    return delivery


async def details_of(session: AsyncSession, delivery: Delivery) -> DeliveryDetails:
    """Return a delivery with its attempts and its event."""
    newest = await session.scalars(
        select(Attempt)
        .where(Attempt.delivery_id == delivery.id)
        .order_by(Attempt.number.desc())
        .limit(ATTEMPTS_SHOWN)
    )
    attempts = sorted(newest, key=lambda attempt: attempt.number)
    return view.show_details(
        delivery, attempts, body=await body_of(session, event_id=delivery.event_id)
    )


async def body_of(session: AsyncSession, *, event_id: EventId) -> bytes | None:
    """Return the bytes of an event; None if it is no longer stored."""
    return await session.scalar(select(EventRecord.body).where(EventRecord.id == event_id))


async def show_all(session: AsyncSession, deliveries: Sequence[Delivery]) -> list[DeliveryView]:
    """Return deliveries, each with its last attempt."""
    last = await _last_attempts(session, deliveries)
    return [view.show(delivery, last.get(delivery.id)) for delivery in deliveries]


async def _last_attempts(
    session: AsyncSession, deliveries: Sequence[Delivery]
) -> Mapping[DeliveryId, Attempt]:
    tried = [delivery for delivery in deliveries if delivery.attempts_made]
    if not tried:
        return {}
    found = await session.scalars(
        _LAST_ATTEMPTS,
        {
            "ids": [delivery.id for delivery in tried],
            "numbers": [delivery.attempts_made for delivery in tried],
        },
    )
    return {attempt.delivery_id: attempt for attempt in found}
