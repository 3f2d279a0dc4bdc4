"""What delivery writes, one short transaction per step; none is open around a POST.

Statements are built once: composing them anew would cost more than running them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Interval, bindparam, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.delivery import fanout, queries
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.queries import DueDelivery
from notifier.delivery.settlement import Settlement
from notifier.delivery.slots import Slots
from schemas.events.envelope import Envelope
from schemas.ids import DeliveryId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Attempt, Delivery
from schemas.tables.inbox import InboxMessage
from schemas.tables.webhooks import Webhook

CONSUMER: Final = "notifier"
"""Whose events are on record in the inbox."""

_TAKE_IN: Final = (
    insert(InboxMessage)
    .values(consumer=CONSUMER, event_id=bindparam("event_id"))
    .on_conflict_do_nothing()
    .returning(InboxMessage.event_id)
)

_ADD_DELIVERY: Final = (
    insert(Delivery)
    .values(
        id=bindparam("delivery_id"),
        tenant_id=bindparam("tenant_id"),
        webhook_id=bindparam("webhook_id"),
        event_id=bindparam("event_id"),
        event_type=bindparam("event_type"),
        body=bindparam("body"),
        status=DeliveryStatus.PENDING,
        attempts_made=0,
        next_attempt_at=func.now(),
    )
    .on_conflict_do_nothing()
)

_DISCARDED: Final[dict[str, Any]] = {
    "status": DeliveryStatus.DISCARDED,
    "next_attempt_at": None,
    "leased_until": None,
    "settled_at": func.now(),
}

_DISCARD: Final = (
    update(Delivery)
    .where(Delivery.id.in_(bindparam("deliveries", expanding=True)))
    .values(_DISCARDED)
)

_LEASE_END: Final = func.now() + bindparam("lease", type_=Interval())

_CLAIM: Final = (
    update(Delivery)
    .where(Delivery.id.in_(bindparam("deliveries", expanding=True)))
    .values(leased_until=_LEASE_END)
    .returning(_LEASE_END.label("leased_until"))
)

_MOVE_ON: Final = (
    update(Delivery)
    .where(
        Delivery.id == bindparam("delivery_id"),
        Delivery.status == DeliveryStatus.PENDING,
        Delivery.leased_until == bindparam("claimed_until"),
    )
    .values(
        status=bindparam("moved_to"),
        attempts_made=bindparam("number"),
        next_attempt_at=bindparam("next_at"),
        leased_until=None,
        settled_at=bindparam("settled"),
    )
    .returning(Delivery.id)
)

_LOG_ATTEMPT: Final = insert(Attempt)

_DISABLE: Final = (
    update(Webhook)
    .where(Webhook.id == bindparam("webhook"), Webhook.disabled_at.is_(None))
    .values(disabled_at=func.now(), disabled_reason=bindparam("reason"))
    .returning(Webhook.id)
)

_DISCARD_WAITING: Final = (
    update(Delivery)
    .where(
        Delivery.webhook_id == bindparam("webhook"),
        Delivery.status == DeliveryStatus.PENDING,
        # What is being attempted is settled by its own answer.
        queries.IS_UNCLAIMED,
    )
    .values(_DISCARDED)
)


@dataclass(frozen=True)
class Recorded:
    """The event was new; this many endpoints want it."""

    deliveries: int


@dataclass(frozen=True)
class RecordedBefore:
    """The event had been delivered by the broker already; nothing changed."""


async def record_event(
    connection: AsyncConnection, envelope: Envelope, *, body: bytes
) -> Recorded | RecordedBefore:
    """Write a delivery for each endpoint that wants the event, once per event.

    Args:
        connection: in a transaction; commit it before acknowledging the message.
        envelope: the event.
        body: the bytes it came in, which are what will be signed and sent.
    """
    taken_in = await connection.execute(_TAKE_IN, {"event_id": envelope.id})
    if taken_in.first() is None:
        return RecordedBefore()
    upload_id = envelope.data.upload_id
    subscriptions = fanout.matching(
        await queries.subscriptions(connection, tenant_id=envelope.tenantid, upload_id=upload_id),
        event_type=envelope.type,
        upload_id=upload_id,
    )
    if subscriptions:
        await connection.execute(
            _ADD_DELIVERY,
            [
                {
                    "delivery_id": DeliveryId(uuid4()),
                    "tenant_id": envelope.tenantid,
                    "webhook_id": subscription.webhook_id,
                    "event_id": envelope.id,
                    "event_type": envelope.type,
                    "body": body,
                }
                for subscription in subscriptions
            ],
        )
    return Recorded(deliveries=len(subscriptions))


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A delivery that is ours to attempt until the lease is over.

    Attributes:
        leased_until: also the mark by which the claim is known: another
            process that takes the delivery over writes another time.
    """

    delivery: DueDelivery
    leased_until: datetime


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What one look at the due deliveries gave.

    Attributes:
        more: it stopped at its limit; there may be others to claim at once.
    """

    claims: Sequence[Claim]
    discarded: int
    more: bool


async def claim_due(connection: AsyncConnection, *, slots: Slots, lease: timedelta) -> Claims:
    """Claim due deliveries for the free slots: first attempts, then retries.

    Deliveries to endpoints that are gone by now are discarded instead.

    Args:
        connection: in a transaction; attempt nothing before it is committed.
        slots: a draft; a slot is taken in it for every claim.
        lease: how long this process may take before another one tries.
    """
    claimed: list[DueDelivery] = []
    discarded: list[DeliveryId] = []
    more = False
    for due in (queries.due_first_attempts, queries.due_retries):
        limit = slots.free
        if not limit:
            break
        found = await due(connection, limit=limit, closed=slots.closed)
        more = more or len(found) == limit
        discarded += [delivery.delivery_id for delivery in found if not delivery.endpoint_is_live]
        claimed += [
            delivery
            for delivery in found
            if delivery.endpoint_is_live and slots.take(delivery.receiver)
        ]
    if discarded:
        await connection.execute(_DISCARD, {"deliveries": discarded})
    claims: list[Claim] = []
    if claimed:
        marks = await connection.scalars(
            _CLAIM,
            {"deliveries": [delivery.delivery_id for delivery in claimed], "lease": lease},
        )
        # Within a transaction now() stands still, so one time marks all of them.
        mark = marks.all()[0]
        claims = [Claim(delivery=delivery, leased_until=mark) for delivery in claimed]
    return Claims(claims=claims, discarded=len(discarded), more=more)


async def record_attempt(
    connection: AsyncConnection,
    claim: Claim,
    result: AttemptResult,
    *,
    settlement: Settlement,
) -> bool:
    """Write an attempt to the log and move its delivery on, if the claim still holds.

    Returns:
        False where the lease ran out and another process has, or had, the
        delivery: then its record counts and this attempt leaves none.
    """
    delivery = claim.delivery
    number = delivery.attempts_made + 1
    pending = settlement.status is DeliveryStatus.PENDING
    moved = await connection.execute(
        _MOVE_ON,
        {
            "delivery_id": delivery.delivery_id,
            "claimed_until": claim.leased_until,
            "moved_to": settlement.status,
            "number": number,
            "next_at": settlement.next_attempt_at,
            "settled": None if pending else result.started_at + result.duration,
        },
    )
    if moved.first() is None:
        return False
    await connection.execute(
        _LOG_ATTEMPT,
        {
            "delivery_id": delivery.delivery_id,
            "number": number,
            "started_at": result.started_at,
            "duration": result.duration,
            "outcome": result.outcome,
            "status_code": result.status_code,
            "error": result.error,
            "response_excerpt": result.response_excerpt,
            "remote_address": result.remote_address,
        },
    )
    if settlement.endpoint_is_gone:
        await _disable(connection, delivery.webhook_id, reason="the endpoint answered 410 Gone")
    return True


async def _disable(connection: AsyncConnection, webhook_id: WebhookId, *, reason: str) -> None:
    disabled = await connection.execute(_DISABLE, {"webhook": webhook_id, "reason": reason})
    if disabled.first() is None:
        # Whoever disabled it discards; two doing so at once could lock each other out.
        return
    await connection.execute(_DISCARD_WAITING, {"webhook": webhook_id})
