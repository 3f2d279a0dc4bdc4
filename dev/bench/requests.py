"""The cost of a small request: calls of the gateway beside a bare Litestar route.

Both are served by one process of the same server with the same settings, for the same client.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Final
from uuid import uuid4

import msgspec

from dev.bench import load, machine, wire
from dev.bench.asgi import LOOPBACK
from dev.bench.figures import Ratio, Spread, starting_orders
from dev.bench.load import Answers, SmallRequest
from dev.bench.receivers import API, Sending, Waybill
from dev.bench.sections import Section, Table
from dev.bench.system import UNLIMITED, System
from dev.bench.usage import Tree
from dev.bench.wire import Content
from dev.stack import environment, ports
from dev.stack.checkout import CHECKOUT, PROGRAMS

CLIENTS: Final = 8
CREATE: Final = msgspec.json.encode({"filename": "bench.bin", "size": 65_536})
WARM_UPS: Final = 20
"""Requests of each kind, not counted; psycopg prepares a statement at its fifth execution."""

BARE_READ: Final = "bare route, GET"
BARE_QUERY: Final = "bare route with one prepared query, GET"
BARE_CREATE: Final = "bare route, POST"

LIMITS_OF_A_READ: Final = (
    "What limits a read: of its processor time a third is the statement, a sixth its line in the log,"
    " and a tenth each the authentication with the request rate and the answer."
)
LIMITS_OF_A_CREATE: Final = (
    "What limits a create: two statements, a call to a thread, and three syncs to disk: of the staged"
    " file, of its directory and of the commit. Creates of one tenant wait for each other's commit,"
    " which locks the tenant's usage."
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The number of rounds, and of requests in each."""

    rounds: int
    reads: int
    creates: int


FULL: Final = Bounds(rounds=7, reads=2_000, creates=400)
QUICK: Final = Bounds(rounds=1, reads=100, creates=20)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request, how often and over how many connections it is sent, and the peer beside it."""

    name: str
    request: SmallRequest
    pid: int
    peer: str
    count: int
    connections: int
    forget: Callable[[Answers], None] = lambda _: None


@dataclass(kw_only=True)
class Record:
    """The figures of one call over all rounds."""

    per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Processor time of the server, for one request."""
    milliseconds: list[float] = field(default_factory=list)


def run(system: System, *, extent: Bounds) -> Section:
    system.run_only(UNLIMITED.name)
    receiver = Waybill(system.url, api_key=system.api_key)
    job_id, upload_id = _finalized(receiver)
    with _bare_server(system) as (bare_pid, bare_url):
        calls = [
            *_bare_calls(bare_url, pid=bare_pid, extent=extent),
            *_own_calls(system, receiver, job_id=job_id, upload_id=upload_id, extent=extent),
        ]
        records = {call.name: Record() for call in calls}
        for call in calls:
            call.forget(load.send(call.request, count=WARM_UPS, connections=1))
        for order in starting_orders(calls, rounds=extent.rounds):
            for call in order:
                _measure(call, record=records[call.name])
    for call in calls:
        system.report(f"requests: {call.name}: {median(records[call.name].per_second):.0f}/s")
    return Section(
        title="Small requests",
        question=(
            "Requests per second of one gateway process, from clients that each send the next"
            " request when the answer to the last one is complete. The peer is the smallest route of"
            " the same framework, under the same server with the same settings: it answers a"
            " constant job, or decodes the body of a create. One of its routes also reads a row"
            " with one prepared query: no route that reads the database can be faster."
            f" Median of {extent.rounds} rounds of {extent.reads} reads or {extent.creates} creates."
        ),
        tables=[_table(calls, records)],
        remarks=[
            "The processor time is that of the gateway or the peer, without PostgreSQL.",
            LIMITS_OF_A_READ,
            LIMITS_OF_A_CREATE,
        ],
        peers=machine.versions_of("litestar", "uvicorn"),
        measured_on=datetime.now(UTC).date(),
    )


