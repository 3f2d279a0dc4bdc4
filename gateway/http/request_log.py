"""One line per request, and the ids of what it is about on every other line."""

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
    """Return the level of a request's line: low for those that come in thousands and succeed."""
    is_one_of_many = route.startswith("/health") or route.endswith("/chunks/{index}")
    return logging.DEBUG if is_one_of_many and status == HTTPStatus.OK else logging.INFO


async def bind_ids(request: Request[Any, Any, Any]) -> None:
    """Put the ids of the path on every log line of this request."""
    bind(**request.path_params)


def bind(**facts: object) -> None:
    """Put what became known of this request on every later log line of it."""
    structlog.contextvars.bind_contextvars(**{name: str(fact) for name, fact in facts.items()})


class RequestLog:
    """ASGI middleware around the whole application: one `http.request` line per request.

    It names the route's template, never the path as sent, and no header: a key
    or a token in either stays out of the log. Whatever was bound for the request
    stands on it too: ids, and why it was refused.
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
