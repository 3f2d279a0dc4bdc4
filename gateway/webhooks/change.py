"""Changes, enables and deletes endpoints."""

from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.http.problems import InvalidRequest
from gateway.http.security import Caller
from gateway.webhooks import audit, checks, queries, view
from gateway.webhooks.errors import WebhookDisabled
from schemas.api.webhooks import UpdateWebhook, WebhookView
from schemas.ids import WebhookId
from schemas.key_ring import KeyRing
from schemas.lifecycle import DeliveryStatus, DiscardReason, EndpointState
from schemas.policy import event_filters, webhook_headers, webhook_urls
from schemas.tables.deliveries import Delivery, DeliveryQueue, make_queue_due
from schemas.tables.webhooks import Webhook, WebhookSecret

log = structlog.stdlib.get_logger(__name__)

DISCARDED_AT_ONCE: Final = 1_000
"""Pending deliveries that are discarded with their endpoint; the owner of the queue does the rest."""


async def change_webhook(
    context: Context, *, caller: Caller, webhook_id: WebhookId, request: UpdateWebhook
) -> WebhookView:
    """Apply a merge patch (RFC 7396) to an endpoint.

    A new URL keeps the secrets. Filters and `ordered` apply to later events; everything else applies
    to pending deliveries too.

    Raises:
        WebhookNotFound: the tenant has no such endpoint.
        TargetRefused: the URL is not allowed.
        InvalidRequest: no endpoint receives one of the event types, or the timeout or a header is
            not allowed.
        WebhookDisabled: `state` is given, and the endpoint is disabled.
    """
    if request.url is not msgspec.UNSET:
        webhook_urls.check(request.url, allowed_networks=context.settings.webhook_allowed)
    async with context.database.transaction() as session:
        webhook = await queries.live_webhook_of(
            session, tenant_id=caller.tenant_id, webhook_id=webhook_id, lock=True
        )
        changed = {
            name: value
            for name, value in _values(request, webhook=webhook, context=context).items()
            if getattr(webhook, name) != value
        }
        changed |= await _state(session, request, webhook=webhook)
        if changed:
            for name, value in changed.items():
                setattr(webhook, name, value)
            await session.flush()
            audit.record(session, webhook, caller=caller, action="changed", fields=sorted(changed))
            if "url" in changed:
                await _forget_failures(session, webhook_id)
            elif "paused_at" in changed:
                await session.execute(make_queue_due(webhook_id))
            log.info("webhook.changed", webhook_id=str(webhook_id), fields=sorted(changed))
        secrets = await queries.secrets_of(session, webhook_id)
    return view.show(webhook, secrets, keys=context.secret_keys)


async def enable_webhook(context: Context, *, caller: Caller, webhook_id: WebhookId) -> WebhookView:
    """Make a disabled or paused endpoint active; it counts as one that never failed. Idempotent.

    Raises:
        WebhookNotFound: the tenant has no such endpoint.
    """
    async with context.database.transaction() as session:
        webhook = await queries.live_webhook_of(
            session, tenant_id=caller.tenant_id, webhook_id=webhook_id, lock=True
        )
        if view.state_of(webhook) != EndpointState.ACTIVE:
            webhook.disabled_at = webhook.disabled_reason = webhook.paused_at = None
            await session.flush()
            await _forget_failures(session, webhook_id)
            audit.record(session, webhook, caller=caller, action="enabled")
            log.info("webhook.enabled", webhook_id=str(webhook_id))
        secrets = await queries.secrets_of(session, webhook_id)
    return view.show(webhook, secrets, keys=context.secret_keys)


async def delete_webhook(context: Context, *, caller: Caller, webhook_id: WebhookId) -> None:
    """Delete an endpoint with its secrets; the log of its deliveries is kept. Idempotent.

    Pending deliveries are discarded: the first here, the rest by the owner of the queue.

    Raises:
        WebhookNotFound: the tenant never had such an endpoint.
    """
    async with context.database.transaction() as session:
        webhook = await queries.webhook_of(
            session, tenant_id=caller.tenant_id, webhook_id=webhook_id, lock=True
        )
        if webhook.deleted_at is not None:
            return
        await session.execute(
            update(Webhook)
            .where(Webhook.id == webhook_id)
            .values(deleted_at=func.now(), headers=None)
        )
        # Nothing needs them any more.
        await session.execute(delete(WebhookSecret).where(WebhookSecret.webhook_id == webhook_id))
        await _discard(session, webhook_id)
        await session.execute(make_queue_due(webhook_id))
        audit.record(session, webhook, caller=caller, action="deleted")
    log.info("webhook.deleted", webhook_id=str(webhook_id))


