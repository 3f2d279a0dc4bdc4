"""One request and its answer, on a connection of `gateway.http.protocol`."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.http import problems, sse
from schemas.api.problems import Problem
from schemas.errors import ErrorCode

log = structlog.stdlib.get_logger(__name__)

DISCONNECT: Final[Any] = {"type": "http.disconnect"}


class Exchange(RequestResponseCycle):
    """A request with the framing, and the end, that its client understands.

    - An answer to HTTP/1.0 without a length ends with the connection (RFC 9112, section 6.1).
    - An answer to HEAD ends after its head, however long the answer to GET would take.
    - A client that sends nothing more can still receive: see `cut`.
    - An answer in place of the body that a client offered with `Expect` closes the connection.
      Clients differ in whether they then send that body, and it would be read as a request.
    """

    _is_cut = False
    _has_body_been_received = False
    _is_event_stream = False
    _ends_with_connection = False

    @property
    def _is_head(self) -> bool:
        return self.scope["method"] == "HEAD"

    @property
    def is_cut_short(self) -> bool:
        """Whether a part of the answer is sent, and the rest is not."""
        return self.response_started and not self.response_complete

    def cut(self) -> None:
        """Note that the client sends nothing more.

        The application gets the body if it is complete, then a disconnect: it stops waiting and
        answers. The client may have closed only its side, and takes the answer.
        """
        self._is_cut = True
        self.message_event.set()

    def disconnect(self) -> None:
        """Drop the answer: the connection is lost."""
        self.disconnected = True
        self.message_event.set()

    async def run_asgi(self, app: Any) -> None:  # noqa: ANN401  # the server's own type is private
        async def run_and_end_stream(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # see above
            await app(scope, receive, send)
            if self._is_cut and self._is_event_stream and not self.response_complete:
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await super().run_asgi(run_and_end_stream)

    async def receive(self) -> Any:  # noqa: ANN401  # see above
        while not self._must_stop():
            had_body = self._has_body_been_received
            message = await super().receive()
            if self._must_stop():
                break
            self._has_body_been_received = not self.more_body
            # A cut wakes up an application that has the body, but may not stop it.
            if not had_body or message == DISCONNECT:
                return message
        return DISCONNECT

    async def send(self, message: Any) -> None:  # noqa: ANN401  # see above
        if message["type"] == "http.response.start" and not self.response_started:
            await self._start(message)
        elif not (self._is_head and self.response_complete):
            if self._ends_with_connection:
                self.expected_content_length = len(message.get("body", b""))
            await super().send(message)

    def _must_stop(self) -> bool:
        if not self._is_cut:
            # HEAD has no body, and nothing to wait for.
            return self._is_head and self._has_body_been_received
        if self.more_body:
            return True
        # A finite answer goes on to its end. An event stream has none that the client could await.
        return self._has_body_been_received and (self._is_event_stream or not self.response_started)

    async def _start(self, message: Any) -> None:  # noqa: ANN401  # see above
        fields = {name.lower(): value for name, value in message.get("headers", ())}
        self._is_event_stream = fields.get(b"content-type", b"").startswith(sse.MEDIA_TYPE.encode())
        if self.waiting_for_100_continue and self.more_body:
            self.keep_alive = False
        if self.scope["http_version"] == "1.0" and b"content-length" not in fields:
            self._ends_with_connection = not self._is_head
            self.chunked_encoding = False
        await super().send(message)
        if self._is_head:
            await super().send({"type": "http.response.body", "body": b"", "more_body": False})


def refusal(status: HTTPStatus, detail: str) -> Callable[..., Any]:
    """Return an application that answers a request which never reaches the real one."""
    body = msgspec.json.encode(
        Problem(
            type=f"urn:waybill:problem:{ErrorCode.INVALID_REQUEST}",
            title="Invalid request",
            status=status,
            code=ErrorCode.INVALID_REQUEST,
            detail=detail,
        )
    )
    fields = {
        "content-type": problems.MEDIA_TYPE,
        "content-length": str(len(body)),
        "connection": "close",
        **problems.HEADERS,
    }

    async def refuse(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001  # see above
        log.info("http.refused", status=status.value, detail=detail)
        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return refuse
