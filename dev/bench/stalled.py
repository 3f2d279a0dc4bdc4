"""Bodies that stop in the middle: what they cost the gateway, and the requests of others."""

import json
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Final, Self
from urllib.parse import urlsplit

import psutil

from dev.bench import sending
from dev.bench.receivers import API, Waybill
from dev.bench.sections import Section, Table
from dev.bench.sending import Load, shown
from dev.bench.system import STAGING_IN_BUCKET, System
from dev.bench.usage import MIB
from dev.bench.wire import Connection, Content

CHUNK_BYTES: Final = MIB
SENT_BYTES: Final = 500 * 1024
"""Of each chunk; then its client stalls."""
SMALL_BYTES: Final = 64 * 1024
"""A chunk of the other tenant."""

WARM_UP: Final = Load(files=1, size=64 * MIB, chunk_size=CHUNK_BYTES)
CONNECTIONS: Final = 8
SEND_TIMEOUT: Final = timedelta(seconds=20)
MEASURED_FOR: Final = timedelta(seconds=12)
"""Longest time for the requests of one kind; the gateway ends a stalled body after a minute."""
QUIET: Final = timedelta(seconds=1)
"""The gateway has read what it reads once its sockets do not change for so long."""
GIVEN_BACK_WITHIN: Final = timedelta(seconds=15)
"""After the end of the stalled connections."""

OTHER_TENANT: Final = "bench-other"


@dataclass(frozen=True, kw_only=True)
class Extent:
    bodies: int
    requests: int
    """Of each kind, by the other tenant, before and meanwhile; fewer if they take too long."""


FULL: Final = Extent(bodies=1_000, requests=500)
QUICK: Final = Extent(bodies=100, requests=50)


@dataclass(frozen=True, kw_only=True)
class Latency:
    p50: float
    p99: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Self:
        cuts = quantiles(milliseconds, n=100, method="inclusive")
        return cls(p50=cuts[49], p99=cuts[98])

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p99:.1f} ms"


@dataclass(frozen=True, kw_only=True)
class Others:
    """The latency of the requests of another tenant."""

    status: Latency
    chunk: Latency


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Resident memory of the gateway in MiB, and the latency of others."""

    idle: float
    meanwhile: float
    after: float
    before_others: Others
    meanwhile_others: Others
    answers: Counter[int]
    """Status of the bodies that the gateway answered instead of waiting for them."""


class StalledBodies:
    """Connections that each sent a part of a chunk and then nothing."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets

    @classmethod
    @contextmanager
    def opened(cls, url: str, *, api_key: str, bodies: int) -> "Iterator[StalledBodies]":
        """Stall a number of chunks of one upload; the connections end with the block."""
        _allow_descriptors(bodies + 100)
        receiver = Waybill(url, api_key=api_key)
        with closing(receiver.connect()) as connection:
            upload = receiver.begin(connection, size=bodies * CHUNK_BYTES, chunk_size=CHUNK_BYTES)
        address = urlsplit(url)
        part = bytes(SENT_BYTES)
        with ExitStack() as stack:
            sockets = []
            for index in range(bodies):
                peer = stack.enter_context(
                    socket.create_connection(
                        (address.hostname or "", address.port or 80),
                        timeout=SEND_TIMEOUT.total_seconds(),
                    )
                )
                sockets.append(peer)
                head = (
                    f"PUT {upload.path}/chunks/{index} HTTP/1.1\r\nHost: {address.netloc}\r\n"
                    f"Authorization: Bearer {api_key}\r\nContent-Length: {CHUNK_BYTES}\r\n\r\n"
                )
                # A gateway that refuses a body may close the connection before it is sent.
                with suppress(TimeoutError, ConnectionError):
                    peer.sendall(head.encode() + part)
            wait_until_read(address.port or 80)
            yield cls(sockets)

    def answers(self) -> Counter[int]:
        """Return how many of the bodies were answered, by status; 0 is a connection that ended."""
        statuses: Counter[int] = Counter()
        for each in self._sockets:
            each.setblocking(False)  # noqa: FBT003  # the standard library's own signature
            with suppress(BlockingIOError):
                try:
                    line = each.recv(4096).split(b" ")
                except ConnectionError:
                    line = []
                statuses[int(line[1]) if len(line) > 1 else 0] += 1
        return statuses


def wait_until_read(port: int) -> None:
    """Wait until the server on a port reads nothing more of what its clients have sent."""
    unread, since = _unread_bytes(port), time.monotonic()
    deadline = since + SEND_TIMEOUT.total_seconds()
    while time.monotonic() - since < QUIET.total_seconds() and time.monotonic() < deadline:
        time.sleep(0.1)
        if (now := _unread_bytes(port)) != unread:
            unread, since = now, time.monotonic()


def _unread_bytes(port: int) -> int:
    # proc(5): local_address is field 1, tx_queue:rx_queue is field 4, in hex.
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(
        int(fields[4].partition(":")[2], 16)
        for fields in lines
        if int(fields[1].partition(":")[2], 16) == port and fields[3] == "01"
    )


def _allow_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))


def resident_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / MIB)


def settled_mib(pid: int, *, goal: float) -> float:
    """Return the memory of a process once it is below a goal, or after the longest wait."""
    deadline = time.monotonic() + GIVEN_BACK_WITHIN.total_seconds()
    while (size := resident_mib(pid)) > goal and time.monotonic() < deadline:
        time.sleep(0.2)
    return size


