"""One request and its answer, on a connection of `gateway.http.protocol`."""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.http import problems, request_log, sse
from schemas.api.problems import Problem
from schemas.errors import ErrorCode

DISCONNECT: Final[Any] = {"type": "http.disconnect"}
END: Final[Any] = {"type": "http.response.body", "body": b"", "more_body": False}

EVENT_STREAM: Final = sse.MEDIA_TYPE.encode()


class _Answered(asyncio.Transport):
    """The transport of an exchange whose answer is sent: nothing happens to the connection."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


ANSWERED: Final = _Answered()


class Exchange(RequestResponseCycle):
    """A request with the framing, and the end, that its client understands.

    - An answer to HTTP/1.0 without a length ends with the connection (RFC 9112, section 6.1).
    - An answer to HEAD ends after its head, however long the answer to GET would take.
    - A client that sends nothing more can still receive: see `cut`.
    - An answer in place of the body that a client offered with `Expect` closes the connection.
      Clients differ in whether they then send that body, and it would be read as a request.
    """

    is_body_awaited = False
    """Whether the application has asked for the body."""

    _is_cut = False
    _has_body_been_received = False
    _is_event_stream = False
    _ends_with_connection = False

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

    async def receive(self) -> Any:  # noqa: ANN401  # the server's own type is private
        self.is_body_awaited = True
        while not self._must_stop():
            had_body = self._has_body_been_received
            message = await super().receive()
            if self._must_stop():
                break
            self._has_body_been_received = not self.more_body
            # A cut wakes up an application that has the body, but may not stop it.
            if not had_body or message["type"] == "http.disconnect":
                return message
        if self._is_event_stream and not self.response_complete:
            await self._send(END)
        return DISCONNECT

    async def send(self, message: Any) -> None:  # noqa: ANN401  # see above
        if message["type"] == "http.response.start" and not self.response_started:
            await self._start(message)
            return
        if self.response_complete and (self._is_cut or self.scope["method"] == "HEAD"):
            return
        if self._ends_with_connection:
            self.expected_content_length = len(message.get("body", b""))
        await self._send(message)

    async def _send(self, message: Any) -> None:  # noqa: ANN401  # see above
        await super().send(message)
        if self.response_complete:
            # The connection belongs to the next request, also if this application still fails.
            self.transport = ANSWERED

    def _must_stop(self) -> bool:
        if not self._is_cut:
            # HEAD has no body, and nothing to wait for.
            return self._has_body_been_received and self.scope["method"] == "HEAD"
        if self.more_body:
            return True
        # A finite answer goes on to its end. An event stream has none that the client could await.
        return self._has_body_been_received and (self._is_event_stream or not self.response_started)

    async def _start(self, message: Any) -> None:  # noqa: ANN401  # see above
        is_head = self.scope["method"] == "HEAD"
        has_length = False
        for name, value in message["headers"]:
            if name == b"content-type":
                self._is_event_stream = value.startswith(EVENT_STREAM)
            elif name == b"content-length":
                has_length = True
        if self.waiting_for_100_continue and self.more_body:
            self.keep_alive = False
        if not has_length and self.scope["http_version"] == "1.0":
            self._ends_with_connection = not is_head
            self.chunked_encoding = False
        await super().send(message)
        if is_head:
            await self._send(END)


def refusal(status: HTTPStatus, detail: str) -> ASGIApp:
    """Return an application that refuses, and logs, what cannot be given to the real one."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        request_log.bind(code=ErrorCode.INVALID_REQUEST, detail=detail)
        problem = Problem(
            type=f"urn:waybill:problem:{ErrorCode.INVALID_REQUEST}",
            title="Invalid request",
            status=status,
            code=ErrorCode.INVALID_REQUEST,
            detail=detail,
            request_id=request_log.request_id(),
        )
        body = msgspec.json.encode(problem)
        fields = {
            "content-type": problems.MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            **problems.HEADERS,
        }
        headers = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return request_log.RequestLog(refuse)
