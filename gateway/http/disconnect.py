"""Detects that a client closes its connection while its request waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from litestar.types import Receive


@asynccontextmanager
async def on_disconnect(receive: Receive, call: Callable[[], None]) -> AsyncIterator[None]:
    """Call `call` once the client closes the connection, unless the block has ended before."""

    async def until_disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call()

    waiting = asyncio.create_task(until_disconnected())
    try:
        yield
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
