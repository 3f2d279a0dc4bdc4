"""Registers and removes endpoints."""

from collections.abc import Sequence
from uuid import uuid4

import structlog
from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import SessionStatements
from gateway.http import idempotency
from gateway.http.problems import InvalidRequest
from gateway.webhooks import queries
from schemas.api.webhooks import CreateWebhook, WebhookCreated
from schemas.ids import TenantId, UploadId, WebhookId
from schemas.key_ring import KeyRing
from schemas.policy import webhook_secrets, webhook_urls
from schemas.policy.webhook_secrets import SecretKind
from schemas.queues import NOTIFY
from schemas.tables.webhooks import Webhook
from schemas.topology import SUBSCRIPTIONS

log = structlog.stdlib.get_logger(__name__)


async def create_webhook(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    request: CreateWebhook,
    keyed: idempotency.KeyedRequest | None,
    allowed_networks: Sequence[webhook_urls.Network],
    keys: KeyRing,
) -> WebhookCreated:
    """Register an endpoint, or return the endpoint that an earlier request with the key created.

    Only the first answer contains the secret.

    Raises:
        TargetRefused: the URL is not allowed.
        InvalidRequest: no endpoint receives one of the event types.
        IdempotencyKeyReused: the key is bound to another request.
        WebhookNotFound: an earlier request created the endpoint, and it was deleted since.
    """
    webhook_urls.check(request.url, allowed_networks=allowed_networks)
    _check_event_types(request.event_types)
    webhook, secret = _new_webhook(tenant_id, url=request.url, keys=keys)
    webhook.event_types = list(dict.fromkeys(request.event_types))
    webhook.description = request.description
    created_id = WebhookId(
        await idempotency.first_use(
            SessionStatements(session), keyed, tenant_id=tenant_id, resource_id=webhook.id
        )
    )
    if created_id != webhook.id:
        earlier = await queries.live_webhook_of(session, tenant_id=tenant_id, webhook_id=created_id)
        return queries.show_created(earlier, secret=None)
    session.add(webhook)
    await session.flush()
    log.info("webhook.created", webhook_id=str(webhook.id))
    return queries.show_created(webhook, secret=secret)


def register_callback(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    url: str,
    allowed_networks: Sequence[webhook_urls.Network],
    keys: KeyRing,
) -> str:
    """Register an endpoint for the events of a new upload; return the secret that verifies them.

    Raises:
        TargetRefused: the URL is not allowed.
    """
    webhook_urls.check(url, allowed_networks=allowed_networks)
    webhook, secret = _new_webhook(tenant_id, url=url, keys=keys)
    webhook.upload_id = upload_id
    session.add(webhook)
    return secret


async def delete_webhook(
    session: AsyncSession, *, tenant_id: TenantId, webhook_id: WebhookId
) -> None:
    """Delete an endpoint; the log of its deliveries is kept. Idempotent.

    Raises:
        WebhookNotFound: the tenant never had such a webhook.
    """
    await queries.webhook_of(session, tenant_id=tenant_id, webhook_id=webhook_id)
    await session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.deleted_at.is_(None))
        .values(deleted_at=func.now()),
    )


def _check_event_types(event_types: Sequence[str]) -> None:
    for event_type in event_types:
        if event_type not in SUBSCRIPTIONS[NOTIFY]:
            raise InvalidRequest(
                f"is none of {', '.join(SUBSCRIPTIONS[NOTIFY])}", field="event_types"
            )


def _new_webhook(tenant_id: TenantId, *, url: str, keys: KeyRing) -> tuple[Webhook, str]:
    """Return a webhook, whose secret is encrypted, and its secret."""
    webhook_id = WebhookId(uuid4())
    secret = webhook_secrets.generate(SecretKind.V1)
    encrypted = webhook_secrets.encrypt(secret, webhook_id=webhook_id, keys=keys)
    return Webhook(id=webhook_id, tenant_id=tenant_id, url=url, secret=encrypted), secret
