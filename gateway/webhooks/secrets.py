"""Rotates and ends the secrets of endpoints.

An endpoint has one present secret, which has no end, and up to nine earlier ones that still sign
until their end. A change of a secret locks the row of the endpoint.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID, uuid4

import structlog
from sqlalchemy import delete, func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.db import SessionStatements
from gateway.http import idempotency
from gateway.http.security import Caller
from gateway.webhooks import audit, checks, queries, view
from gateway.webhooks.create import new_secret
from gateway.webhooks.errors import SecretInUse, TooManySecrets, WebhookNotFound
from schemas.api.webhooks import PublicKeys, RotateSecret, SecretRotated
from schemas.ids import WebhookId
from schemas.policy.webhook_secrets import SecretKind
from schemas.tables.webhooks import Webhook, WebhookSecret

log = structlog.stdlib.get_logger(__name__)

SECRETS_MAX: Final = 10
"""Most secrets of an endpoint that sign: each is a signature in every request."""


async def rotate_secret(
    context: Context,
    *,
    caller: Caller,
    webhook_id: WebhookId,
    request: RotateSecret,
    keyed: idempotency.KeyedRequest | None,
) -> SecretRotated:
    """Add a secret, or return the secret that an earlier request with the key added.

    Only the first answer contains the secret. The other secrets end after the overlap, or earlier.

    Raises:
        WebhookNotFound: the tenant has no such endpoint.
        InvalidRequest: the secret is malformed or of another kind.
        TooManySecrets: too many secrets would sign.
        SecretNotFound: an earlier request added the secret, and it is deleted since.
        IdempotencyKeyReused: the key is bound to another request.
    """
    keys, tenant_id = context.secret_keys, caller.tenant_id
    secret_id = uuid4()
    async with context.database.transaction() as session:
        # Before the endpoint, as other requests: two with one key would otherwise deadlock.
        added_id = await idempotency.first_use(
            SessionStatements(session), keyed, tenant_id=tenant_id, resource_id=secret_id
        )
        webhook = await queries.live_webhook_of(
            session, tenant_id=tenant_id, webhook_id=webhook_id, lock=True
        )
        before = await queries.secrets_of(session, webhook_id)
        if added_id != secret_id:
            earlier = await queries.secret_of(session, webhook_id=webhook_id, secret_id=added_id)
            return view.show_rotated(earlier, before, secret=None, keys=keys)
        secret = checks.secret_of(
            request.secret,
            kind=None if request.signature is None else SecretKind(request.signature),
            default=SecretKind(before[0].scheme) if before else SecretKind.V1,
        )
        row = new_secret(secret, secret_id=secret_id, webhook_id=webhook_id, keys=keys)
        overlap = context.settings.webhook_secret_overlap
        if request.overlap is not None:
            overlap = timedelta(seconds=request.overlap)
        if overlap and len(before) >= SECRETS_MAX:
            raise TooManySecrets(limit=SECRETS_MAX)
        await _end_others(session, webhook, overlap=overlap)
        session.add(row)
        await session.flush()
        audit.record(
            session, webhook, caller=caller, action="secret_rotated", secret_id=str(row.id)
        )
        secrets = await queries.secrets_of(session, webhook_id)
    log.info("webhook.secret_rotated", webhook_id=str(webhook_id), secret_id=str(row.id))
    return view.show_rotated(row, secrets, secret=secret, keys=keys)


async def end_secret(
    context: Context, *, caller: Caller, webhook_id: WebhookId, secret_id: UUID
) -> None:
    """End an earlier secret at once; it signs nothing any more. Idempotent.

    Raises:
        WebhookNotFound: the tenant has no such endpoint.
        SecretNotFound: the endpoint has no such secret.
        SecretInUse: it is the present secret.
    """
    async with context.database.transaction() as session:
        webhook = await queries.live_webhook_of(
            session, tenant_id=caller.tenant_id, webhook_id=webhook_id, lock=True
        )
        secret = await queries.secret_of(session, webhook_id=webhook_id, secret_id=secret_id)
        if secret.expires_at is None:
            raise SecretInUse(secret_id)
        ended = await session.scalars(
            update(WebhookSecret)
            .where(WebhookSecret.id == secret_id, WebhookSecret.expires_at > func.now())
            .values(expires_at=func.now())
            .returning(WebhookSecret.id)
        )
        if ended.first() is not None:
            audit.record(
                session, webhook, caller=caller, action="secret_ended", secret_id=str(secret_id)
            )


async def public_keys(context: Context, webhook_id: WebhookId) -> PublicKeys:
    """Return the public keys of an endpoint of any tenant.

    Raises:
        WebhookNotFound: there is no such endpoint.
    """
    async with context.database.transaction() as session:
        secrets = await queries.secrets_of(session, webhook_id)
    # A deleted endpoint has no secrets.
    if not secrets:
        raise WebhookNotFound(webhook_id)
    return view.show_public_keys(secrets, keys=context.secret_keys)


async def _end_others(session: AsyncSession, webhook: Webhook, *, overlap: timedelta) -> None:
    """Let the secrets of an endpoint end after the overlap, and delete those that have ended."""
    await session.execute(
        delete(WebhookSecret).where(
            WebhookSecret.webhook_id == webhook.id, WebhookSecret.expires_at <= func.now()
        )
    )
    end = func.now() + overlap
    await session.execute(
        update(WebhookSecret)
        .where(
            WebhookSecret.webhook_id == webhook.id,
            or_(WebhookSecret.expires_at.is_(None), WebhookSecret.expires_at > end),
        )
        .values(expires_at=end)
    )
