"""One log line per request, and the request's ids on every other line."""

import ipaddress
import logging
import re
import secrets
import time
from http import HTTPStatus
from typing import Any, Final

import structlog
from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

log = structlog.stdlib.get_logger(__name__)

REQUEST_ID: Final = b"x-request-id"
_WELL_FORMED: Final = re.compile(rb"[A-Za-z0-9._:=@+/-]{1,128}")


def level_of(route: str, *, method: str = "GET", status: int | None) -> int:
    """Return the level of a request's log line: debug for successful chunks, probes and preflights.

    A browser sends a preflight before every chunk.
    """
    is_frequent = route.startswith("/health") or route.endswith("/chunks/{index}")
    is_quiet = (is_frequent and status == HTTPStatus.OK) or (
        method == "OPTIONS" and status == HTTPStatus.NO_CONTENT
    )
    return logging.DEBUG if is_quiet else logging.INFO


async def bind_ids(request: Request[Any, Any, Any]) -> None:
    """Add the ids in the path to every log line of this request."""
    bind(**request.path_params)


def bind(**facts: object) -> None:
    """Add facts to every later log line of this request."""
    structlog.contextvars.bind_contextvars(**{name: str(fact) for name, fact in facts.items()})


def request_id() -> str | None:
    """Return the id of this request; None outside of `RequestLog`."""
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found


def _given_id(scope: HTTPScope) -> str | None:
    """Return the id that the client or its proxy gave; None unless there is one well-formed id."""
    given = [value for name, value in scope["headers"] if name == REQUEST_ID]
    if len(given) == 1 and _WELL_FORMED.fullmatch(given[0]):
        return given[0].decode()
    return None


def _client_address(scope: HTTPScope) -> str | None:
    """Return the client's address; None for a Unix socket, or if a trusted proxy named none."""
    host, _ = scope["client"] or ("", 0)
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


class RequestLog:
    """ASGI middleware around the whole application: one `http.request` line per request.

    The line holds the client's address, the route's template and everything bound for the request:
    ids, and the code of a refusal. It never holds the path as sent or a header, because these may
    contain a key or a token. The exception is a well-formed `X-Request-ID`, which every line of the
    request and the answer contain; without one the request gets an id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        status: int | None = None
        request_id = _given_id(scope) or secrets.token_hex(16)

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id.encode())]
            await send(message)

        structlog.contextvars.clear_contextvars()
        bind(request_id=request_id)
        begun = time.perf_counter()
        try:
            await self._app(scope, receive, note_status)
        finally:
            route = scope.get("path_template") or "unrouted"
            log.log(
                level_of(route, method=scope["method"], status=status),
                "http.request",
                method=scope.get("method"),
                route=route,
                status=status,
                client_address=_client_address(scope),
                duration_ms=round((time.perf_counter() - begun) * 1000, 1),
            )
