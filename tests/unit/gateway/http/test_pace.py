import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from gateway.http.pace import BodyTooSlow, PaceLimits, limited

pytestmark = pytest.mark.anyio

WINDOW = timedelta(milliseconds=100)


def limits_of(*, rate_min: int) -> PaceLimits:
    return PaceLimits(silence_max=WINDOW, rate_min=rate_min)


async def body_of(*pieces: bytes, pause: float) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(pause)


async def count_into(received: list[int], pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        received[0] += len(piece)


async def test_the_pieces_of_a_body_are_passed_on() -> None:
    pieces = limited(body_of(b"one", b"two", b"", pause=0), limits=limits_of(rate_min=1000))

    assert [piece async for piece in pieces] == [b"one", b"two", b""]


@pytest.mark.parametrize("rate_min", [0, 1])
async def test_a_silent_client_ends_the_body(rate_min: int) -> None:
    pieces = limited(body_of(b"some bytes", pause=60), limits=limits_of(rate_min=rate_min))

    assert await anext(pieces) == b"some bytes"
    with pytest.raises(BodyTooSlow, match=r"0 bytes of the body arrived within 0\.1 seconds"):
        await anext(pieces)


async def test_a_body_below_the_rate_ends_although_it_never_pauses() -> None:
    received = [0]
    body = body_of(*[b"x"] * 1000, pause=0.01)

    with pytest.raises(BodyTooSlow, match=r"fewer than 1000 a second"):
        await count_into(received, limited(body, limits=limits_of(rate_min=1000)))

    assert 0 < received[0] <= 20, "about 10 pieces arrive within the window"


async def test_a_body_that_starts_fast_and_then_trickles_ends() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield bytes(1_000_000)
        async for piece in body_of(*[b"x"] * 1000, pause=0.01):
            yield piece

    received = [0]
    with pytest.raises(BodyTooSlow):
        await count_into(received, limited(body(), limits=limits_of(rate_min=1000)))

    assert received[0] < 1_000_100, "the first bytes count for one window only"


async def test_every_rate_is_allowed_without_a_minimum() -> None:
    pieces = limited(body_of(*[b"x"] * 30, pause=0.01), limits=limits_of(rate_min=0))

    assert len([piece async for piece in pieces]) == 30


async def test_the_time_of_the_reader_does_not_count() -> None:
    pieces = limited(body_of(*[b"x"] * 5, pause=0), limits=limits_of(rate_min=1000))

    async for _ in pieces:
        await asyncio.sleep(0.05)
