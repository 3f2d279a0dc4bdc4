"""Reads webhooks. The callback of an upload is not listed: it ends with its upload."""

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from schemas.api.webhooks import WebhookCreated, WebhookView
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId, WebhookId
from schemas.tables.webhooks import Webhook


class WebhookNotFound(DomainError):
    """The webhook does not exist, or belongs to another tenant."""

    code = ErrorCode.WEBHOOK_NOT_FOUND

    def __init__(self, webhook_id: WebhookId) -> None:
        super().__init__(f"there is no webhook {webhook_id}")


async def webhook_of(
    session: AsyncSession, *, tenant_id: TenantId, webhook_id: WebhookId
) -> Webhook:
    """Return a tenant's webhook, deleted or not.

    Raises:
        WebhookNotFound: the tenant never had such a webhook.
    """
    webhook = await session.scalar(
        select(Webhook).where(
            Webhook.id == webhook_id,
            Webhook.tenant_id == tenant_id,
            Webhook.upload_id.is_(None),
        ),
    )
    if webhook is None:
        raise WebhookNotFound(webhook_id)
    return webhook


async def live_webhook_of(
    session: AsyncSession, *, tenant_id: TenantId, webhook_id: WebhookId
) -> Webhook:
    """Return a tenant's webhook.

    Raises:
        WebhookNotFound: the tenant has no such webhook, or deleted it.
    """
    webhook = await webhook_of(session, tenant_id=tenant_id, webhook_id=webhook_id)
    if webhook.deleted_at is not None:
        raise WebhookNotFound(webhook_id)
    return webhook


def webhooks_of(tenant_id: TenantId) -> Select[Webhook]:
    """Return the query of a tenant's webhooks, without the callbacks of uploads."""
    return select(Webhook).where(
        Webhook.tenant_id == tenant_id,
        Webhook.upload_id.is_(None),
        Webhook.deleted_at.is_(None),
    )


def show(webhook: Webhook) -> WebhookView:
    return WebhookView(
        webhook_id=webhook.id,
        url=webhook.url,
        event_types=webhook.event_types,
        description=webhook.description,
        enabled=webhook.disabled_at is None,
        disabled_reason=webhook.disabled_reason,
        created_at=webhook.created_at,
    )


def show_created(webhook: Webhook, *, secret: str | None) -> WebhookCreated:
    """Return the answer to a request that creates a webhook.

    Args:
        webhook: the new webhook, or the webhook of an earlier request.
        secret: the secret of a new webhook.
    """
    return WebhookCreated(
        webhook_id=webhook.id,
        url=webhook.url,
        event_types=webhook.event_types,
        description=webhook.description,
        secret=secret,
        created_at=webhook.created_at,
    )
