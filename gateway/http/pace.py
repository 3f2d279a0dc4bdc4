"""Limits on the time that a request body takes to arrive.

A connection that died without a FIN, and a client that sends a byte now and then, would otherwise
hold the memory, the files and the locks of their request for as long as they like.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from gateway.http.problems import ReadingStopped
from schemas.errors import ErrorCode
from schemas.settings import HttpSettings


class BodyTooSlow(ReadingStopped):
    """The client stopped sending the body, or sends it too slowly."""

    code = ErrorCode.BODY_TOO_SLOW
    retryable = True

    def __init__(self, received_bytes: int, *, window: timedelta, rate_min: int) -> None:
        super().__init__(
            f"{received_bytes} bytes of the body arrived within {window.total_seconds():g} seconds;"
            f" fewer than {rate_min} a second, or a silence of that time, end the request"
        )


@dataclass(frozen=True, kw_only=True)
class PaceLimits:
    """How slowly a body may arrive.

    Attributes:
        silence_max: most time without a byte, and the time over which the rate is measured.
        rate_min: fewest bytes per second; 0 allows every rate.
    """

    silence_max: timedelta
    rate_min: int

    @classmethod
    def from_settings(cls, settings: HttpSettings) -> Self:
        return cls(silence_max=settings.body_silence_max, rate_min=settings.body_rate_min)


async def limited(body: AsyncIterator[bytes], *, limits: PaceLimits) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a body.

    Only the time in which the server waits for the client counts: a client is not slow because the
    server's disk is.

    Raises:
        BodyTooSlow: the body arrives more slowly than `limits` allow.
    """
    loop = asyncio.get_running_loop()
    window = limits.silence_max.total_seconds()
    enough = limits.rate_min * window
    received, waited = 0, 0.0
    while True:
        wait_max = window if received >= enough else window - waited
        waits_since = loop.time()
        try:
            async with asyncio.timeout(wait_max):
                pieces = [await anext(body)]
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise BodyTooSlow(
                received if received < enough else 0,
                window=limits.silence_max,
                rate_min=limits.rate_min,
            ) from error
        received += len(pieces[0])
        waited += loop.time() - waits_since
        if waited >= window:
            received, waited = 0, 0.0
        # Popped, so that no piece stays in memory while the next one is awaited.
        yield pieces.pop()
