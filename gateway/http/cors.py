"""Lets pages of the configured origins call the API from a browser (CORS).

No answer permits credentials: keys and tokens are sent explicitly, so a page of another origin has
none, and cookies play no part. The preflight of Private Network Access is not answered: Chrome asks
the user instead (Local Network Access).

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from datetime import timedelta
from typing import Any, Final

from litestar import Litestar, Request
from litestar.config.cors import CORSConfig
from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import Receive, Scope, Send

from gateway.http import problems
from gateway.http.problems import InvalidRequest
from schemas.settings import HttpSettings

MAX_AGE: Final = timedelta(hours=2)
"""Chrome keeps the answer to a preflight for no longer. Every chunk has a URL, and a preflight."""

EXPOSED: Final = (
    "Allow",
    "Content-Digest",
    "Content-Disposition",
    "ETag",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Repr-Digest",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)
"""Fields of answers that a script may read, beside those that every script may read."""


def config_from(settings: HttpSettings) -> CORSConfig | None:
    """Return the configuration; None if no origin is allowed."""
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=list(settings.cors_origins),
        # Fields of requests are not limited: an allowed page may send every request anyway, and
        # libraries add fields such as `X-Requested-With`.
        allow_headers=["*"],
        expose_headers=list(EXPOSED),
        max_age=int(MAX_AGE.total_seconds()),
    )


class RefusedPreflights:
    """ASGI middleware around the application: refuses preflights of other origins with a problem.

    The framework's own refusal is plain text, and the line in the log would have no code. Every
    method and every field is allowed, so only the origin can be the reason.
    """

    def __init__(self, app: Litestar) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        config = self._app.cors_config
        if config is None or scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
            await self._app(scope, receive, send)
            return
        origin = Headers.from_scope(scope).get("origin")
        if not origin or config.is_origin_allowed(origin):
            await self._app(scope, receive, send)
            return
        request = Request[Any, Any, Any](scope)
        refusal = InvalidRequest("pages of this origin may not call the API", field="Origin")
        answer = problems.answer_of(refusal, request=request)
        await answer.to_asgi_response(app=None, request=request)(scope, receive, send)
