"""Writes of the delivery: one short transaction per step, none during a POST.

Statements are built once: building one takes longer than running it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Interval, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.delivery import fanout, queries
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.queries import DueDelivery
from notifier.delivery.settlement import Settlement
from notifier.delivery.slots import Slots
from schemas.events.envelope import REFERENCES, Envelope
from schemas.ids import DeliveryId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Attempt, Delivery
from schemas.tables.events import EventRecord
from schemas.tables.inbox import NOTIFIER, InboxMessage
from schemas.tables.webhooks import Webhook

_EVENT_COLUMNS: Final = ("tenant_id", "type", "subject", "body", *REFERENCES)

_RECORDED: Final = (
    insert(InboxMessage)
    .values(consumer=NOTIFIER, event_id=bindparam("event_id"))
    .on_conflict_do_nothing()
    .returning(InboxMessage.event_id)
    .cte("recorded")
)

# The event has a row, unless another publisher sent it, or it is replayed after its retention.
_STORED: Final = (
    insert(EventRecord)
    .from_select(
        ["id", *_EVENT_COLUMNS],
        select(
            _RECORDED.c.event_id,
            *(bindparam(name, type_=EventRecord.__table__.c[name].type) for name in _EVENT_COLUMNS),
        ),
    )
    .on_conflict_do_nothing()
    .cte("stored")
)

_RECORD_EVENT: Final = select(_RECORDED.c.event_id).add_cte(_STORED)

_ADD_DELIVERY: Final = (
    insert(Delivery)
    .values(
        id=bindparam("delivery_id"),
        tenant_id=bindparam("tenant_id"),
        webhook_id=bindparam("webhook_id"),
        event_id=bindparam("event_id"),
        event_type=bindparam("event_type"),
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
    .returning(
        Delivery.id,
        _LEASE_END.label("leased_until"),
        # Reads the event of each claimed delivery by its id, from one partition. A message of
        # another publisher could name an event of another tenant, whose bytes must not be sent.
        select(EventRecord.body)
        .where(EventRecord.id == Delivery.event_id, EventRecord.tenant_id == Delivery.tenant_id)
        .scalar_subquery()
        .label("body"),
    )
)

_SETTLE: Final = (
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

_DISCARD_PENDING: Final = (
    update(Delivery)
    .where(
        Delivery.webhook_id == bindparam("webhook"),
        Delivery.status == DeliveryStatus.PENDING,
        # A delivery in progress is settled by its own response.
        queries.IS_UNCLAIMED,
    )
    .values(_DISCARDED)
)


async def record_event(
    connection: AsyncConnection, envelope: Envelope, *, body: bytes
) -> int | None:
    """Write a delivery for each endpoint that subscribes to the event, once per event.

    Stores the event first if the table of events does not have it.

    Args:
        connection: in a transaction; commit it before acknowledging the message.
        envelope: the event.
        body: the bytes of the message.

    Returns:
        The number of deliveries; None for an event that is already recorded.
    """
    recorded = await connection.execute(
        _RECORD_EVENT,
        {
            "event_id": envelope.id,
            "tenant_id": envelope.tenantid,
            "type": envelope.type,
            "subject": envelope.subject,
            "body": body,
            **envelope.references,
        },
    )
    if recorded.first() is None:
        return None
    upload_id = envelope.upload_id
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
                }
                for subscription in subscriptions
            ],
        )
    return len(subscriptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedDelivery:
    """A delivery that this process may attempt until the lease expires.

    Attributes:
        leased_until: identifies the claim too: another process that claims the
            delivery writes another time.
        body: the bytes of the event; None if the table of events does not have it.
    """

    delivery: DueDelivery
    leased_until: datetime
    body: bytes | None


@dataclass(frozen=True, kw_only=True)
class ClaimResult:
    """The result of one claim.

    Attributes:
        more: the claim reached its limit; more deliveries may be due.
    """

    claimed: Sequence[ClaimedDelivery]
    discarded: int
    more: bool


async def claim_due(connection: AsyncConnection, *, slots: Slots, lease: timedelta) -> ClaimResult:
    """Claim due deliveries for the free slots: first attempts, then retries.

    Discards deliveries to endpoints that were deleted or disabled.

    Args:
        connection: in a transaction; attempt nothing before it is committed.
        slots: a copy of the slots, in which every claim takes a slot.
        lease: time until another process may claim the delivery.
    """
    accepted: list[DueDelivery] = []
    discarded: list[DeliveryId] = []
    more = False
    for statement in (queries.DUE_FIRST_ATTEMPTS, queries.DUE_RETRIES):
        limit = slots.free
        if not limit:
            break
        found = await queries.due(connection, statement, limit=limit, closed=slots.closed)
        more = more or len(found) == limit
        discarded += [delivery.delivery_id for delivery in found if not delivery.endpoint_is_live]
        accepted += [
            delivery
            for delivery in found
            if delivery.endpoint_is_live and slots.take(delivery.receiver)
        ]
    if discarded:
        await connection.execute(_DISCARD, {"deliveries": discarded})
    claimed: list[ClaimedDelivery] = []
    if accepted:
        rows = await connection.execute(
            _CLAIM,
            {"deliveries": [delivery.delivery_id for delivery in accepted], "lease": lease},
        )
        claims = {row.id: row for row in rows}
        claimed = [
            ClaimedDelivery(
                delivery=delivery,
                leased_until=claims[delivery.delivery_id].leased_until,
                body=claims[delivery.delivery_id].body,
            )
            for delivery in accepted
        ]
    return ClaimResult(claimed=claimed, discarded=len(discarded), more=more)


async def record_attempt(
    connection: AsyncConnection,
    claim: ClaimedDelivery,
    result: AttemptResult,
    *,
    settlement: Settlement,
) -> bool:
    """Log an attempt and settle or reschedule its delivery, if the claim still holds.

    Returns:
        False if the lease expired and another process claimed the delivery; then
        nothing is recorded.
    """
    delivery = claim.delivery
    number = delivery.attempts_made + 1
    pending = settlement.status is DeliveryStatus.PENDING
    moved = await connection.execute(
        _SETTLE,
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
        # Only the transaction that disables the endpoint discards its deliveries: two such
        # transactions at once could deadlock.
        return
    await connection.execute(_DISCARD_PENDING, {"webhook": webhook_id})