def _values(request: UpdateWebhook, *, webhook: Webhook, context: Context) -> dict[str, Any]:
    """Return the columns that the request gives, without the state; see `change_webhook`."""
    values: dict[str, Any] = {}
    if request.url is not msgspec.UNSET:
        values["url"] = request.url
    if request.event_types is not msgspec.UNSET:
        values["event_types"] = checks.event_types_of(request.event_types or ())
    if request.metadata_filter is not msgspec.UNSET:
        values["metadata_filter"] = _merged(webhook.metadata_filter, request.metadata_filter)
    if request.headers is not msgspec.UNSET:
        values |= _headers(request, webhook=webhook, keys=context.secret_keys)
    if request.timeout is not msgspec.UNSET:
        values["timeout"] = checks.timeout_of(
            request.timeout, longest=context.settings.webhook_timeout_max
        )
    if request.ordered is not msgspec.UNSET:
        values["ordered"] = bool(request.ordered)
    for name in ("description", "concurrency", "rate"):
        if getattr(request, name) is not msgspec.UNSET:
            values[name] = getattr(request, name)
    return values


def _headers(request: UpdateWebhook, *, webhook: Webhook, keys: KeyRing) -> dict[str, str | None]:
    """Return the encrypted headers, if they differ from the present ones."""
    given = request.headers or ()
    present = (
        webhook_headers.decrypt(webhook.headers, webhook_id=webhook.id, keys=keys) if given else ()
    )
    headers = checks.headers_of(given, present=present)
    if given and headers == present:
        return {}
    return {"headers": webhook_headers.encrypt(headers, webhook_id=webhook.id, keys=keys)}


def _merged(
    present: dict[str, str] | None, patch: dict[str, str | None] | None
) -> dict[str, str] | None:
    """Return the filter that a merge patch makes of the present one.

    Raises:
        InvalidRequest: the filter would have too many members.
    """
    if patch is None:
        return None
    merged = {
        name: value for name, value in ({**(present or {}), **patch}).items() if value is not None
    }
    if len(merged) > event_filters.METADATA_COUNT_MAX:
        raise InvalidRequest(
            f"would have more than {event_filters.METADATA_COUNT_MAX} members",
            field="metadata_filter",
        )
    return merged or None


async def _state(
    session: AsyncSession, request: UpdateWebhook, *, webhook: Webhook
) -> dict[str, Any]:
    """Return the change of `paused_at` for the wanted state.

    Raises:
        WebhookDisabled: the endpoint is disabled.
    """
    if request.state is msgspec.UNSET:
        return {}
    wanted, present = EndpointState(request.state), view.state_of(webhook)
    if wanted == present:
        return {}
    if present == EndpointState.DISABLED:
        raise WebhookDisabled(webhook.id)
    if wanted == EndpointState.ACTIVE:
        return {"paused_at": None}
    return {"paused_at": (await session.scalars(select(func.now()))).one()}


async def _discard(session: AsyncSession, webhook_id: WebhookId) -> None:
    """Discard the first pending deliveries, except those that an attempt is recorded for just now.

    Waiting for such a row could be a deadlock, as the record locks many rows.
    """
    pending = (
        select(Delivery.id)
        .where(Delivery.webhook_id == webhook_id, Delivery.status == DeliveryStatus.PENDING)
        .limit(DISCARDED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await session.execute(
        update(Delivery)
        .where(Delivery.id.in_((await session.scalars(pending)).all()))
        .values(
            status=DeliveryStatus.DISCARDED,
            reason=DiscardReason.ENDPOINT_DELETED,
            next_attempt_at=None,
            settled_at=func.now(),
        )
    )


async def _forget_failures(session: AsyncSession, webhook_id: WebhookId) -> None:
    """Wake the owner of the queue, for an endpoint that counts as one that never failed."""
    await session.execute(
        update(DeliveryQueue)
        .where(DeliveryQueue.webhook_id == webhook_id)
        .values(due_at=func.now(), failing_since=None, failures=0, blocked_until=None, throttles=0)
    )
