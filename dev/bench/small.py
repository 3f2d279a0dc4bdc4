"""Many small files: the fixed cost of an upload."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import psycopg
from psycopg.rows import class_row

from dev.bench import machine
from dev.bench.figures import Spread
from dev.bench.receivers import Waybill
from dev.bench.sections import Section, Table
from dev.bench.sending import shown
from dev.bench.system import System
from dev.bench.usage import Usage, watched
from dev.bench.wire import Connection, Content
from dev.stack.object_store import ObjectStore

SIZE: Final = 64 * 1024
CLIENTS: Final = 8
WARM_UPS: Final = 32
TIMEOUT: Final = timedelta(minutes=5)
POLL_INTERVAL: Final = timedelta(milliseconds=500)
SERVICES: Final = ("gateway", "relay", "transfer")

PROGRESS: Final = "SELECT status, count(*) FROM jobs WHERE created_at >= %s GROUP BY status"
PHASES: Final = """
    SELECT extract(epoch FROM max(jobs.finished_at) - %(since)s)::float AS until_finished,
           avg(extract(epoch FROM jobs.started_at - jobs.created_at))::float AS waited,
           avg(extract(epoch FROM transfer.finished_at - transfer.started_at))::float AS transferring
    FROM jobs JOIN steps AS transfer ON transfer.job_id = jobs.id AND transfer.name = 'transfer'
    WHERE jobs.created_at >= %(since)s
