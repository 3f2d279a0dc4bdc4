"""Registers endpoints, and the callbacks of uploads."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import msgspec
import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.db import SessionStatements
from gateway.http import idempotency
from gateway.http.security import Caller
from gateway.webhooks import audit, checks, queries, view
from gateway.webhooks.errors import EarlierWebhookDeleted, TooManyWebhooks, WebhookNotFound
from schemas.api.webhooks import CreateWebhook, WebhookCreated
from schemas.ids import TenantId, UploadId, WebhookId
from schemas.key_ring import KeyRing
from schemas.policy import webhook_headers, webhook_secrets, webhook_urls
from schemas.policy.webhook_secrets import SecretKind
from schemas.tables.tenants import Tenant
from schemas.tables.webhooks import Webhook, WebhookSecret

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Callback:
    """The callback of a new upload, and the secret that verifies its events."""

    webhook_id: WebhookId
    secret: str


def hashable(request: CreateWebhook, *, keys: KeyRing) -> CreateWebhook:
    """Return the request to bind an `Idempotency-Key` to, with what is secret signed.

    A plain hash, which the database keeps, would allow guesses. Once `SECRET_KEYS` has another first
    key, an earlier request with a secret or headers counts as another request.
    """
    headers = request.headers
    if headers is not msgspec.UNSET:
        headers = [
            msgspec.structs.replace(header, value=signed(header.value, keys=keys))
            for header in headers
        ]
    return msgspec.structs.replace(
        request,
        headers=headers,
        secret=signed(request.secret, keys=keys) if request.secret else request.secret,
    )


def signed(secret: str | None, *, keys: KeyRing) -> str | None:
    """Return what stands for a secret in the hash of a request."""
    return None if secret is None else keys.sign(secret.encode(), context="webhook").hex()


async def create_webhook(
    context: Context,
    *,
    caller: Caller,
    request: CreateWebhook,
    keyed: idempotency.KeyedRequest | None,
) -> WebhookCreated:
    """Register an endpoint, or return the endpoint that an earlier request with the key created.

    Only the first answer contains the secret.

    Raises:
        TargetRefused: the URL is not allowed.
        InvalidRequest: no endpoint receives one of the event types, or the timeout, a header or the
            secret is not allowed.
        TooManyWebhooks: the tenant has as many endpoints as it may.
        IdempotencyKeyReused: the key is bound to another request.
        EarlierWebhookDeleted: an earlier request created the endpoint, and it was deleted since.
    """
    keys, tenant_id = context.secret_keys, caller.tenant_id
    webhook, secret = _parse(request, tenant_id=tenant_id, context=context)
    async with context.database.tenant_lock(tenant_id) as session:
        created_id = WebhookId(
            await idempotency.first_use(
                SessionStatements(session), keyed, tenant_id=tenant_id, resource_id=webhook.id
            )
        )
        if created_id != webhook.id:
            try:
                earlier = await queries.live_webhook_of(
                    session, tenant_id=tenant_id, webhook_id=created_id
                )
            except WebhookNotFound as error:
                raise EarlierWebhookDeleted(created_id) from error
            secrets = await queries.secrets_of(session, created_id)
            return view.show_created(earlier, secrets, secret=None, keys=keys)
        await _check_count(
            session, tenant_id=tenant_id, limit=context.settings.webhook_endpoints_max
        )
        row = await _add(session, webhook, secret=secret, keys=keys)
        audit.record(session, webhook, caller=caller, action="created")
    log.info("webhook.created", webhook_id=str(webhook.id))
    return view.show_created(webhook, [row], secret=secret, keys=keys)


async def register_callback(
    context: Context,
    session: AsyncSession,
    upload_id: UploadId,
    *,
    tenant_id: TenantId,
    url: str,
) -> Callback:
    """Register an endpoint for the events of a new upload, whose row is in the database.

    Raises:
        TargetRefused: the URL is not allowed.
    """
    webhook_urls.check(url, allowed_networks=context.settings.webhook_allowed)
    webhook = Webhook(id=WebhookId(uuid4()), tenant_id=tenant_id, upload_id=upload_id, url=url)
    secret = webhook_secrets.generate(SecretKind.V1)
    await _add(session, webhook, secret=secret, keys=context.secret_keys)
    return Callback(webhook_id=webhook.id, secret=secret)


def new_secret(
    secret: str, *, secret_id: UUID, webhook_id: WebhookId, keys: KeyRing
) -> WebhookSecret:
    """Return the row of a secret."""
    return WebhookSecret(
        id=secret_id,
        webhook_id=webhook_id,
        scheme=webhook_secrets.kind_of(secret),
        secret=webhook_secrets.encrypt(secret, webhook_id=webhook_id, keys=keys),
    )


def _parse(request: CreateWebhook, *, tenant_id: TenantId, context: Context) -> tuple[Webhook, str]:
    """Return the endpoint that the request describes, and its secret; see `create_webhook`."""
    settings = context.settings
    webhook_urls.check(request.url, allowed_networks=settings.webhook_allowed)
    webhook_id = WebhookId(uuid4())
    webhook = Webhook(
        id=webhook_id,
        tenant_id=tenant_id,
        url=request.url,
        event_types=checks.event_types_of(request.event_types),
        metadata_filter=request.metadata_filter or None,
        description=request.description,
        headers=webhook_headers.encrypt(
            checks.headers_of(request.headers or ()),
            webhook_id=webhook_id,
            keys=context.secret_keys,
        ),
        timeout=checks.timeout_of(request.timeout or None, longest=settings.webhook_timeout_max),
        concurrency=request.concurrency or None,
        rate=request.rate or None,
        ordered=bool(request.ordered),
    )
    kind = SecretKind(request.signature) if request.signature else None
    secret = checks.secret_of(
        None if request.secret is msgspec.UNSET else request.secret,
        kind=kind,
        default=SecretKind.V1,
    )
    return webhook, secret


async def _check_count(session: AsyncSession, *, tenant_id: TenantId, limit: int) -> None:
    """Check that the tenant may have another endpoint; its other creates wait for this transaction.

    Raises:
        TooManyWebhooks: the tenant has as many endpoints as it may.
    """
    # FOR NO KEY UPDATE: other rows of the tenant, such as uploads, are added meanwhile.
    await session.execute(
        select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)
    )
    if await queries.count_of(session, tenant_id=tenant_id) >= limit:
        raise TooManyWebhooks(limit=limit)


async def _add(
    session: AsyncSession, webhook: Webhook, *, secret: str, keys: KeyRing
) -> WebhookSecret:
    session.add(webhook)
    # Before its secret, whose row refers to it.
    await session.flush()
    row = new_secret(secret, secret_id=uuid4(), webhook_id=webhook.id, keys=keys)
    session.add(row)
    await session.flush()
    return row
