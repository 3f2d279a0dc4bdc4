"""Lets pages of the configured origins call the API from a browser (CORS).

No answer permits credentials: keys and tokens are sent explicitly, so a page of another origin has
none, and cookies play no part. The preflight of Private Network Access is not answered: Chrome asks
the user instead (Local Network Access).

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from datetime import timedelta
from typing import Final

from litestar.config.cors import CORSConfig

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
