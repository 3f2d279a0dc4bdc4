"""`/webhooks`: endpoints that receive a tenant's events."""

from http import HTTPStatus

from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody

from gateway.context import ApiRequest
from gateway.http import paging
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import requires
from gateway.settings import API_PREFIX
from gateway.webhooks import change, create, queries, secret_routes, view
from gateway.webhooks.health import health_of
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.api.webhooks import (
    CreateWebhook,
    UpdateWebhook,
    WebhookCreated,
    WebhookDetail,
    WebhookView,
)
from schemas.errors import ErrorCode
from schemas.ids import UploadId, WebhookId
from schemas.tables.webhooks import Webhook


@post(
    "/",
    summary="Register an endpoint",
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(
        *BODY_ERRORS,
        ErrorCode.WEBHOOK_URL_REFUSED,
        ErrorCode.TOO_MANY_WEBHOOKS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        ErrorCode.WEBHOOK_NOT_FOUND,
        has_json=True,
    ),
)
async def create_webhook(
    request: ApiRequest,
    *,
    data: JSONBody[CreateWebhook],
    idempotency_key: IdempotencyKey = None,
) -> Response[WebhookCreated]:
    """Return the endpoint with the secret that verifies its signatures; the secret is not shown again.

    A repetition with the same `Idempotency-Key` returns the same endpoint with `secret: null`, or
    404 `webhook_not_found` if the endpoint was removed since. A client that lost the first answer
    rotates the secret.
    """
    context = request.context
    created = await create.create_webhook(
        context,
        caller=request.user,
        request=data,
        keyed=KeyedRequest.of(
            idempotency_key,
            operation="create_webhook",
            request=create.hashable(data, keys=context.secret_keys),
        ),
    )
    return Response(created, headers={"Location": f"{API_PREFIX}/webhooks/{created.webhook_id}"})


@get(
    "/",
    summary="List endpoints",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(),
)
async def list_webhooks(
    request: ApiRequest,
    *,
    upload_id: FromQuery[UploadId | None] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[WebhookView]:
    """List the tenant's endpoints, newest first; with `upload_id` the callback of that upload."""
    keys = request.context.secret_keys
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        page = await paging.newest_first(
            session,
            queries.webhooks_of(request.user.tenant_id, upload_id=upload_id),
            Webhook,
            cursor=cursor,
            limit=limit,
            show=lambda webhook: webhook,
        )
        secrets = await queries.secrets_by_webhook(session, [each.id for each in page.items])
    return PageOf(
        items=[view.show(each, secrets[each.id], keys=keys) for each in page.items],
        next_cursor=page.next_cursor,
    )


@get(
    "/{webhook_id:uuid}",
    summary="Get an endpoint",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.WEBHOOK_NOT_FOUND),
)
async def get_webhook(request: ApiRequest, *, webhook_id: FromPath[WebhookId]) -> WebhookDetail:
    """Return an endpoint, or the callback of an upload, with its health."""
    async with request.context.database.transaction() as session:
        webhook = await queries.live_webhook_of(
            session, tenant_id=request.user.tenant_id, webhook_id=webhook_id
        )
        secrets = await queries.secrets_of(session, webhook_id)
        health = await health_of(session, webhook_id)
    return view.show_detail(webhook, secrets, health=health, keys=request.context.secret_keys)


@patch(
    "/{webhook_id:uuid}",
    summary="Change an endpoint",
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(
        *BODY_ERRORS,
        ErrorCode.WEBHOOK_NOT_FOUND,
        ErrorCode.WEBHOOK_URL_REFUSED,
        ErrorCode.WEBHOOK_DISABLED,
        has_json=True,
    ),
)
async def change_webhook(
    request: ApiRequest, *, webhook_id: FromPath[WebhookId], data: JSONBody[UpdateWebhook]
) -> WebhookView:
    """Change the given fields, as a merge patch (RFC 7396); the secrets stay.

    Filters and `ordered` apply to later events, the other fields to pending deliveries too.
    Deliveries of a paused endpoint wait. A disabled endpoint has to be enabled first.
    """
    return await change.change_webhook(
        request.context, caller=request.user, webhook_id=webhook_id, request=data
    )


@post(
    "/{webhook_id:uuid}/enable",
    summary="Enable an endpoint",
    status_code=HTTPStatus.OK,
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(ErrorCode.WEBHOOK_NOT_FOUND),
)
async def enable_webhook(request: ApiRequest, *, webhook_id: FromPath[WebhookId]) -> WebhookView:
    """Make a disabled or paused endpoint active again; its earlier failures do not count any more.

    Events of the time when it was disabled are kept, and can be replayed.
    """
    return await change.enable_webhook(request.context, caller=request.user, webhook_id=webhook_id)


@delete(
    "/{webhook_id:uuid}",
    summary="Remove an endpoint",
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(ErrorCode.WEBHOOK_NOT_FOUND),
)
async def delete_webhook(request: ApiRequest, *, webhook_id: FromPath[WebhookId]) -> None:
    """Remove an endpoint; it receives no more events, and pending deliveries are discarded."""
    await change.delete_webhook(request.context, caller=request.user, webhook_id=webhook_id)


router = Router(
    "/webhooks",
    route_handlers=[
        create_webhook,
        list_webhooks,
        get_webhook,
        change_webhook,
        enable_webhook,
        delete_webhook,
        secret_routes.rotate_secret,
        secret_routes.end_secret,
    ],
    tags=["webhooks"],
)