class OtherTenant:
    """Asks for a job and sends small chunks, one request after another."""

    def __init__(self, url: str, *, api_key: str) -> None:
        self._receiver = Waybill(url, api_key=api_key)
        self._content = Content.random(SMALL_BYTES)
        with closing(self._receiver.connect()) as connection:
            self._upload = self._receiver.begin(
                connection, size=10_000 * SMALL_BYTES, chunk_size=SMALL_BYTES
            )
            stored = self._receiver.begin(connection, size=SMALL_BYTES, chunk_size=SMALL_BYTES)
            self._receiver.send(connection, stored, index=0, content=self._content)
            answer = connection.ask(
                "POST",
                f"{API}/upload",
                body=json.dumps({"upload_id": stored.id}).encode(),
                headers={"Content-Type": "application/json"},
            )
        self._job = f"{API}/jobs/{answer.json['job_id']}"
        self._indexes = count()

    def measure(self, *, requests: int) -> Others:
        with closing(self._receiver.connect()) as connection:

            def show_job() -> None:
                connection.ask("GET", self._job)

            status = _repeated(show_job, times=requests)
            chunk = _repeated(lambda: self._send(connection), times=requests)
        return Others(status=Latency.of(status), chunk=Latency.of(chunk))

    def _send(self, connection: Connection) -> None:
        self._receiver.send(
            connection, self._upload, index=next(self._indexes), content=self._content
        )


def _repeated(request: Callable[[], None], *, times: int) -> list[float]:
    """Return the milliseconds of each request."""
    milliseconds: list[float] = []
    deadline = time.perf_counter() + MEASURED_FOR.total_seconds()
    while len(milliseconds) < times and (began := time.perf_counter()) < deadline:
        request()
        milliseconds.append((time.perf_counter() - began) * 1000)
    return milliseconds


def measure(
    url: str, *, pid: int, api_key: str, other_key: str, extent: Extent, goal_mib: float
) -> Measured:
    """Stall bodies of one tenant, and measure the gateway and another tenant.

    Args:
        url: the gateway.
        pid: its process.
        api_key: of the tenant whose bodies stall.
        other_key: of another tenant.
        extent: how much is measured.
        goal_mib: how far above idle the memory may be afterwards; the wait ends there.
    """
    receiver = Waybill(url, api_key=api_key)
    sending.forget(
        receiver,
        sending.over_connections(
            receiver, WARM_UP, content=Content.random(CHUNK_BYTES), connections=CONNECTIONS
        ),
    )
    other = OtherTenant(url, api_key=other_key)
    other.measure(requests=20)
    before = other.measure(requests=extent.requests)
    idle = resident_mib(pid)
    with StalledBodies.opened(url, api_key=api_key, bodies=extent.bodies) as stalled:
        meanwhile = resident_mib(pid)
        others = other.measure(requests=extent.requests)
        meanwhile = max(meanwhile, resident_mib(pid))
        answers = stalled.answers()
    return Measured(
        idle=idle,
        meanwhile=meanwhile,
        after=settled_mib(pid, goal=idle + goal_mib),
        before_others=before,
        meanwhile_others=others,
        answers=answers,
    )


def run(system: System, *, extent: Extent) -> Section:
    other_key = system.other_api_key(OTHER_TENANT)
    measured: dict[str, Measured] = {}
    for staging, service in (("directory", "gateway"), ("s3", STAGING_IN_BUCKET.name)):
        system.run_only(service)
        measured[staging] = measure(
            system.url,
            pid=system.pid_of(service),
            api_key=system.api_key,
            other_key=other_key,
            extent=extent,
            goal_mib=0,
        )
        one = measured[staging]
        system.report(
            f"stalled: {staging}: {one.idle:.0f} MiB idle, {one.meanwhile:.0f} meanwhile,"
            f" {one.after:.0f} afterwards; answered {dict(one.answers)}"
        )
    return Section(
        title="Stalled bodies",
        question=(
            f"{extent.bodies} connections of one tenant that each send {shown(SENT_BYTES)} of a"
            f" chunk of {shown(CHUNK_BYTES)} and stall. Resident memory of the gateway before,"
            f" meanwhile, and up to {GIVEN_BACK_WITHIN.total_seconds():.0f} s after they"
            f" disconnect. Latency (p50 / p99 of up to {extent.requests} requests) of another tenant,"
            " over one connection."
        ),
        tables=[_memory(measured, bodies=extent.bodies), _latency(measured)],
        measured_on=datetime.now(UTC).date(),
    )


def _memory(measured: dict[str, Measured], *, bodies: int) -> Table:
    return Table(
        headings=["staging", "idle", "meanwhile", "per body", "afterwards"],
        rows=[
            [
                staging,
                f"{one.idle:.0f} MiB",
                f"{one.meanwhile - one.idle:+.0f} MiB",
                f"{(one.meanwhile - one.idle) * 1024 / bodies:.0f} KiB",
                f"{one.after - one.idle:+.0f} MiB",
            ]
            for staging, one in measured.items()
        ],
    )


def _latency(measured: dict[str, Measured]) -> Table:
    return Table(
        title="Another tenant",
        headings=["request, staging", "before", "meanwhile", "p99 meanwhile / before"],
        rows=[
            [f"{name}, {staging}", str(before), str(later), f"{later.p99 / before.p99:.2f}"]
            for staging, one in measured.items()
            for name, before, later in (
                ("GET /jobs/{id}", one.before_others.status, one.meanwhile_others.status),
                (
                    f"chunk of {shown(SMALL_BYTES)}",
                    one.before_others.chunk,
                    one.meanwhile_others.chunk,
                ),
            )
        ],
    )
