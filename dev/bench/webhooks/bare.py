"""`python -m dev.bench.webhooks.bare aiohttp|httpx COUNT CONNECTIONS URL …`: POSTs in a bare loop.

The peers: no queue, no signature, no log, no check of addresses. Prints the rate and the processor
time as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from typing import Final, TypeAlias

import aiohttp
import httpx

BODY: Final = b"x" * 700
TYPE: Final = {"content-type": "application/cloudevents+json"}

Post: TypeAlias = Callable[[str], Awaitable[None]]


async def _all(post: Post, *, urls: Sequence[str], count: int, connections: int) -> float:
    remaining = iter(range(count))
    targets = cycle(urls)

    async def work() -> None:
        for _ in remaining:
            await post(next(targets))

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    return time.perf_counter() - began


async def with_aiohttp(urls: Sequence[str], *, count: int, connections: int) -> float:
    connector = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(url: str) -> None:
            async with session.post(url, data=BODY, headers=TYPE) as answer:
                await answer.read()

        return await _all(post, urls=urls, count=count, connections=connections)


async def with_httpx(urls: Sequence[str], *, count: int, connections: int) -> float:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:

        async def post(url: str) -> None:
            await client.post(url, content=BODY, headers=TYPE)

        return await _all(post, urls=urls, count=count, connections=connections)


PEERS: Final = {"aiohttp": with_aiohttp, "httpx": with_httpx}


def main() -> None:
    peer, count, connections, *urls = sys.argv[1:]
    cpu = time.process_time()
    seconds = asyncio.run(PEERS[peer](urls, count=int(count), connections=int(connections)))
    print(
        json.dumps(
            {
                "rate": int(count) / seconds,
                "cpu_ms": (time.process_time() - cpu) / int(count) * 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