def _bare_calls(url: str, *, pid: int, extent: Bounds) -> Iterator[Call]:
    for name, path in ((BARE_READ, "bare"), (BARE_QUERY, "query")):
        yield Call(
            name=name,
            request=SmallRequest.of("GET", url, f"/{path}/{uuid4()}", headers={}),
            pid=pid,
            peer=BARE_READ,
            count=extent.reads,
            connections=CLIENTS,
        )
    for connections in (1, CLIENTS):
        yield Call(
            name=_with_clients(BARE_CREATE, connections),
            request=SmallRequest.of("POST", url, "/bare", headers={}, body=CREATE),
            pid=pid,
            peer=_with_clients(BARE_CREATE, connections),
            count=extent.creates,
            connections=connections,
        )


def _own_calls(
    system: System, receiver: Waybill, *, job_id: str, upload_id: str, extent: Bounds
) -> Iterator[Call]:
    headers = {"Authorization": f"Bearer {system.api_key}"}
    pid = system.pid_of(UNLIMITED.name)

    def cancel(created: Answers) -> None:
        with closing(receiver.connect()) as connection:
            for body in created.bodies:
                path = f"{API}/uploads/{msgspec.json.decode(body)['upload_id']}"
                receiver.forget(connection, Sending(path=path, id="", size=0, chunk_size=1))

    for name, path in (
        ("GET /jobs/{id}", f"/jobs/{job_id}"),
        ("GET /uploads/{id}/status", f"/uploads/{upload_id}/status"),
    ):
        yield Call(
            name=name,
            request=SmallRequest.of("GET", system.url, API + path, headers=headers),
            pid=pid,
            peer=BARE_READ,
            count=extent.reads,
            connections=CLIENTS,
        )
    for connections in (1, CLIENTS):
        yield Call(
            name=_with_clients("POST /uploads", connections),
            request=SmallRequest.of(
                "POST", system.url, f"{API}/uploads", headers=headers, body=CREATE
            ),
            pid=pid,
            peer=_with_clients(BARE_CREATE, connections),
            count=extent.creates,
            connections=connections,
            forget=cancel,
        )


def _with_clients(name: str, connections: int) -> str:
    return f"{name}, {connections} client{'s' if connections > 1 else ''} of one tenant"


def _finalized(receiver: Waybill) -> tuple[str, str]:
    """Finalize an upload, which no worker takes up; return the ids of its job and of itself."""
    content = Content.random(4)
    with closing(receiver.connect()) as connection:
        upload = receiver.begin(connection, size=4, chunk_size=4)
        receiver.send(connection, upload, index=0, content=content)
        receiver.end(connection, upload)
        status = connection.ask("GET", f"{upload.path}/status").json
    return status["job_id"], upload.id


def _measure(call: Call, *, record: Record) -> None:
    process = Tree(call.pid)
    before = process.cpu_seconds()
    answers = load.send(call.request, count=call.count, connections=call.connections)
    record.cpu_ms.append((process.cpu_seconds() - before) / call.count * 1000)
    record.per_second.append(answers.per_second)
    record.milliseconds += answers.milliseconds
    call.forget(answers)


def _table(calls: list[Call], records: dict[str, Record]) -> Table:
    rows = []
    for call in calls:
        record, spread = records[call.name], Spread.of(records[call.name].milliseconds)
        ratio = Ratio.between(record.per_second, records[call.peer].per_second)
        rows.append(
            [
                call.name,
                f"{median(record.per_second):.0f}",
                ""
                if call.peer == call.name
                else f"{ratio.median:.3f} ({ratio.least:.3f}-{ratio.most:.3f})",
                f"{median(record.cpu_ms):.2f} ms",
                f"{spread.p50:.1f} ms",
                f"{spread.p95:.1f} ms",
            ]
        )
    return Table(
        headings=["", "requests per second", "times the bare route (range)", "CPU", "p50", "p95"],
        rows=rows,
    )


@contextmanager
def _bare_server(system: System) -> Iterator[tuple[int, str]]:
    """Serve `dev.bench.bare`; yield its pid and its address."""
    port = next(port for port in range(ports.FIRST, ports.LAST) if ports.is_free(port))
    with (
        (system.scratch / "bare.log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dev.bench.bare", str(port)],
            cwd=CHECKOUT,
            env=environment.of_services(PROGRAMS) | system.stack.environment,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wire.wait_until_answering(LOOPBACK, port, path=f"/bare/{uuid4()}")
            yield process.pid, f"http://{LOOPBACK}:{port}"
        finally:
            process.kill()
