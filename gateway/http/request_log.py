"""One log line per request, and the request's ids on every other line."""

import logging
import time
from http import HTTPStatus
from typing import Any

import structlog
from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.stdlib.get_logger(__name__)


def level_of(route: str, *, status: int | None) -> int:
    """Return the level of a request's log line: debug for successful chunks and probes."""
    is_frequent = route.startswith("/health") or route.endswith("/chunks/{index}")
    return logging.DEBUG if is_frequent and status == HTTPStatus.OK else logging.INFO


async def bind_ids(request: Request[Any, Any, Any]) -> None:
    """Add the ids in the path to every log line of this request."""
    bind(**request.path_params)


def bind(**facts: object) -> None:
    """Add facts to every later log line of this request."""
    structlog.contextvars.bind_contextvars(**{name: str(fact) for name, fact in facts.items()})


class RequestLog:
    """ASGI middleware around the whole application: one `http.request` line per request.

    The line holds the route's template and everything bound for the request: ids, and the
    code of a refusal. It never holds the path as sent or a header, because these may contain a key
    or a token.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        structlog.contextvars.clear_contextvars()
        begun = time.perf_counter()
        try:
            await self._app(scope, receive, note_status)
        finally:
            route = scope.get("path_template") or "unrouted"
            log.log(
                level_of(route, status=status),
                "http.request",
                method=scope.get("method"),
                route=route,
                status=status,
                duration_ms=round((time.perf_counter() - begun) * 1000, 1),
            )
