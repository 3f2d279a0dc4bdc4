"""`GET /events`, the feed, and `GET /events/{id}`."""

from datetime import timedelta
from typing import Annotated

import msgspec
from litestar import Response, Router, get
from litestar.params import FromPath, QueryParameter

from gateway.context import ApiRequest
from gateway.events import queries
from gateway.events.feed import chosen_types, page_within, start_of
from gateway.http import paging
from gateway.http.problems import answers
from gateway.http.security import requires
from schemas.api.events import FeedPage
from schemas.api.scopes import Scope
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


@get(
    "/",
    summary="Read the feed of events",
    responses=answers(ErrorCode.CURSOR_EXPIRED, ErrorCode.TOO_MANY_WAITS),
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
        items=[msgspec.Raw(body) for body in page.bodies],
        next_cursor=paging.encode(page.end),
        has_more=page.has_more,
    )


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
    route_handlers=[list_events, get_event],
    opt=requires(Scope.WEBHOOKS_READ),
    tags=["events"],
)
