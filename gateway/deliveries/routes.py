"""`/deliveries`, and the calls below `/webhooks/{id}` and `/events/{id}` that concern deliveries."""

from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from gateway.context import ApiRequest
from gateway.deliveries import ledger, listing, queries, testing
from gateway.deliveries.errors import DeliveryNotFound
from gateway.deliveries.listing import Filters
from gateway.deliveries.replay import replay
from gateway.deliveries.resend import resend
from gateway.events import queries as event_queries
from gateway.http import paging, request_log
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.prefer import Prefer
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import requires
from gateway.http.times import Time, time_of
from gateway.jobs.wait import answer_of
from gateway.uploads.routes import BACKLOG_ERRORS, settled_answer
from gateway.webhooks import queries as webhook_queries
from schemas.api.deliveries import (
    DeliveryDetails,
    DeliveryView,
    EndpointTest,
    LedgerView,
    ReplayDeliveries,
    SendExample,
)
from schemas.api.jobs import JobView
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import DeliveryId, EventId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent

Status = Annotated[
    DeliveryStatus | None,
    QueryParameter(description="only deliveries of this status", required=False),
]
EventType = Annotated[
    str | None,
    QueryParameter(
        max_length=100,
        pattern=r"^[^\x00]*$",
        description="only deliveries of events of this type",
        required=False,
    ),
]
OfEvent = Annotated[
    EventId | None, QueryParameter(description="only the delivery of this event", required=False)
]

_INACTIVE: Final = (ErrorCode.WEBHOOK_NOT_FOUND, ErrorCode.WEBHOOK_DISABLED)


class KeyedTest(msgspec.Struct, frozen=True, kw_only=True):
    """What the `Idempotency-Key` of a test is bound to."""

    webhook_id: WebhookId
    event_type: str


class KeyedReplay(msgspec.Struct, frozen=True, kw_only=True):
    """What the `Idempotency-Key` of a replay is bound to."""

    webhook_id: WebhookId
    request: ReplayDeliveries


@get(
    "/webhooks/{webhook_id:uuid}/deliveries",
    summary="List the deliveries of an endpoint",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.WEBHOOK_NOT_FOUND),
)
async def list_deliveries(  # one for each filter
    request: ApiRequest,
    *,
    webhook_id: FromPath[WebhookId],
    status: Status = None,
    event_type: EventType = None,
    event_id: OfEvent = None,
    since: Time = None,
    until: Time = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[DeliveryView]:
    """List deliveries, newest events first, each with its last attempt; also of a deleted endpoint.

    `since` and `until` bound the time of the event. A page with filters may have fewer items than
    `limit`, even none: follow `next_cursor` until it is null.
    """
    filters = Filters(
        status=status,
        event_type=event_type,
        event_id=event_id,
        since=time_of(since, field="since"),
        until=time_of(until, field="until"),
    )
    async with request.context.database.transaction() as session:
        await webhook_queries.webhook_of(
            session, tenant_id=request.user.tenant_id, webhook_id=webhook_id
        )
        return await listing.page_of_endpoint(
            session,
            filters,
            webhook_id=webhook_id,
            cursor=cursor,
            limit=min(limit, request.context.settings.page_size_max),
        )


@get(
    "/webhooks/{webhook_id:uuid}/deliveries/{delivery_id:uuid}",
    summary="Show a delivery of an endpoint",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.DELIVERY_NOT_FOUND),
)
async def get_delivery_of_webhook(
    request: ApiRequest, *, webhook_id: FromPath[WebhookId], delivery_id: FromPath[DeliveryId]
) -> DeliveryDetails:
    """Show a delivery with all its attempts, and its event as it is sent."""
    details = await _details(request, delivery_id)
    if details.delivery.webhook_id != webhook_id:
        raise DeliveryNotFound(delivery_id)
    return details


@get(
    "/deliveries/{delivery_id:uuid}",
    summary="Show a delivery",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.DELIVERY_NOT_FOUND),
)
async def get_delivery(
    request: ApiRequest, *, delivery_id: FromPath[DeliveryId]
) -> DeliveryDetails:
    """Show a delivery with all its attempts, and its event as it is sent."""
    return await _details(request, delivery_id)


