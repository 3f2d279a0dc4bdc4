"""What clients cost that wait for jobs: memory, queries, and the time of other clients.

One API key holds long polls and event streams of jobs that do not change. Meanwhile a client of
another tenant reads its own job, one request after the other, compared with the same before and after.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import psutil
import psycopg

from dev.bench.figures import Spread
from dev.bench.sections import Section, Table
from dev.bench.system import UNLIMITED, System
from dev.bench.wire import Connection
from dev.client import Chunk, Client
from gateway.settings import API_PREFIX

GATEWAY: Final = UNLIMITED.name
KIB: Final = 1024

STREAM_KIB_MAX: Final = 30
RATIO_MAX: Final = 1.5
"""Figures above these miss the goal."""

WAIT_SECONDS: Final = 600
OPENED_AT_ONCE: Final = 50
IDLE_SHARE_MAX: Final = 0.1
"""Share of a processor below which the gateway has begun all waits."""
ANSWER_TIMEOUT_SECONDS: Final = 30
STATISTICS_SECONDS: Final = 11
"""PostgreSQL counts the last transactions of a connection after it was idle for ten seconds."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    streams: int
    polls: int
    jobs: int
    reads: int
    quiet_seconds: float


FULL: Final = Extent(streams=1_000, polls=3_000, jobs=100, reads=2_000, quiet_seconds=10)
QUICK: Final = Extent(streams=50, polls=150, jobs=10, reads=100, quiet_seconds=2)


