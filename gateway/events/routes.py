"""`GET /events`, the feed, its stream, and `GET /events/{id}`."""

from datetime import timedelta
from typing import Annotated

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from gateway.context import ApiRequest
from gateway.db import transaction_time
from gateway.events import queries
from gateway.events.feed import chosen_types, page_within, start_of
from gateway.events.stream import feed_stream, stream_start
from gateway.http import paging, sse, stream_tokens
from gateway.http.problems import answers
from gateway.http.security import SENDS_STREAM, requires
from gateway.http.stream_tokens import StreamToken
from gateway.http.wait_limit import WAIT_ERRORS
from gateway.settings import API_PREFIX
from schemas.api.events import FeedPage
from schemas.api.scopes import Scope
from schemas.api.streams import StreamTokenCreated
from schemas.errors import ErrorCode
from schemas.events.envelope import CONTENT_TYPE
from schemas.ids import EventId

After = Annotated[
    str | None,
    QueryParameter(
        max_length=512,
        required=False,
        description="`next_cursor` of the page before, or `latest` for the end of the feed; by default"
        " the oldest event that is stored",
    ),
]
Types = Annotated[
    list[str] | None,
    QueryParameter(
        max_items=50,
        required=False,
        description="only these types, or `document.*`; repeatable. By default every type",
    ),
]
Wait = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=2**31 - 1,
        description="seconds to hold the request until there is an event; capped by the server",
    ),
]
StreamAfter = Annotated[
    str | None,
    QueryParameter(
        max_length=512,
        required=False,
        description="`next_cursor` of a page of `GET /events`, or the `id` of an event of this stream; by"
        " default, and with `latest`, only new events are sent",
    ),
]
LastEventId = Annotated[
    str,
    HeaderParameter(
        name="Last-Event-ID",
        max_length=512,
        description="`id` of the last event that the client received; later ones are sent. It counts"
        " instead of `after`",
    ),
]
Token = Annotated[
    str | None,
    QueryParameter(
        description="from `POST /events/stream-token`, instead of an `Authorization` header",
        required=False,
    ),
]


@get(
    "/",
    summary="Read the feed of events",
    responses=answers(ErrorCode.CURSOR_EXPIRED, *WAIT_ERRORS),
)
async def list_events(
    request: ApiRequest,
    *,
    after: After = None,
    types: Types = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
    wait: Wait = 0,
) -> FeedPage:
    """Return the tenant's events after a cursor, oldest first, as webhooks carry them.

    A reader that continues with `next_cursor` gets every event once. An event is in the feed about
    0.2 s after it happened. With `types` a page may have no events although `has_more` is true.
    """
    settings = request.context.settings
    chosen = chosen_types(types)
    page = await page_within(
        min(timedelta(seconds=wait), settings.wait_max),
        request=request,
        after=await start_of(request, after),
        types=chosen,
        limit=min(limit, settings.page_size_max),
    )
    return FeedPage(
        items=[msgspec.Raw(event.body) for event in page.events],
        next_cursor=paging.encode(page.end),
        has_more=page.has_more,
    )


@get(
    "/stream",
    summary="Follow the feed of events",
    opt={SENDS_STREAM: True},
    media_type=sse.MEDIA_TYPE,
    responses=answers(ErrorCode.CURSOR_EXPIRED, *WAIT_ERRORS),
)
async def follow_feed(
    request: ApiRequest,
    *,
    last_event_id: LastEventId = "",
    after: StreamAfter = None,
    types: Types = None,
    token: Token = None,  # noqa: ARG001  # the authentication reads it
) -> Stream:
    """Send the tenant's events as Server-Sent Events, in the order of the feed, without an end.

    Events are named after their type; their data is the event as webhooks carry it, and their id is
    a cursor, which also works as `after` of `GET /events`. A client that reconnects with the last id
    misses no event. Every 15 seconds without an event the stream has an id without an event, or a
    comment. The progress of jobs is no part of the feed: `GET /jobs/{job_id}/events` has it.
    """
    chosen = frozenset(chosen_types(types))
    request.context.key_waits.check(request.user.key_id)
    place = await stream_start(request, last_event_id=last_event_id, after=after)
    return feed_stream(request, place=place, types=chosen)


@post(
    "/stream-token",
    summary="Create a token that follows the feed",
    responses=answers(),
)
async def create_feed_token(request: ApiRequest) -> StreamTokenCreated:
    """Return a URL for `EventSource`, which cannot send an `Authorization` header.

    The token in it opens `GET /events/stream` and nothing else, until it expires or the API key of
    this request is revoked or expires.
    """
    caller, context = request.user, request.context
    async with context.database.transaction() as session:
        now = await transaction_time(session)
    token = StreamToken(
        tenant_id=caller.tenant_id,
        job_id=None,
        key_id=caller.key_id,
        expires_at=stream_tokens.expiry(now, lifetime=context.settings.stream_token_ttl),
    )
    return stream_tokens.issued(token, keys=context.secret_keys, path=f"{API_PREFIX}/events/stream")


@get(
    "/{event_id:uuid}",
    summary="Get an event",
    media_type=CONTENT_TYPE,
    responses=answers(ErrorCode.EVENT_NOT_FOUND),
)
async def get_event(request: ApiRequest, *, event_id: FromPath[EventId]) -> Response[bytes]:
    """Return an event, byte for byte as its webhooks carry it; also one that tested an endpoint."""
    body = await queries.body_of(
        request.context.autocommit, tenant_id=request.user.tenant_id, event_id=event_id
    )
    return Response(body, media_type=CONTENT_TYPE)


router = Router(
    "/events",
    route_handlers=[list_events, follow_feed, create_feed_token, get_event],
    opt=requires(Scope.WEBHOOKS_READ),
    tags=["events"],
)
