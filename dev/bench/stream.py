"""What idle listeners of the feed cost a gateway, and how soon an event reaches all of them.

One API key opens the streams. An upload is created and cancelled; the relay gives the event its
position, and the gateway sends the event to every stream.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import psutil

from dev.bench.figures import Spread
from dev.bench.sections import Section, Table
from dev.bench.system import UNLIMITED, System
from dev.bench.waits import (
    STATISTICS_SECONDS,
    allow_open_files,
    commits,
    processor_seconds,
    until_idle,
)
from dev.bench.wire import Connection
from dev.client import Client
from gateway.settings import API_PREFIX

GATEWAY: Final = UNLIMITED.name
KIB: Final = 1024

LISTENER_KIB_MAX: Final = 30
P95_MS_MAX: Final = 500
"""Figures above these miss the goal."""

OPENED_AT_ONCE: Final = 50
TIMEOUT_SECONDS: Final = 60


@dataclass(frozen=True, kw_only=True)
class Extent:
    listeners: int
    events: int
    idle_seconds: float


FULL: Final = Extent(listeners=5_000, events=20, idle_seconds=30)
QUICK: Final = Extent(listeners=200, events=5, idle_seconds=5)


class Listener(asyncio.Protocol):
    """A stream that notes when an event comes; it costs this process as little as possible."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = self._loop.create_future()
        self.reached: asyncio.Future[float] = self._loop.create_future()

    def expect(self) -> None:
        """Note when the next event comes."""
        self.reached = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream has a transport that writes")
        self._transport = transport
        transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        if b"\nevent: " in data and not self.reached.done():
            self.reached.set_result(time.perf_counter())
        if b"id: " in data and not self.begun.done():
            self.begun.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@dataclass(frozen=True, kw_only=True)
class Result:
    listener_kib: float
    reached_ms: Spread
    last_ms: Spread
    """Until the last listener has an event."""
    sending_us: float
    """The gateway's processor time for one event and one listener: other processes do not count."""
    idle_commits: int
    idle_processor_share: float


def run(system: System, *, extent: Extent) -> Section:
    allow_open_files(4 * extent.listeners)
    system.run_only(GATEWAY, "relay")
    measured = asyncio.run(_measure(system, extent=extent))
    rows = [
        ["an idle listener, resident memory", f"{measured.listener_kib:.1f} KiB"],
        ["an event until a listener has it, p50", f"{measured.reached_ms.p50:.0f} ms"],
        ["the same, p95", f"{measured.reached_ms.p95:.0f} ms"],
        ["an event until the last listener has it, p50", f"{measured.last_ms.p50:.0f} ms"],
        [
            "the gateway's processor time for an event and a listener",
            f"{measured.sending_us:.0f} µs",
        ],
        [
            f"transactions in {extent.idle_seconds:.0f} s without events",
            f"{measured.idle_commits}",
        ],
        ["the gateway's share of a processor meanwhile", f"{measured.idle_processor_share:.1%}"],
    ]
    return Section(
        title="Listeners of the feed",
        question=(
            f"{extent.listeners:,} streams of the feed of one tenant on one gateway. Resident memory"
            f" of the gateway, before and after, divided; then {extent.events} events, one at a time:"
            " from before the request that causes the event until each listener has it. 200 ms of"
            " this time are the relay's, which assigns positions in batches."
        ),
        tables=[Table(headings=["", "value"], rows=rows)],
        remarks=[
            f"Goals: at most {LISTENER_KIB_MAX} KiB for a listener, and a p95 below {P95_MS_MAX} ms.",
        ],
        measured_on=datetime.now(UTC).date(),
    )


async def _measure(system: System, *, extent: Extent) -> Result:
    gateway = psutil.Process(system.pid_of(GATEWAY))

    def resident_kib() -> float:
        return float(gateway.memory_info().rss) / KIB

    # The first requests fill caches and the heap, which stay.
    async with _listening(system, number=100) as listeners:
        await _reach(system, listeners)
    await until_idle(gateway)
    before = resident_kib()
    async with _listening(system, number=extent.listeners) as listeners:
        await until_idle(gateway)
        listener_kib = (resident_kib() - before) / extent.listeners
        reached: list[float] = []
        last: list[float] = []
        used = processor_seconds(gateway)
        for _ in range(extent.events):
            times = await _reach(system, listeners)
            reached += times
            last.append(max(times))
        sending = processor_seconds(gateway) - used
        await asyncio.sleep(STATISTICS_SECONDS)
        with system.database() as database:
            committed, used = commits(database), processor_seconds(gateway)
            await asyncio.sleep(extent.idle_seconds)
            idle_commits = commits(database) - committed
            idle_seconds = processor_seconds(gateway) - used
    return Result(
        listener_kib=listener_kib,
        reached_ms=Spread.of(reached),
        last_ms=Spread.of(last),
        sending_us=sending * 1e6 / extent.events / extent.listeners,
        idle_commits=idle_commits,
        idle_processor_share=idle_seconds / extent.idle_seconds,
    )


@asynccontextmanager
async def _listening(system: System, *, number: int) -> AsyncIterator[list[Listener]]:
    """Open so many streams; in the block each has begun."""
    address, opening = urlsplit(system.url), asyncio.Semaphore(OPENED_AT_ONCE)
    head = (
        f"GET {API_PREFIX}/events/stream HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: Bearer {system.api_key}\r\n\r\n"
    ).encode()

    async def opened() -> Listener:
        async with opening, asyncio.timeout(TIMEOUT_SECONDS):
            _, listener = await asyncio.get_running_loop().create_connection(
                lambda: Listener(head), str(address.hostname), address.port or 80
            )
            await listener.begun
            return listener

    listeners = await asyncio.gather(*(opened() for _ in range(number)))
    try:
        yield list(listeners)
    finally:
        for listener in listeners:
            listener.close()


async def _reach(system: System, listeners: list[Listener]) -> list[float]:
    """Cause an event; return the milliseconds until each listener has it."""
    for listener in listeners:
        listener.expect()
    upload_id = await asyncio.to_thread(_create_upload, system)
    began = time.perf_counter()
    await asyncio.to_thread(_cancel, system, upload_id)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        reached = await asyncio.gather(*(listener.reached for listener in listeners))
    return [(at - began) * 1000 for at in reached]


def _create_upload(system: System) -> str:
    with Client(system.url, api_key=system.api_key) as client:
        return str(client.create_upload(filename="note.bin", size=4)["upload_id"])


def _cancel(system: System, upload_id: str) -> None:
    with closing(
        Connection(system.url, headers={"Authorization": f"Bearer {system.api_key}"})
    ) as connection:
        connection.ask("DELETE", f"{API_PREFIX}/uploads/{upload_id}")
