"""A tenant with an endpoint, and the rows of its log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from schemas.ids import TenantId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Delivery, DeliveryQueue
from schemas.tables.events import EventRecord
from schemas.tables.tenants import Tenant
from tests.factories.deliveries import a_delivery, an_endpoint, an_event_row, an_inbox_row
from tests.integration.gateway.api import BeginSession

START = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True)
class Log:
    """An endpoint of a tenant."""

    transaction: BeginSession
    tenant_id: TenantId
    webhook_id: WebhookId

    @property
    def path(self) -> str:
        return f"/webhooks/{self.webhook_id}"

    async def add(self, *rows: object) -> None:
        async with self.transaction() as session:
            session.add_all(rows)

    async def event(self, *, minute: int = 0, **columns: Any) -> EventRecord:  # noqa: ANN401  # any column
        """Add an event that has no delivery."""
        event = an_event_row(self.tenant_id, at=START + timedelta(minutes=minute), **columns)
        await self.add(event, an_inbox_row(event, deliveries=0))
        return event

    async def delivery(
        self,
        status: DeliveryStatus = DeliveryStatus.DELIVERED,
        *,
        minute: int = 0,
        event: EventRecord | None = None,
        **columns: Any,  # noqa: ANN401  # any column
    ) -> Delivery:
        """Add a delivery, by default of an event of its own."""
        if event is None:
            event = an_event_row(self.tenant_id, at=START + timedelta(minutes=minute))
            await self.add(event, an_inbox_row(event, deliveries=1))
        delivery = a_delivery(event, self.webhook_id, status, **columns)
        await self.add(delivery)
        return delivery

    async def rows(self) -> Sequence[Delivery]:
        """Return the deliveries of the endpoint, oldest events first."""
        async with self.transaction() as session:
            return (
                await session.scalars(
                    select(Delivery)
                    .where(Delivery.webhook_id == self.webhook_id)
                    .order_by(Delivery.id)
                )
            ).all()

    async def row(self, delivery: Delivery) -> Delivery:
        async with self.transaction() as session:
            return await session.get_one(Delivery, delivery.id)

    async def queue(self) -> DeliveryQueue:
        async with self.transaction() as session:
            return await session.get_one(DeliveryQueue, self.webhook_id)


async def tenant_of(transaction: BeginSession, name: str) -> TenantId:
    async with transaction() as session:
        return (await session.scalars(select(Tenant.id).where(Tenant.name == name))).one()


async def log_of(transaction: BeginSession, *, tenant: str = "acme", **columns: Any) -> Log:  # noqa: ANN401  # any column
    """Add an endpoint to a tenant that exists."""
    tenant_id = await tenant_of(transaction, tenant)
    webhook = an_endpoint(tenant_id, **columns)
    async with transaction() as session:
        session.add(webhook)
    return Log(transaction=transaction, tenant_id=tenant_id, webhook_id=webhook.id)
