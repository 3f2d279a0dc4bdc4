"""Server-Sent Events: their encoding, and the answer that sends them.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeAlias

from litestar import Litestar, Request
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Send

MEDIA_TYPE: Final = "text/event-stream"

HEARTBEAT: Final = timedelta(seconds=15)
"""Proxies close a connection that is silent for longer, often after 60 s, some after 30 s."""

RETRY: Final = b"retry: 1000\n\n"
"""Milliseconds until a client reconnects after its stream broke."""

COMMENT: Final = b":\n\n"

Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Returns once the client has room for more."""

SendEvents: TypeAlias = Callable[[Write, Receive], Awaitable[None]]

ID_DIGITS_MAX: Final = 19
"""Of a signed number of 64 bits."""


def event(name: str, *, event_id: int | str, data: bytes) -> bytes:
    """Return one event.

    Args:
        name: name of the event.
        event_id: the client sends it back as `Last-Event-ID` when it reconnects.
        data: text without line breaks.
    """
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(event_id).encode(), name.encode(), data)


def position(event_id: str) -> bytes:
    """Return an id without an event: a client that reconnects sends this id."""
    return b"id: %b\n\n" % event_id.encode()


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


class EventStream(Stream):
    """An answer of Server-Sent Events.

    Litestar's own `Stream` costs an idle listener one more task, a task group and a generator.

    Args:
        send_events: sends the events with the function that it gets, and returns when the stream
            ends; also when the client has disconnected, which it learns from the other argument.
    """

    def __init__(self, send_events: SendEvents) -> None:
        # Otherwise nginx would delay events until its buffer is full.
        super().__init__((), media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
        self._send_events = send_events

    def to_asgi_response(
        self,
        app: Litestar | None,  # noqa: ARG002  # the framework's own signature
        request: Request[Any, Any, Any],  # noqa: ARG002
        *,
        headers: dict[str, str] | None = None,
        is_head_response: bool = False,
        **_: object,
    ) -> ASGIResponse:
        return _ASGIEventStream(
            self._send_events,
            headers={**(headers or {}), **self.headers},
            is_head_response=is_head_response,
        )


class _ASGIEventStream(ASGIResponse):
    __slots__ = ("_send_events",)

    _should_set_content_length = False

    def __init__(
        self, send_events: SendEvents, *, headers: dict[str, str], is_head_response: bool
    ) -> None:
        super().__init__(headers=headers, media_type=MEDIA_TYPE, is_head_response=is_head_response)
        self._send_events = send_events

    async def send_body(self, send: Send, receive: Receive) -> None:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await write(RETRY)
        await self._send_events(write, receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
