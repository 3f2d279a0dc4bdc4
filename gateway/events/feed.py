"""A page of the feed, for which a request may wait."""

import asyncio
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from gateway.context import ApiRequest
from gateway.events import queries
from gateway.feed_tail import FeedPosition, Page
from gateway.feed_watch import READ_INTERVAL
from gateway.http import paging
from gateway.http.disconnect import on_disconnect
from gateway.http.problems import InvalidRequest
from schemas.policy import event_filters

LATEST: Final = "latest"
"""Instead of a cursor: the end of the feed, for a reader that wants only new events."""


def chosen_types(filters: list[str] | None) -> Collection[str]:
    """Return the types that filters select; no filter selects every type.

    Raises:
        InvalidRequest: a filter selects no type.
    """
    try:
        chosen = event_filters.check_types(filters or [], known=queries.FEED_TYPES)
    except event_filters.EventTypeUnknown as error:
        raise InvalidRequest(str(error), field="types") from error
    return [each for each in queries.FEED_TYPES if event_filters.selects(chosen, each)]


async def start_of(request: ApiRequest, after: str | None) -> FeedPosition | None:
    """Return the place that `after` names; None is the beginning.

    Raises:
        InvalidRequest: it is not a cursor of a feed.
    """
    if after == LATEST:
        return await queries.newest(request.context.autocommit, request.user.tenant_id)
    return None if after is None else position_of(after, field="after")


def position_of(cursor: str, *, field: str) -> FeedPosition:
    """Return the place that a cursor names.

    Raises:
        InvalidRequest: it is not a cursor of a feed; the error names the field.
    """
    try:
        return paging.decode(cursor, to=FeedPosition)
    except InvalidRequest as error:
        raise InvalidRequest(error.reason, field=field) from error


async def page_within(
    wait: timedelta,
    *,
    request: ApiRequest,
    after: FeedPosition | None,
    types: Collection[str],
    limit: int,
) -> Page:
    """Return the next page once it has an event, or an empty one when the wait ends.

    Raises:
        CursorExpired: events after the place were deleted.
        TooManyWaits: too many requests of the API key wait.
    """
    context, tenant_id = request.context, request.user.tenant_id

    async def read(place: FeedPosition | None) -> Page:
        return await queries.page_after(
            context.autocommit, place, tenant_id=tenant_id, types=types, limit=limit
        )

    if not wait:
        return await read(after)
    context.key_waits.check(request.user.key_id)
    deadline = asyncio.get_running_loop().time() + wait.total_seconds()
    with (
        context.feed_watch.waiting(tenant_id) as changes,
        context.key_waits.counted(request.user.key_id, end=changes.end),
    ):
        async with on_disconnect(request.receive, changes.end):
            while True:
                page = await read(after)
                left = timedelta(seconds=deadline - asyncio.get_running_loop().time())
                if page.events or page.has_more or changes.is_ended or left <= timedelta():
                    return page
                # The events that were read and not selected are not read again.
                after = page.end
                await changes.news(within=min(left, READ_INTERVAL))