@dataclass(frozen=True, kw_only=True)
class Reads:
    """Reads of a job, one after the other."""

    milliseconds: list[float]
    processor_seconds: float
    """Of the gateway, for all of them."""

    @property
    def p50(self) -> float:
        return Spread.of(self.milliseconds).p50

    @property
    def processor_ms(self) -> float:
        """Of the gateway, for one read: other processes of the machine do not count."""
        return 1000 * self.processor_seconds / len(self.milliseconds)

    def and_(self, other: "Reads") -> "Reads":
        return Reads(
            milliseconds=self.milliseconds + other.milliseconds,
            processor_seconds=self.processor_seconds + other.processor_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    stream_kib: float
    poll_kib: float
    alone: Reads
    beside: Reads
    quiet_commits: int
    woken_ms: float


def run(system: System, *, extent: Extent) -> Section:
    allow_open_files(4 * (extent.streams + extent.polls))
    system.run_only(GATEWAY)
    crowd, other = system.api_key, system.stack.create_api_key(tenant="bench-other")
    waited = _open_jobs(system, key=crowd, number=extent.jobs)
    (own,) = _open_jobs(system, key=other, number=1)
    measured = asyncio.run(
        _measure(system, extent=extent, key=crowd, jobs=waited, other=other, own=own)
    )
    rows = [
        ["an idle event stream, resident memory", f"{measured.stream_kib:.1f} KiB"],
        ["an idle long poll, resident memory", f"{measured.poll_kib:.1f} KiB"],
        ["`GET /jobs/{id}` of another tenant, alone, p50", f"{measured.alone.p50:.2f} ms"],
        ["the same beside all waits, p50", f"{measured.beside.p50:.2f} ms"],
        ["the gateway's processor time for a read, alone", f"{measured.alone.processor_ms:.2f} ms"],
        ["the same beside all waits", f"{measured.beside.processor_ms:.2f} ms"],
        [f"transactions in {extent.quiet_seconds:.0f} s", f"{measured.quiet_commits}"],
        ["a change until the last of its listeners has it", f"{measured.woken_ms:.1f} ms"],
    ]
    return Section(
        title="Waiting clients",
        question=(
            f"{extent.polls:,} long polls and {extent.streams:,} event streams of one API key, for"
            f" {extent.jobs} jobs that do not change. Resident memory of the gateway, before and"
            " after, divided; transactions of the database while nobody asks anything; and the time"
            f" of {extent.reads:,} reads of another tenant, one at a time."
        ),
        tables=[Table(headings=["", "value"], rows=rows)],
        remarks=[
            f"Ratio of the medians: {measured.beside.p50 / measured.alone.p50:.2f} (the goal: at most {RATIO_MAX}).",
            f"Goal of a stream: at most {STREAM_KIB_MAX} KiB.",
        ],
        measured_on=datetime.now(UTC).date(),
    )


async def _measure(
    system: System, *, extent: Extent, key: str, jobs: Sequence[str], other: str, own: str
) -> Result:
    gateway = psutil.Process(system.pid_of(GATEWAY))

    def resident_kib() -> float:
        return float(gateway.memory_info().rss) / KIB

    async def read() -> Reads:
        before = processor_seconds(gateway)
        samples = await asyncio.to_thread(
            _read, system.url, key=other, job_id=own, times=extent.reads
        )
        return Reads(milliseconds=samples, processor_seconds=processor_seconds(gateway) - before)

    # The first requests fill caches and the heap, which stay.
    async with _waiting(system.url, _streams(jobs, number=100), key=key):
        await read()
    alone = await read()
    idle = resident_kib()
    streams = _streams(jobs, number=extent.streams)
    polls = [
        f"{API_PREFIX}/jobs/{jobs[number % len(jobs)]}?wait={WAIT_SECONDS}"
        for number in range(extent.polls)
    ]
    async with _waiting(system.url, streams, key=key) as listening:
        await asyncio.gather(*(_event(reader) for reader in listening))
        await until_idle(gateway)
        with_streams = resident_kib()
        async with _waiting(system.url, polls, key=key):
            await until_idle(gateway)
            with_polls = resident_kib()
            beside = await read()
            await asyncio.sleep(STATISTICS_SECONDS)
            with system.database() as database:
                before = commits(database)
                await asyncio.sleep(extent.quiet_seconds)
                quiet = commits(database) - before
                began = time.perf_counter()
                _change(database, jobs[0])
                ours = [reader for at, reader in enumerate(listening) if at % len(jobs) == 0]
                await asyncio.gather(*(_event(reader) for reader in ours))
                woken = time.perf_counter() - began
    await until_idle(gateway)
    # Before and after: the load of the machine changes meanwhile.
    alone = alone.and_(await read())
    return Result(
        stream_kib=(with_streams - idle) / extent.streams,
        poll_kib=(with_polls - with_streams) / extent.polls,
        alone=alone,
        beside=beside,
        quiet_commits=quiet,
        woken_ms=woken * 1000,
    )


async def until_idle(process: psutil.Process) -> None:
    """Wait until a process has done its work: a long poll that has begun sends nothing."""
    used = IDLE_SHARE_MAX
    while used >= IDLE_SHARE_MAX:
        before = processor_seconds(process)
        await asyncio.sleep(1)
        used = processor_seconds(process) - before


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _streams(jobs: Sequence[str], *, number: int) -> list[str]:
    return [f"{API_PREFIX}/jobs/{jobs[at % len(jobs)]}/events" for at in range(number)]


@asynccontextmanager
async def _waiting(
    url: str, paths: Sequence[str], *, key: str
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Send a request for each path, on a connection of its own, which is open in the block."""
    address, opening = urlsplit(url), asyncio.Semaphore(OPENED_AT_ONCE)

    async def opened(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with opening:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            head = f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\r\n"
            writer.write(head.encode())
            return reader, writer

    async with AsyncExitStack() as end:
        connections = await asyncio.gather(*map(opened, paths))
        for _, writer in connections:
            end.callback(writer.transport.abort)
        yield [reader for reader, _ in connections]


async def _event(reader: asyncio.StreamReader) -> None:
    """Read until the end of the next event."""
    async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
        await reader.readuntil(b"\ndata: ")
        await reader.readuntil(b"\n\n")


def _read(url: str, *, key: str, job_id: str, times: int) -> list[float]:
    """Return the milliseconds of each read."""
    samples = []
    with closing(Connection(url, headers={"Authorization": f"Bearer {key}"})) as connection:
        for _ in range(times):
            began = time.perf_counter()
            connection.ask("GET", f"{API_PREFIX}/jobs/{job_id}")
            samples.append((time.perf_counter() - began) * 1000)
    return samples


def _open_jobs(system: System, *, key: str, number: int) -> list[str]:
    """Return new jobs; without workers they stay as they are."""
    jobs = []
    with Client(system.url, api_key=key) as client:
        for _ in range(number):
            upload_id = client.create_upload(filename="note.bin", size=4)["upload_id"]
            client.put_chunk(upload_id, Chunk(index=0, content=b"note")).raise_for_status()
            jobs.append(client.finalize(upload_id).raise_for_status().json()["job_id"])
    return jobs


def _change(database: psycopg.Connection, job_id: str) -> None:
    database.execute("UPDATE steps SET attempts = attempts + 1 WHERE job_id = %s", (job_id,))


def commits(database: psycopg.Connection) -> int:
    database.execute("SELECT pg_stat_clear_snapshot()")
    row = database.execute(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return int(row[0]) if row else 0


def allow_open_files(number: int) -> None:
    """Raise the limit of this process and of the gateway, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(number, hard)), hard))
