"""Endpoints of a test, and the rows around them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
from sqlalchemy import func, select, update

from schemas.ids import DeliveryId, EventId, TenantId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.policy import webhook_secrets
from schemas.tables.audit import AuditEntry
from schemas.tables.deliveries import Attempt, Delivery, DeliveryQueue
from schemas.tables.webhooks import Webhook, WebhookSecret
from tests.factories.secret_keys import KEYS
from tests.integration.gateway.api import Api, BeginSession

URL = "https://hooks.example.com/waybill?token=abc"


async def register(api: Api, **options: Any) -> httpx.Response:  # noqa: ANN401  # whatever the API takes
    return await api.ask("POST", "/webhooks", json={"url": URL, **options})


async def registered(api: Api, **options: Any) -> str:  # noqa: ANN401  # whatever the API takes
    """Register an endpoint; return its id."""
    answer = await register(api, **options)
    assert answer.status_code == 201, answer.text
    webhook_id: str = answer.json()["webhook_id"]
    return webhook_id


async def change(api: Api, webhook_id: str, **patch: Any) -> httpx.Response:  # noqa: ANN401  # whatever the API takes
    return await api.ask("PATCH", f"/webhooks/{webhook_id}", json=patch)


async def shown(api: Api, webhook_id: str) -> dict[str, Any]:
    answer = await api.get(f"/webhooks/{webhook_id}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def secrets_in(transaction: BeginSession) -> set[str]:
    """Return the secrets of all endpoints in their text forms."""
    async with transaction() as session:
        return {
            webhook_secrets.decrypt(row.secret, webhook_id=row.webhook_id, keys=KEYS)
            for row in await session.scalars(select(WebhookSecret))
        }


async def version_of(transaction: BeginSession, webhook_id: str) -> int:
    async with transaction() as session:
        return (
            await session.scalars(select(Webhook.version).where(Webhook.id == UUID(webhook_id)))
        ).one()


async def disable(transaction: BeginSession, webhook_id: str, *, reason: str = "gone") -> None:
    async with transaction() as session:
        await session.execute(
            update(Webhook)
            .where(Webhook.id == UUID(webhook_id))
            .values(disabled_at=func.now(), disabled_reason=reason)
        )


async def set_queue(transaction: BeginSession, webhook_id: str, **values: Any) -> None:  # noqa: ANN401  # any column
    async with transaction() as session:
        await session.execute(
            update(DeliveryQueue)
            .where(DeliveryQueue.webhook_id == UUID(webhook_id))
            .values(**values)
        )


async def queue_of(transaction: BeginSession, webhook_id: str) -> DeliveryQueue:
    async with transaction() as session:
        return (
            await session.scalars(
                select(DeliveryQueue).where(DeliveryQueue.webhook_id == UUID(webhook_id))
            )
        ).one()


async def is_due(transaction: BeginSession, webhook_id: str) -> bool:
    """Return whether the owner of the queue is told to look at it."""
    async with transaction() as session:
        return (
            await session.scalars(
                select(DeliveryQueue.due_at <= func.now()).where(
                    DeliveryQueue.webhook_id == UUID(webhook_id)
                )
            )
        ).one() is True


async def add_deliveries(
    transaction: BeginSession,
    webhook_id: str,
    *,
    count: int = 1,
    status: DeliveryStatus = DeliveryStatus.PENDING,
    attempts: Sequence[dict[str, Any]] = (),
) -> list[DeliveryId]:
    """Add deliveries with these attempts each; a later delivery has a later id."""
    ids = [DeliveryId(uuid4()) for _ in range(count)]
    ids.sort()
    async with transaction() as session:
        tenant_id: TenantId = (
            await session.scalars(select(Webhook.tenant_id).where(Webhook.id == UUID(webhook_id)))
        ).one()
        for delivery_id in ids:
            session.add(
                Delivery(
                    id=delivery_id,
                    tenant_id=tenant_id,
                    webhook_id=WebhookId(UUID(webhook_id)),
                    event_id=EventId(uuid4()),
                    event_type="upload.stored",
                    status=status,
                    attempts_made=len(attempts),
                    next_attempt_at=func.now() if status == DeliveryStatus.PENDING else None,
                    settled_at=None if status == DeliveryStatus.PENDING else func.now(),
                )
            )
            for number, attempt in enumerate(attempts, start=1):
                session.add(
                    Attempt(
                        delivery_id=delivery_id,
                        number=number,
                        **{"started_at": func.now(), "duration_us": 1_000, **attempt},
                    )
                )
    return ids


async def deliveries(transaction: BeginSession, webhook_id: str) -> Sequence[Delivery]:
    async with transaction() as session:
        return (
            await session.scalars(
                select(Delivery)
                .where(Delivery.webhook_id == UUID(webhook_id))
                .order_by(Delivery.id)
            )
        ).all()


async def acts(transaction: BeginSession, webhook_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the acts on an endpoint in the audit log, with their details but the tenant."""
    async with transaction() as session:
        entries = await session.scalars(
            select(AuditEntry)
            .where(AuditEntry.target == f"webhook/{webhook_id}")
            .order_by(AuditEntry.id)
        )
        return [
            (
                entry.action,
                {name: value for name, value in entry.detail.items() if name != "tenant_id"},
            )
            for entry in entries
        ]


async def shift_secrets(transaction: BeginSession, webhook_id: str, *, by: timedelta) -> None:
    """Move the end of every secret of an endpoint, as if time had passed."""
    async with transaction() as session:
        await session.execute(
            update(WebhookSecret)
            .where(WebhookSecret.webhook_id == UUID(webhook_id))
            .values(expires_at=WebhookSecret.expires_at + by)
        )