@get(
    "/events/{event_id:uuid}/deliveries",
    summary="List the deliveries of an event",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.EVENT_NOT_FOUND),
)
async def list_deliveries_of_event(
    request: ApiRequest,
    *,
    event_id: FromPath[EventId],
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[DeliveryView]:
    """List the deliveries of an event to all endpoints, also to the callback of its upload."""
    async with request.context.database.transaction() as session:
        page = await listing.page_of_event(
            session,
            tenant_id=request.user.tenant_id,
            event_id=event_id,
            cursor=cursor,
            limit=min(limit, request.context.settings.page_size_max),
        )
    if not page.items and cursor is None:
        # An empty list for an unknown id would read as: no endpoint wanted the event.
        await event_queries.body_of(
            request.context.autocommit, tenant_id=request.user.tenant_id, event_id=event_id
        )
    return page


@post(
    "/deliveries/{delivery_id:uuid}/resend",
    summary="Send a delivery again",
    status_code=HTTPStatus.ACCEPTED,
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(
        ErrorCode.DELIVERY_NOT_FOUND,
        *_INACTIVE,
        ErrorCode.DELIVERY_EXHAUSTED,
        ErrorCode.EVENT_EXPIRED,
    ),
)
async def resend_delivery(
    request: ApiRequest, *, delivery_id: FromPath[DeliveryId]
) -> DeliveryView:
    """Make a delivery due now: an ended one becomes `pending` again, with the same event.

    A repetition changes nothing while the delivery is due. If the attempt fails, the delivery goes
    on in its schedule; after the end of the schedule it is `exhausted` again.
    """
    async with request.context.database.transaction() as session:
        return await resend(session, tenant_id=request.user.tenant_id, delivery_id=delivery_id)


@post(
    "/webhooks/{webhook_id:uuid}/ping",
    summary="Ping an endpoint",
    status_code=HTTPStatus.ACCEPTED,
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(*_INACTIVE, ErrorCode.IDEMPOTENCY_KEY_REUSED),
)
async def ping_webhook(
    request: ApiRequest,
    *,
    webhook_id: FromPath[WebhookId],
    idempotency_key: IdempotencyKey = None,
) -> EndpointTest:
    """Send the event `ping` to an endpoint, and to no other; a paused one receives it later."""
    keyed = KeyedTest(webhook_id=webhook_id, event_type="ping")
    async with request.context.database.transaction() as session:
        return await testing.ping(
            session,
            tenant_id=request.user.tenant_id,
            webhook_id=webhook_id,
            keyed=KeyedRequest.of(idempotency_key, operation="ping_webhook", request=keyed),
            traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
        )


@post(
    "/webhooks/{webhook_id:uuid}/test",
    summary="Send an example to an endpoint",
    status_code=HTTPStatus.ACCEPTED,
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(*BODY_ERRORS, *_INACTIVE, ErrorCode.IDEMPOTENCY_KEY_REUSED, has_json=True),
)
async def send_example(
    request: ApiRequest,
    *,
    webhook_id: FromPath[WebhookId],
    data: JSONBody[SendExample],
    idempotency_key: IdempotencyKey = None,
) -> EndpointTest:
    """Send the example of an event to an endpoint, and to no other.

    Its `source` is `/waybill/test`; its ids exist nowhere. The endpoint need not be subscribed to
    the type.
    """
    keyed = KeyedTest(webhook_id=webhook_id, event_type=data.event_type)
    async with request.context.database.transaction() as session:
        return await testing.send_example(
            session,
            data.event_type,
            tenant_id=request.user.tenant_id,
            webhook_id=webhook_id,
            keyed=KeyedRequest.of(idempotency_key, operation="send_example", request=keyed),
            traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
        )


@post(
    "/webhooks/{webhook_id:uuid}/replay",
    summary="Deliver the events of a time range again",
    status_code=HTTPStatus.ACCEPTED,
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(
        *BODY_ERRORS,
        *_INACTIVE,
        ErrorCode.WEBHOOK_BUSY,
        *BACKLOG_ERRORS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        has_json=True,
    )
    | settled_answer(JobView),
)
async def replay_webhook(
    request: ApiRequest,
    *,
    webhook_id: FromPath[WebhookId],
    data: JSONBody[ReplayDeliveries],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[JobView]:
    """Make deliveries of an endpoint due again, in the order of their events, at a limited rate.

    The job ends when all of them have their times; the log shows when each is sent. Deliveries that
    are pending are left as they are, so a repetition adds nothing. `result` of the job counts the
    deliveries that were `repeated`, and those that were `added` for events without one.
    """
    keyed = KeyedReplay(webhook_id=webhook_id, request=data)
    job = await replay(
        request.context,
        tenant_id=request.user.tenant_id,
        webhook_id=webhook_id,
        request=data,
        keyed=KeyedRequest.of(idempotency_key, operation="replay_webhook", request=keyed),
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )
    request_log.bind(job_id=job.job_id)
    answer = await answer_of(job, request=request)
    return Response(answer.job, status_code=answer.status_code, headers=answer.headers)


@get(
    "/webhooks/ledger",
    summary="Compare the deliveries of events with the log",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(),
)
async def get_ledger(request: ApiRequest, *, since: Time = None) -> LedgerView:
    """Count the deliveries that the events since a time have, and those in the log.

    By default the events of a day, at most those of 14 days; `is_complete` is false if there are too
    many for one call.
    """
    async with request.context.database.snapshot() as session:
        return await ledger.ledger_of(
            session, tenant_id=request.user.tenant_id, since=time_of(since, field="since")
        )


router = Router(
    "/",
    route_handlers=[
        get_ledger,
        list_deliveries,
        get_delivery_of_webhook,
        get_delivery,
        list_deliveries_of_event,
        resend_delivery,
        ping_webhook,
        send_example,
        replay_webhook,
    ],
    tags=["deliveries"],
)


async def _details(request: ApiRequest, delivery_id: DeliveryId) -> DeliveryDetails:
    """Return a tenant's delivery.

    Raises:
        DeliveryNotFound: the tenant has no such delivery.
    """
    async with request.context.database.snapshot() as session:
        delivery = await queries.delivery_of(
            session, tenant_id=request.user.tenant_id, delivery_id=delivery_id
        )
        return await queries.details_of(session, delivery)
