"""Detects that a client closes its connection while its request waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Request


@asynccontextmanager
async def disconnection_of(request: Request[Any, Any, Any]) -> AsyncIterator[asyncio.Future[None]]:
    """Return a future that is done once the client has closed the connection."""

    async def until_disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    disconnection = asyncio.create_task(until_disconnected())
    try:
        yield disconnection
    finally:
        disconnection.cancel()
        await asyncio.gather(disconnection, return_exceptions=True)
