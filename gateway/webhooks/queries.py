"""Reads endpoints and their secrets. Callbacks are listed by their upload alone."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.webhooks.errors import SecretNotFound, WebhookNotFound
from schemas.ids import TenantId, UploadId, WebhookId
from schemas.tables.webhooks import Webhook, WebhookSecret


async def webhook_of(
    session: AsyncSession, *, tenant_id: TenantId, webhook_id: WebhookId, lock: bool = False
) -> Webhook:
    """Return a tenant's endpoint, or the callback of an upload, deleted or not.

    Args:
        session: the transaction.
        tenant_id: the tenant that asks.
        webhook_id: the endpoint.
        lock: until the end of the transaction, for a change of the endpoint or its secrets.

    Raises:
        WebhookNotFound: the tenant never had such an endpoint.
    """
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.tenant_id == tenant_id)
    if lock:
        # FOR NO KEY UPDATE: its queue and its secrets refer to the row.
        query = query.with_for_update(key_share=True)
    webhook = await session.scalar(query)
    if webhook is None:
        raise WebhookNotFound(webhook_id)
    return webhook


async def live_webhook_of(
    session: AsyncSession, *, tenant_id: TenantId, webhook_id: WebhookId, lock: bool = False
) -> Webhook:
    """Return a tenant's endpoint; see `webhook_of`.

    Raises:
        WebhookNotFound: the tenant has no such endpoint, or deleted it.
    """
    webhook = await webhook_of(session, tenant_id=tenant_id, webhook_id=webhook_id, lock=lock)
    if webhook.deleted_at is not None:
        raise WebhookNotFound(webhook_id)
    return webhook


def webhooks_of(tenant_id: TenantId, *, upload_id: UploadId | None) -> Select[Webhook]:
    """Return the query of a tenant's endpoints, or of the callbacks of one upload."""
    return select(Webhook).where(
        Webhook.tenant_id == tenant_id,
        # "= NULL" selects nothing; SQLAlchemy makes it "IS NULL".
        Webhook.upload_id == upload_id,
        Webhook.deleted_at.is_(None),
    )


async def count_of(session: AsyncSession, *, tenant_id: TenantId) -> int:
    """Return how many endpoints a tenant has, without callbacks."""
    return (
        await session.scalars(
            webhooks_of(tenant_id, upload_id=None).with_only_columns(func.count())
        )
    ).one()


async def callback_of(session: AsyncSession, upload_id: UploadId) -> WebhookId | None:
    """Return the callback of an upload; None if it has none, or it is deleted."""
    return await session.scalar(
        select(Webhook.id).where(Webhook.upload_id == upload_id, Webhook.deleted_at.is_(None))
    )


async def secrets_of(session: AsyncSession, webhook_id: WebhookId) -> Sequence[WebhookSecret]:
    """Return the secrets that sign, newest first: the first is the present one."""
    return (await secrets_by_webhook(session, [webhook_id]))[webhook_id]


async def secrets_by_webhook(
    session: AsyncSession, webhook_ids: Collection[WebhookId]
) -> Mapping[WebhookId, Sequence[WebhookSecret]]:
    """Return the secrets of each endpoint; see `secrets_of`."""
    found = await session.scalars(
        select(WebhookSecret)
        .where(
            WebhookSecret.webhook_id.in_(webhook_ids),
            or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > func.now()),
        )
        .order_by(
            WebhookSecret.expires_at.is_not(None),
            WebhookSecret.created_at.desc(),
            WebhookSecret.id,
        )
        # The rows may have changed by statements in the session.
        .execution_options(populate_existing=True)
    )
    secrets = defaultdict[WebhookId, list[WebhookSecret]](list)
    for secret in found:
        secrets[secret.webhook_id].append(secret)
    return secrets


async def secret_of(
    session: AsyncSession, *, webhook_id: WebhookId, secret_id: UUID
) -> WebhookSecret:
    """Return a secret of an endpoint, expired or not.

    Raises:
        SecretNotFound: the endpoint has no such secret.
    """
    secret = await session.scalar(
        select(WebhookSecret).where(
            WebhookSecret.id == secret_id, WebhookSecret.webhook_id == webhook_id
        )
    )
    if secret is None:
        raise SecretNotFound(secret_id)
    return secret
