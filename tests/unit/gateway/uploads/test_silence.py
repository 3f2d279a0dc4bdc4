import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from gateway.uploads.body import BodyStalled, until_silence

pytestmark = pytest.mark.anyio


async def a_body(*, then: float = 0) -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"
    await asyncio.sleep(then)
    yield b"three"


async def test_a_body_that_comes_is_passed_on() -> None:
    came = [piece async for piece in until_silence(a_body(), longest=timedelta(seconds=10))]

    assert came == [b"one", b"two", b"three"]


async def test_a_client_that_falls_silent_is_given_up() -> None:
    pieces = until_silence(a_body(then=60), longest=timedelta(milliseconds=50))

    assert [await anext(pieces), await anext(pieces)] == [b"one", b"two"]
    with pytest.raises(BodyStalled, match=r"nothing came for 0\.05 seconds"):
        await anext(pieces)
