"""Reads of the delivery: the subscriptions to an event, and the due deliveries."""

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

# A `slots.Receiver`: tenant, scheme, host and port of the endpoint.
RECEIVER: Final = func.concat(
    Webhook.tenant_id, " ", func.lower(func.substring(Webhook.url, "^[^/]*//[^/?#]*"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DueDelivery:
    """A due delivery with the data that an attempt needs.

    Attributes:
        secret: as it is in the database; see `webhook_secrets`.
        endpoint_is_live: False if its webhook was deleted or disabled.
    """

    delivery_id: DeliveryId
    webhook_id: WebhookId
    event_id: EventId
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
    connection: AsyncConnection, *, tenant_id: TenantId, upload_id: UploadId | None
) -> list[Subscription]:
    """Return the tenant's live endpoints that may subscribe to events of this upload."""
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
    # The order of the index, so that the database stops reading at the limit. Any
    # other order would read every due delivery.
    return (
        select(
            Delivery.id.label("delivery_id"),
            Delivery.webhook_id,
            Delivery.event_id,
            Delivery.attempts_made,
            RECEIVER.label("receiver"),
            Webhook.url,
            Webhook.secret,
            IS_LIVE.label("endpoint_is_live"),
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


DUE_FIRST_ATTEMPTS: Final = _due(Delivery.attempts_made == 0)
DUE_RETRIES: Final = _due(Delivery.attempts_made > 0)


async def due(
    connection: AsyncConnection,
    statement: Select[*tuple[Any, ...]],
    *,
    limit: int,
    closed: Collection[Receiver],
) -> Sequence[DueDelivery]:
    """Lock and return due deliveries, longest due first; skip rows that are locked.

    Args:
        connection: in a transaction.
        statement: `DUE_FIRST_ATTEMPTS` or `DUE_RETRIES`.
        limit: maximum number of deliveries.
        closed: receivers to skip.
    """
    rows = await connection.execute(statement, {"limit": limit, "closed": list(closed)})
    return [DueDelivery(**row) for row in rows.mappings()]
