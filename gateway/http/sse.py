"""Encodes Server-Sent Events, and sends a heartbeat while there is no event.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from typing import Final

MEDIA_TYPE: Final = "text/event-stream"

HEARTBEAT: Final = timedelta(seconds=15)
"""Proxies close a connection that is silent for longer, often after 60 s, some after 30 s."""

RETRY: Final = b"retry: 1000\n\n"
"""Milliseconds until a client reconnects after its stream broke."""

COMMENT: Final = b":\n\n"

ID_DIGITS_MAX: Final = 19
"""Of a signed number of 64 bits."""


def event(name: str, *, event_id: int, data: bytes) -> bytes:
    """Return one event.

    Args:
        name: name of the event.
        event_id: the client sends it back as `Last-Event-ID` when it reconnects.
        data: text without line breaks.
    """
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event_id, name.encode(), data)


def last_event_id(field: str, *, newest: int) -> int:
    """Return the id in the field `Last-Event-ID`; 0 if no event can have had it.

    A client that sends a wrong id, for example of another job, must still get the last event:
    EventSource would otherwise wait for it for ever.

    Args:
        field: the value of the field; empty without the field.
        newest: the id of the newest event.
    """
    # The limit keeps a huge number from being parsed, which takes quadratic time.
    if not (field.isascii() and field.isdecimal() and len(field) <= ID_DIGITS_MAX):
        return 0
    return int(field) if int(field) <= newest else 0


async def stream(
    events: AsyncGenerator[bytes, None], *, heartbeat: timedelta = HEARTBEAT
) -> AsyncIterator[bytes]:
    """Yield the events, and a comment whenever there was none for `heartbeat`.

    The next event is requested only once the client has taken the last one: a slow client
    gets the newest state, not a backlog.
    """
    yield RETRY
    upcoming: asyncio.Task[bytes | None] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.create_task(anext(events, None))
            await asyncio.wait([upcoming], timeout=heartbeat.total_seconds())
            if not upcoming.done():
                yield COMMENT
                continue
            sent = upcoming.result()
            if sent is None:
                return
            upcoming = None
            yield sent
    finally:
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()
