"""`/webhooks`: endpoints that receive a tenant's events."""

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from gateway.context import ApiRequest
from gateway.http import paging
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import requires
from gateway.settings import API_PREFIX
from gateway.webhooks import operations, queries
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.api.webhooks import CreateWebhook, WebhookCreated, WebhookView
from schemas.errors import ErrorCode
from schemas.ids import WebhookId
from schemas.tables.webhooks import Webhook


@post(
    "/",
    summary="Register an endpoint",
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(
        *BODY_ERRORS,
        ErrorCode.WEBHOOK_URL_REFUSED,
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
    404 `webhook_not_found` if the endpoint was removed since.
    """
    async with request.context.database.transaction() as session:
        created = await operations.create_webhook(
            session,
            tenant_id=request.user.tenant_id,
            request=data,
            keyed=KeyedRequest.of(idempotency_key, operation="create_webhook", request=data),
            allowed_networks=request.context.settings.webhook_allowed,
            keys=request.context.secret_keys,
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
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[WebhookView]:
    """List the tenant's endpoints, newest first."""
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        return await paging.newest_first(
            session,
            queries.webhooks_of(request.user.tenant_id),
            Webhook,
            cursor=cursor,
            limit=limit,
            show=queries.show,
        )


@get(
    "/{webhook_id:uuid}",
    summary="Get an endpoint",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.WEBHOOK_NOT_FOUND),
)
async def get_webhook(request: ApiRequest, *, webhook_id: FromPath[WebhookId]) -> WebhookView:
    """Return an endpoint, and whether it is enabled."""
    async with request.context.database.transaction() as session:
        webhook = await queries.live_webhook_of(
            session, tenant_id=request.user.tenant_id, webhook_id=webhook_id
        )
    return queries.show(webhook)


@delete(
    "/{webhook_id:uuid}",
    summary="Remove an endpoint",
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(ErrorCode.WEBHOOK_NOT_FOUND),
)
async def delete_webhook(request: ApiRequest, *, webhook_id: FromPath[WebhookId]) -> None:
    """Remove an endpoint; it receives no more events."""
    async with request.context.database.transaction() as session:
        await operations.delete_webhook(
            session,
            tenant_id=request.user.tenant_id,
            webhook_id=webhook_id,
        )


router = Router(
    "/webhooks",
    route_handlers=[create_webhook, list_webhooks, get_webhook, delete_webhook],
    tags=["webhooks"],
)
