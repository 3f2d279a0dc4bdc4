"""Endpoints and secrets as clients see them."""

import base64
from collections.abc import Sequence
from typing import Any, Final, cast

from schemas.api.webhooks import (
    PublicJwk,
    PublicKeys,
    Scheme,
    SecretRotated,
    SecretView,
    WebhookCreated,
    WebhookDetail,
    WebhookHeader,
    WebhookHealth,
    WebhookView,
)
from schemas.key_ring import KeyRing
from schemas.lifecycle import EndpointState
from schemas.policy import webhook_headers, webhook_secrets
from schemas.policy.webhook_secrets import SecretKind
from schemas.tables.webhooks import Webhook, WebhookSecret

_PADDING: Final = "="


def state_of(webhook: Webhook) -> EndpointState:
    if webhook.disabled_at is not None:
        return EndpointState.DISABLED
    return EndpointState.ACTIVE if webhook.paused_at is None else EndpointState.PAUSED


def show(webhook: Webhook, secrets: Sequence[WebhookSecret], *, keys: KeyRing) -> WebhookView:
    """Return the view of an endpoint.

    Raises:
        DecryptionFailed: no key decrypts its headers.
    """
    return WebhookView(
        webhook_id=webhook.id,
        upload_id=webhook.upload_id,
        url=webhook.url,
        event_types=webhook.event_types,
        metadata_filter=webhook.metadata_filter,
        description=webhook.description,
        headers=[
            WebhookHeader(
                name=header.name,
                value=None if header.sensitive else header.value,
                sensitive=header.sensitive,
            )
            for header in webhook_headers.decrypt(webhook.headers, webhook_id=webhook.id, keys=keys)
        ],
        timeout=None if webhook.timeout is None else webhook.timeout.total_seconds(),
        concurrency=webhook.concurrency,
        rate=webhook.rate,
        ordered=webhook.ordered,
        state=state_of(webhook),
        enabled=webhook.disabled_at is None,
        disabled_reason=webhook.disabled_reason,
        disabled_at=webhook.disabled_at,
        secrets=[show_secret(secret) for secret in secrets],
        created_at=webhook.created_at,
    )


def show_detail(
    webhook: Webhook, secrets: Sequence[WebhookSecret], *, health: WebhookHealth, keys: KeyRing
) -> WebhookDetail:
    """Return the view of an endpoint with its health; see `show`."""
    return WebhookDetail(**_fields(show(webhook, secrets, keys=keys)), health=health)


def show_created(
    webhook: Webhook, secrets: Sequence[WebhookSecret], *, secret: str | None, keys: KeyRing
) -> WebhookCreated:
    """Return the answer to a request that creates an endpoint; see `show`.

    Args:
        webhook: the new endpoint, or the endpoint of an earlier request.
        secrets: those that sign, newest first.
        secret: the secret of a new endpoint.
        keys: decrypt what is shown.
    """
    return WebhookCreated(
        **_fields(show(webhook, secrets, keys=keys)),
        secret=_shown(secret),
        public_key=None if not secrets else public_key_of(secrets[0], keys=keys),
    )


def show_rotated(
    new: WebhookSecret, secrets: Sequence[WebhookSecret], *, secret: str | None, keys: KeyRing
) -> SecretRotated:
    """Return the answer to a rotation; `secret` is the text of the new secret."""
    return SecretRotated(
        secret_id=new.id,
        secret=_shown(secret),
        public_key=public_key_of(new, keys=keys),
        secrets=[show_secret(each) for each in secrets],
    )


def show_secret(secret: WebhookSecret) -> SecretView:
    return SecretView(
        secret_id=secret.id,
        scheme=cast("Scheme", secret.scheme),
        created_at=secret.created_at,
        expires_at=secret.expires_at,
    )


def public_key_of(secret: WebhookSecret, *, keys: KeyRing) -> str | None:
    """Return ``whpk_…``; None if the secret is not asymmetric.

    Raises:
        DecryptionFailed: no key decrypts the secret.
    """
    if secret.scheme != SecretKind.V1A:
        return None
    return webhook_secrets.public_key(
        webhook_secrets.decrypt(secret.secret, webhook_id=secret.webhook_id, keys=keys)
    )


def show_public_keys(secrets: Sequence[WebhookSecret], *, keys: KeyRing) -> PublicKeys:
    """Return the public keys of the secrets that sign; see `public_key_of`."""
    shown = [
        (secret, public_key)
        for secret in secrets
        if (public_key := public_key_of(secret, keys=keys)) is not None
    ]
    return PublicKeys(
        public_key=shown[0][1] if shown else None,
        keys=[
            PublicJwk(kid=secret.id, x=_base64url(whpk), whpk=whpk, expires_at=secret.expires_at)
            for secret, whpk in shown
        ],
    )


def _shown(secret: str | None) -> str | None:
    """Return what a client may see of a secret: nobody but Waybill needs a private key."""
    if secret is None or webhook_secrets.kind_of(secret) is SecretKind.V1A:
        return None
    return secret


def _base64url(whpk: str) -> str:
    key = base64.b64decode(whpk.removeprefix(webhook_secrets.PUBLIC_PREFIX))
    return base64.urlsafe_b64encode(key).decode().rstrip(_PADDING)


def _fields(view: WebhookView) -> dict[str, Any]:
    return {name: getattr(view, name) for name in view.__struct_fields__}
