"""The feed of a tenant as an event stream."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import Final

import structlog
from litestar.types import Receive

from gateway.context import ApiRequest
from gateway.events import queries
from gateway.events.errors import CursorExpired
from gateway.events.feed import LATEST, position_of
from gateway.feed_tail import FeedListener, FeedPosition, Page
from gateway.http import paging, sse
from gateway.http.disconnect import on_disconnect
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

CAUGHT_UP_AT_ONCE: Final = 64
"""Events of one page for a stream that is behind. The stream holds them while its client takes them."""

SCANNED_AT_ONCE: Final = 256

OUTAGE_PAUSE: Final = timedelta(seconds=1)
"""Time between two attempts to read while the database is down; the client gets a comment."""


async def stream_start(
    request: ApiRequest, *, last_event_id: str, after: str | None
) -> FeedPosition:
    """Return the place where a stream begins: at the id, at the cursor, or at the end of the feed.

    Raises:
        InvalidRequest: the id or the cursor is not one of a feed.
        CursorExpired: events after the place were deleted.
    """
    statements = request.context.autocommit
    if last_event_id:
        place = position_of(last_event_id, field="Last-Event-ID")
    elif after and after != LATEST:
        place = position_of(after, field="after")
    else:
        return await queries.newest(statements, request.user.tenant_id)
    await queries.check_kept(statements, place)
    return place


def feed_stream(
    request: ApiRequest, *, place: FeedPosition, types: Collection[str]
) -> sse.EventStream:
    """Return an answer with the events after a place, which lasts until the client ends it."""
    context, caller = request.context, request.user

    async def read(place: FeedPosition) -> Page:
        async with context.feed_tails.reads:
            return await queries.page_after(
                context.autocommit,
                place,
                tenant_id=caller.tenant_id,
                types=types,
                limit=CAUGHT_UP_AT_ONCE,
                scanned_max=SCANNED_AT_ONCE,
            )

    async def send_events(write: sse.Write, receive: Receive) -> None:
        log.debug("feed.streamed")
        with (
            context.feed_tails.listening(caller.tenant_id) as listener,
            context.key_waits.counted(caller.key_id, end=listener.end),
        ):
            async with on_disconnect(receive, listener.end):
                await send_feed(listener, write, place=place, types=types, read=read)

    return sse.EventStream(send_events)


async def send_feed(
    listener: FeedListener,
    write: sse.Write,
    *,
    place: FeedPosition,
    types: Collection[str],
    read: Callable[[FeedPosition], Awaitable[Page]],
    heartbeat: timedelta = sse.HEARTBEAT,
) -> None:
    """Write the events of the chosen types after a place, and ids in between, until the end.

    An id without an event keeps the connection open, and moves the place to which a client resumes:
    a client that gets no event for weeks would otherwise resume at a place that has expired.

    Args:
        listener: of the tenant's tail.
        write: returns once the client has room for more; nothing else is sent meanwhile.
        place: where the stream begins.
        types: the chosen types.
        read: reads a page of the chosen types from the database.
        heartbeat: longest time without a byte.
    """
    tail, loop = listener.tail, asyncio.get_running_loop()
    await write(sse.position(paging.encode(place)))
    written_at = loop.time()
    while not listener.is_ended:
        if not tail.has(place):
            try:
                place = await _send_page(listener, write, place=place, read=read)
            except CursorExpired:
                # The client connects again, and the answer to that request is 410.
                return
            written_at = loop.time()
        elif event := tail.next_after(place):
            place = event.place
            if event.type in types:
                await write(event.encoded)
                written_at = loop.time()
        elif (left := written_at + heartbeat.total_seconds() - loop.time()) > 0:
            await listener.woken(within=timedelta(seconds=left))
        else:
            place = tail.end_after(place)
            await write(tail.encoded_end if place is tail.end else sse.COMMENT)
            written_at = loop.time()


async def _send_page(
    listener: FeedListener,
    write: sse.Write,
    *,
    place: FeedPosition,
    read: Callable[[FeedPosition], Awaitable[Page]],
) -> FeedPosition:
    """Write the next events from the database; return the place after them.

    While the database is down, writes a comment and returns the same place after a pause.

    Raises:
        CursorExpired: events after the place were deleted.
    """
    try:
        page = await read(place)
    except Exception as error:
        if not postgres.is_outage(error):
            raise
        await write(sse.COMMENT)
        await listener.woken(within=OUTAGE_PAUSE)
        return place
    events = deque(page.events)
    end = page.end
    # Each event is freed once it is written: the client may take minutes for all of them.
    del page
    if not events:
        await write(sse.position(paging.encode(end)))
    while events and not listener.is_ended:
        await write(events.popleft().encoded)
    return end