"""
COMMITS: Final = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


class JobsFailed(Exception):
    def __init__(self, statuses: dict[str, int]) -> None:
        super().__init__(f"not all jobs completed: {statuses}")


@dataclass(frozen=True, kw_only=True)
class Phases:
    """In seconds; the last two are means."""

    until_finished: float
    waited: float
    transferring: float


@dataclass(kw_only=True)
class Steps:
    """Milliseconds of each request, measured by the clients."""

    create: list[float] = field(default_factory=list)
    chunk: list[float] = field(default_factory=list)
    finalize: list[float] = field(default_factory=list)


def run(system: System, *, count: int) -> Section:
    system.run_only(*SERVICES)
    receiver = Waybill(system.url, api_key=system.api_key)
    content = Content.random(SIZE)
    with system.database() as database:
        # Warm-up: every process of every service has handled an upload.
        began_at = datetime.now(UTC)
        _send(receiver, content=content, count=WARM_UPS)
        _wait_for(database, since=began_at, count=WARM_UPS)
        began_at, commits_before = datetime.now(UTC), _commits(database)
        with watched(system.pids()) as usage:
            began = time.perf_counter()
            steps = _send(receiver, content=content, count=count)
            accepted_seconds = time.perf_counter() - began
            system.report(f"small: {count / accepted_seconds:.0f} uploads/s accepted")
            _wait_for(database, since=began_at, count=count)
        commits = _commits(database) - commits_before
        with database.cursor(row_factory=class_row(Phases)) as cursor:
            phases = cursor.execute(PHASES, {"since": began_at}).fetchone()
    peer_seconds = _by_boto3(system, content=content, count=count)
    system.report(f"small: {count / peer_seconds:.0f} objects/s by boto3")
    system.empty_bucket()
    if phases is None:
        raise AssertionError  # an aggregate always returns a row
    return Section(
        title="Small files",
        question=(
            f"{count} files of {shown(SIZE)} over the HTTP API from {CLIENTS} clients, each with"
            " one connection: create, one chunk, finalize. The second row ends when every"
            " file is an object and its job is completed. The files are not PDFs: no text is read."
            f" The peer puts as many objects with the same bytes into the same store, from {CLIENTS}"
            " threads with boto3, and asks for the head of each: without upload, events or jobs."
        ),
        tables=[
            Table(
                headings=["", "uploads per second", "seconds"],
                rows=[
                    [name, f"{count / seconds:.0f}", f"{seconds:.1f}"]
                    for name, seconds in (
                        ("accepted (202)", accepted_seconds),
                        ("completed", phases.until_finished),
                        ("boto3, PUT and HEAD", peer_seconds),
                    )
                ],
            ),
            _steps(steps, phases),
            _processes(usage, count=count),
        ],
        remarks=[
            f"{commits / count:.1f} database transactions per upload, from create to completed.",
            f"Completed: {peer_seconds / phases.until_finished:.2f} times the rate of boto3.",
        ],
        peers=machine.versions_of("boto3"),
        measured_on=datetime.now(UTC).date(),
    )


def _send(receiver: Waybill, *, content: Content, count: int) -> Steps:
    steps = Steps()

    def client(files: int) -> None:
        with closing(receiver.connect()) as connection:
            for _ in range(files):
                _send_one(receiver, connection, content=content, steps=steps)

    with ThreadPoolExecutor(CLIENTS) as clients:
        shares = [len(range(number, count, CLIENTS)) for number in range(CLIENTS)]
        for done in [clients.submit(client, share) for share in shares]:
            done.result()
    return steps


def _by_boto3(system: System, *, content: Content, count: int) -> float:
    """Put objects and ask for their heads; return the seconds that it took."""
    client = ObjectStore.from_settings(system.stack.environment).client
    bucket = system.stack.environment["S3_BUCKET"]

    def put(number: int) -> None:
        key = f"bench/peer/{number}"
        client.put_object(Bucket=bucket, Key=key, Body=content.data)
        client.head_object(Bucket=bucket, Key=key)

    with ThreadPoolExecutor(CLIENTS) as threads:
        for number in range(-WARM_UPS, 0):
            put(number)
        began = time.perf_counter()
        for _ in threads.map(put, range(count)):
            pass
        return time.perf_counter() - began


def _send_one(receiver: Waybill, connection: Connection, *, content: Content, steps: Steps) -> None:
    moments = [time.perf_counter()]
    upload = receiver.begin(connection, size=SIZE, chunk_size=SIZE)
    moments.append(time.perf_counter())
    receiver.send(connection, upload, index=0, content=content)
    moments.append(time.perf_counter())
    receiver.end(connection, upload)
    moments.append(time.perf_counter())
    for taken, (began, ended) in zip(
        (steps.create, steps.chunk, steps.finalize), pairwise(moments), strict=True
    ):
        taken.append((ended - began) * 1000)


def _wait_for(database: psycopg.Connection, *, since: datetime, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while True:
        statuses: Counter[str] = Counter(dict(database.execute(PROGRESS, (since,)).fetchall()))
        if statuses["completed"] == count:
            return
        if statuses["failed"] or time.monotonic() > deadline:
            raise JobsFailed(dict(statuses))
        time.sleep(POLL_INTERVAL.total_seconds())


def _commits(database: psycopg.Connection) -> int:
    row = database.execute(COMMITS).fetchone()
    return int(row[0]) if row else 0


def _steps(steps: Steps, phases: Phases) -> Table:
    rows = []
    for name, milliseconds in (
        ("create", steps.create),
        ("chunk", steps.chunk),
        ("finalize", steps.finalize),
    ):
        spread = Spread.of(milliseconds)
        rows.append(
            [name, f"{spread.p50:.1f} ms", f"{spread.p95:.1f} ms", f"{spread.worst:.1f} ms"]
        )
    rows += [
        ["waiting for a worker (mean)", f"{phases.waited * 1000:.0f} ms", "", ""],
        ["transfer (mean)", f"{phases.transferring * 1000:.1f} ms", "", ""],
    ]
    return Table(title="Time by step", headings=["step", "p50", "p95", "worst"], rows=rows)


def _processes(usage: Usage, *, count: int) -> Table:
    return Table(
        title="CPU by process",
        headings=["process", "CPU ms per upload", "peak RSS of its largest process"],
        rows=[
            [name, f"{seconds / count * 1000:.1f}", f"{usage.largest_mib[name]:.0f} MiB"]
            for name, seconds in usage.cpu_seconds.items()
        ],
    )
