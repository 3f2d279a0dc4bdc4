"""What delivery reads: who wants an event, and what is due."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.delivery.fanout import Subscription
from notifier.delivery.slots import Receiver
from schemas.ids import DeliveryId, EventId, TenantId, UploadId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Delivery
from schemas.tables.webhooks import Webhook

IS_LIVE: Final = and_(Webhook.deleted_at.is_(None), Webhook.disabled_at.is_(None))

IS_UNCLAIMED: Final = or_(Delivery.leased_until.is_(None), Delivery.leased_until < func.now())

# A `slots.Receiver`: tenant, scheme, host and port.
RECEIVER: Final = func.concat(
    Webhook.tenant_id, " ", func.lower(func.substring(Webhook.url, "^[^/]*//[^/?#]*"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DueDelivery:
    """A delivery whose time has come, with all that an attempt needs.

    Attributes:
        endpoint_is_live: False once its webhook was deleted or disabled.
    """

    delivery_id: DeliveryId
    webhook_id: WebhookId
    event_id: EventId
    body: bytes
    attempts_made: int
    receiver: Receiver
    url: str = field(repr=False)
    secret: str = field(repr=False)
    endpoint_is_live: bool


_SUBSCRIPTIONS: Final = select(Webhook.id, Webhook.event_types, Webhook.upload_id).where(
    Webhook.tenant_id == bindparam("tenant_id"),
    or_(Webhook.upload_id.is_(None), Webhook.upload_id == bindparam("upload_id")),
    IS_LIVE,
)


async def subscriptions(
    connection: AsyncConnection, *, tenant_id: TenantId, upload_id: UploadId
) -> list[Subscription]:
    """Return the tenant's live endpoints that may want to hear of this upload."""
    rows = await connection.execute(
        _SUBSCRIPTIONS, {"tenant_id": tenant_id, "upload_id": upload_id}
    )
    return [
        Subscription(
            webhook_id=row.id, event_types=frozenset(row.event_types), upload_id=row.upload_id
        )
        for row in rows
    ]


def _due(condition: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    # In the order of the index alone, so that the database stops reading at
    # the limit; sorting by anything else would read everything that is due.
    return (
        select(
            Delivery.id,
            Delivery.webhook_id,
            Delivery.event_id,
            Delivery.body,
            Delivery.attempts_made,
            RECEIVER.label("receiver"),
            Webhook.url,
            Webhook.secret,
            IS_LIVE.label("is_live"),
        )
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .where(
            Delivery.status == DeliveryStatus.PENDING,
            Delivery.next_attempt_at <= func.now(),
            IS_UNCLAIMED,
            condition,
            RECEIVER.not_in(bindparam("closed", expanding=True)),
        )
        .order_by(Delivery.next_attempt_at)
        .limit(bindparam("limit"))
        .with_for_update(of=Delivery, skip_locked=True)
    )


_DUE_FIRST_ATTEMPTS: Final = _due(Delivery.attempts_made == 0)
_DUE_RETRIES: Final = _due(Delivery.attempts_made > 0)


async def due_first_attempts(
    connection: AsyncConnection, *, limit: int, closed: Collection[Receiver]
) -> Sequence[DueDelivery]:
    """Return deliveries never attempted, longest due first, locked.

    Args:
        connection: rows locked by another one's transaction are passed over.
        limit: most rows returned.
        closed: receivers to pass over.
    """
    return await _read(connection, _DUE_FIRST_ATTEMPTS, limit=limit, closed=closed)


async def due_retries(
    connection: AsyncConnection, *, limit: int, closed: Collection[Receiver]
) -> Sequence[DueDelivery]:
    """Return deliveries attempted before; otherwise like `due_first_attempts`."""
    return await _read(connection, _DUE_RETRIES, limit=limit, closed=closed)


async def _read(
    connection: AsyncConnection,
    statement: Select[*tuple[Any, ...]],
    *,
    limit: int,
    closed: Collection[Receiver],
) -> Sequence[DueDelivery]:
    rows = await connection.execute(statement, {"limit": limit, "closed": list(closed)})
    return [
        DueDelivery(
            delivery_id=row.id,
            webhook_id=row.webhook_id,
            event_id=row.event_id,
            body=row.body,
            attempts_made=row.attempts_made,
            receiver=Receiver(row.receiver),
            url=row.url,
            secret=row.secret,
            endpoint_is_live=row.is_live,
        )
        for row in rows
    ]
