"""Registering endpoints, and letting them go."""

import base64
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

import structlog
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http import idempotency
from gateway.http.problems import InvalidRequest
from gateway.webhooks import queries
from schemas.api.webhooks import CreateWebhook, WebhookCreated
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId, UploadId, WebhookId
from schemas.tables.webhooks import Webhook
from schemas.topology import NOTIFY, SUBSCRIPTIONS

log = structlog.stdlib.get_logger(__name__)

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # the public part
FIRST_UNPRIVILEGED_PORT: Final = 1024

_HOST: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
# Resolvers read 2130706433 and 0x7f.1 as addresses: https://url.spec.whatwg.org/#ends-in-a-number-checker
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_PRINTABLE: Final = re.compile(r"[!-~]+")


class WebhookUrlRefused(DomainError):
    """A webhook may not go there. The message does not repeat the URL, which may hold a token."""

    code = ErrorCode.WEBHOOK_URL_REFUSED

    def __init__(self, reason: str) -> None:
        super().__init__(f"webhook URL refused: {reason}")


async def create_webhook(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    request: CreateWebhook,
    keyed: idempotency.KeyedRequest | None,
    allow_loopback: bool,
) -> WebhookCreated:
    """Register an endpoint for the tenant's events; with a used key, return the one made then.

    Raises:
        WebhookUrlRefused: nothing may be sent there.
        InvalidRequest: an event type that is never told.
        IdempotencyKeyReused: the key is bound to another request.
    """
    check_url(request.url, allow_loopback=allow_loopback)
    _check_event_types(request.event_types)
    webhook = _new_webhook(tenant_id, url=request.url)
    webhook.event_types = list(dict.fromkeys(request.event_types))
    webhook.description = request.description
    made_id = WebhookId(
        await idempotency.first_use(session, keyed, tenant_id=tenant_id, resource_id=webhook.id)
    )
    if made_id == webhook.id:
        session.add(webhook)
        await session.flush()
        log.info("webhook.created", webhook_id=str(webhook.id))
    else:
        webhook = await queries.webhook_of(session, tenant_id=tenant_id, webhook_id=made_id)
    return queries.show_created(webhook)


async def register_callback(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    url: str,
    allow_loopback: bool,
) -> str:
    """Have `url` told of one upload's events; return the secret that verifies them.

    Called again for the same upload it changes nothing and returns the same secret.

    Raises:
        WebhookUrlRefused: nothing may be sent there.
    """
    check_url(url, allow_loopback=allow_loopback)
    webhook = await queries.callback_of(session, upload_id)
    if webhook is None:
        webhook = _new_webhook(tenant_id, url=url)
        webhook.upload_id = upload_id
        session.add(webhook)
    return webhook.secret


async def delete_webhook(
    session: AsyncSession, *, tenant_id: TenantId, webhook_id: WebhookId, now: datetime
) -> None:
    """Stop telling an endpoint; the log of what it was told stays. Again changes nothing.

    Raises:
        WebhookNotFound: there was never one, or never one of this tenant.
    """
    await queries.webhook_of(session, tenant_id=tenant_id, webhook_id=webhook_id)
    await session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.deleted_at.is_(None))
        .values(deleted_at=now),
    )


def check_url(url: str, *, allow_loopback: bool) -> None:
    """Refuse what can be seen from the text to lead nowhere a webhook may go.

    This spares the caller a surprise later; what protects the network is the
    check of the resolved address at every delivery.

    Raises:
        WebhookUrlRefused: with the rule that was broken.
    """
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise WebhookUrlRefused("write it in ASCII, without white space or backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WebhookUrlRefused("it is malformed") from error
    if parts.scheme not in {"https", "http"}:
        raise WebhookUrlRefused("the scheme is not https or http")
    if "@" in parts.netloc:
        raise WebhookUrlRefused("it carries credentials")
    if "#" in url:
        raise WebhookUrlRefused("it has a fragment, which is never sent")
    if port is not None and port not in {80, 443} and port < FIRST_UNPRIVILEGED_PORT:
        raise WebhookUrlRefused("the port is not 80, 443 or one from 1024 up")
    _check_host(parts, allow_loopback=allow_loopback)


def _check_host(parts: SplitResult, *, allow_loopback: bool) -> None:
    host = (parts.hostname or "").removesuffix(".")
    address = _address(host)
    if address is None:
        if not _HOST.fullmatch(host):
            raise WebhookUrlRefused("the host is missing or malformed")
        if _ENDS_IN_A_NUMBER.fullmatch(host):
            raise WebhookUrlRefused("the host is an address in a disguised form")
    is_loopback = (
        address.is_loopback
        if address is not None
        else host == "localhost" or host.endswith(".localhost")
    )
    if is_loopback and allow_loopback:
        return
    if is_loopback or (address is not None and not _is_public(address)):
        raise WebhookUrlRefused("the host is not a public one")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast


def _check_event_types(event_types: Sequence[str]) -> None:
    for event_type in event_types:
        if event_type not in SUBSCRIPTIONS[NOTIFY]:
            raise InvalidRequest(
                f"is none of {', '.join(SUBSCRIPTIONS[NOTIFY])}", field="event_types"
            )


def _new_webhook(tenant_id: TenantId, *, url: str) -> Webhook:
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    return Webhook(
        id=WebhookId(uuid4()), tenant_id=tenant_id, url=url, secret=SECRET_PREFIX + secret
    )
