"""A batch of a million lines that is accepted, and interactive documents beside a batch that runs."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from statistics import median
from typing import Any, Final
from uuid import uuid4

import psycopg

from dev.bench.figures import Ratio, Spread
from dev.bench.papers import Words, write_text_pdf
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.bench.usage import watched
from dev.client import Client
from dev.stack.object_store import ObjectStore

TENANT: Final = "bench-batches"
TIMEOUT: Final = timedelta(minutes=15)
LINES_PER_PIECE: Final = 500
GOAL_LINES: Final = 10_000
"""Lines per second."""
GOAL_START: Final = timedelta(seconds=2)
SERVICES: Final = ("gateway", "relay", "transfer", "metadata", "ingest", "batch")

COPY: Final = """
    COPY batch_lines (batch_id, line, state, source) FROM STDIN
"""
STARTED: Final = """
    SELECT extract(epoch FROM transfer.started_at - jobs.created_at)::float,
           extract(epoch FROM ingest.started_at - ingest.queued_at)::float
    FROM jobs
    JOIN steps AS transfer ON transfer.job_id = jobs.id AND transfer.name = 'transfer'
    JOIN steps AS ingest ON ingest.job_id = jobs.id AND ingest.name = 'ingest'
    WHERE jobs.id = %s
"""


@dataclass(frozen=True, kw_only=True)
class Extent:
    lines: tuple[int, ...]
    """Of the accepted batches."""
    rounds: int
    documents: int
    """Of the batch that runs."""
    papers: int
    """Measured interactive documents, alone and beside the batch."""


FULL: Final = Extent(lines=(100_000, 1_000_000), rounds=3, documents=2_000, papers=20)
QUICK: Final = Extent(lines=(5_000, 20_000), rounds=1, documents=60, papers=3)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """One batch, from the first byte of its body until the answer."""

    seconds: float
    copied_seconds: float
    peak_mib: float
    grown_mib: float


class BatchEndedEarly(Exception):
    """The batch ended before the last interactive document: the measurement would be too good."""


def run(system: System, *, extent: Extent) -> Section:
    accepted = _accept(system, extent=extent)
    alone, beside, throughput = _start(system, extent=extent)
    return _section(accepted, alone, beside, throughput=throughput, extent=extent)


def _accept(system: System, *, extent: Extent) -> dict[int, list[Accepted]]:
    system.run_only("gateway")
    api_key = system.other_api_key(TENANT)
    runs: dict[int, list[Accepted]] = {lines: [] for lines in extent.lines}
    with system.database() as database, Client(system.url, api_key=api_key) as client:
        tenant_id = _tenant_id(database)
        for _ in range(extent.rounds):
            for lines in extent.lines:
                run = _accept_one(system, database, client, tenant_id=tenant_id, lines=lines)
                runs[lines].append(run)
                system.report(f"batches: {lines / run.seconds:,.0f} lines/s of {lines:,}")
    return runs


def _accept_one(
    system: System, database: psycopg.Connection, client: Client, *, tenant_id: str, lines: int
) -> Accepted:
    with watched({"gateway": system.pid_of("gateway")}) as usage:
        began = time.monotonic()
        batch = _post(client, _body(tenant_id, lines=lines))
        seconds = time.monotonic() - began
    if batch["counts"]["waiting"] != lines:
        raise RuntimeError(f"the batch has not every line: {batch}")
    copied_seconds = _copy(database, tenant_id, lines=lines)
    _delete(database, batch["batch_id"])
    return Accepted(
        seconds=seconds,
        copied_seconds=copied_seconds,
        peak_mib=usage.largest_mib["gateway"],
        grown_mib=usage.grown_mib["gateway"],
    )


def _post(client: Client, body: Iterator[bytes]) -> dict[str, Any]:
    answer = client.http.post(
        "/batches",
        content=body,
        headers={"Content-Type": "application/x-ndjson"},
        timeout=TIMEOUT.total_seconds(),
    )
    answer.raise_for_status()
    batch: dict[str, Any] = answer.json()
    return batch


def _line(tenant_id: str, number: int) -> bytes:
    key = f"incoming/{tenant_id}/2026/invoice-{number:07}.pdf"
    return json.dumps({"object_key": key, "metadata": {"customer": f"C-{number}"}}).encode()


def _body(tenant_id: str, *, lines: int) -> Iterator[bytes]:
    for first in range(0, lines, LINES_PER_PIECE):
        yield b"".join(
            _line(tenant_id, number) + b"\n"
            for number in range(first, min(first + LINES_PER_PIECE, lines))
        )


def _copy(database: psycopg.Connection, tenant_id: str, *, lines: int) -> float:
    """Write the same rows by one COPY; return the seconds."""
    batch_id = uuid4()
    database.execute(
        "INSERT INTO batches (id, tenant_id, status, lines, expires_at)"
        " VALUES (%s, %s, 'receiving', %s, now())",
        (batch_id, tenant_id, lines),
    )
    began = time.monotonic()
    with database.cursor().copy(COPY) as copy:
        for first in range(0, lines, LINES_PER_PIECE):
            copy.write(
                b"".join(
                    b"%b\t%d\twaiting\t%b\n"
                    % (str(batch_id).encode(), number + 1, _line(tenant_id, number))
                    for number in range(first, min(first + LINES_PER_PIECE, lines))
                )
            )
    seconds = time.monotonic() - began
    _delete(database, str(batch_id))
    return seconds


def _delete(database: psycopg.Connection, batch_id: str) -> None:
    database.execute(
        "DELETE FROM jobs WHERE id = (SELECT job_id FROM batches WHERE id = %s)", (batch_id,)
    )
    database.execute("DELETE FROM batches WHERE id = %s", (batch_id,))
    database.execute("VACUUM batch_lines")


def _start(system: System, *, extent: Extent) -> tuple[list[Spread], list[Spread], float]:
    """Measure interactive documents alone and beside a batch of the same tenant.

    Returns:
        The seconds until the transfer starts and until the reading starts, alone and beside the
        batch; and the documents of the batch per second.
    """
    system.run_only(*SERVICES)
    paper = system.scratch / "paper.pdf"
    write_text_pdf(paper, pages=1, words=Words(seed=13))
    content, numbers = paper.read_bytes(), count()
    api_key = system.other_api_key(TENANT)
    with system.database() as database, Client(system.url, api_key=api_key) as client:
        tenant_id = _tenant_id(database)
        _fill(system, tenant_id, content, documents=extent.documents)

        def started() -> tuple[float, float]:
            return _started(client, database, content + f"\n% {next(numbers)} {uuid4()}\n".encode())

        started()
        alone = [started() for _ in range(extent.papers)]
        batch = _post(client, _body(tenant_id, lines=extent.documents))
        began = time.monotonic()
        _wait_for(client, batch["batch_id"], completed=1)
        beside = []
        for number in range(extent.papers):
            beside.append(started())
            if _batch(client, batch["batch_id"])["status"] != "processing":
                raise BatchEndedEarly
            system.report(f"batches: paper {number + 1}: {beside[-1][0] * 1000:.0f} ms")
        completed = _batch(client, batch["batch_id"])["counts"]["completed"]
        throughput = completed / (time.monotonic() - began)
        client.http.post(f"/batches/{batch['batch_id']}/cancel").raise_for_status()
        client.wait_until_settled(batch["job_id"], timeout=TIMEOUT)
    system.empty_bucket()
    return _spreads(alone), _spreads(beside), throughput


def _spreads(samples: list[tuple[float, float]]) -> list[Spread]:
    return [Spread.of([sample[which] for sample in samples]) for which in (0, 1)]


def _fill(system: System, tenant_id: str, content: bytes, *, documents: int) -> None:
    """Put the objects of the batch into the bucket; each is another document."""
    store = ObjectStore.from_settings(system.stack.environment)
    bucket = system.stack.environment["S3_BUCKET"]

    def put(number: int) -> None:
        key = json.loads(_line(tenant_id, number))["object_key"]
        store.client.put_object(
            Bucket=bucket, Key=key, Body=content + f"\n% object {number}\n".encode()
        )

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(put, range(documents)):
            pass


def _started(client: Client, database: psycopg.Connection, content: bytes) -> tuple[float, float]:
    """Upload a document; return the seconds until its transfer starts, and until its reading does."""
    answer = client.http.post(
        "/upload-async", files={"file": ("paper.pdf", content, "application/pdf")}
    )
    answer.raise_for_status()
    job_id = answer.json()["job_id"]
    job = client.wait_until_settled(job_id, timeout=TIMEOUT)
    if job["status"] != "completed":
        raise RuntimeError(f"the document was not read: {job}")
    row = database.execute(STARTED, (job_id,)).fetchone()
    if row is None:
        raise RuntimeError(f"job {job_id} has no such steps")
    return row[0], row[1]


def _wait_for(client: Client, batch_id: str, *, completed: int) -> None:
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while _batch(client, batch_id)["counts"]["completed"] < completed:
        if time.monotonic() > deadline:
            raise TimeoutError(f"batch {batch_id} completes no document")
        time.sleep(0.2)


def _batch(client: Client, batch_id: str) -> dict[str, Any]:
    batch: dict[str, Any] = client.get(f"/batches/{batch_id}").json()
    return batch


def _tenant_id(database: psycopg.Connection) -> str:
    found = database.execute("SELECT id::text FROM tenants WHERE name = %s", (TENANT,)).fetchone()
    if found is None:
        raise RuntimeError(f"there is no tenant {TENANT}")
    return str(found[0])


def _section(
    accepted: dict[int, list[Accepted]],
    alone: list[Spread],
    beside: list[Spread],
    *,
    throughput: float,
    extent: Extent,
) -> Section:
    slowest = min(lines / median(run.seconds for run in runs) for lines, runs in accepted.items())
    p95 = beside[0].p95
    return Section(
        title="Batches",
        question=(
            "Lines with a key and one name of metadata, streamed by one client, from the first byte"
            " until the answer; beside them one `COPY` of the same rows. Then interactive documents"
            " of one page, one after another, alone and while a batch of the same tenant runs:"
            f" {extent.documents:,} documents like them. {extent.papers} documents each."
        ),
        tables=[_accepted_table(accepted), _started_table(alone, beside)],
        remarks=[
            (
                f"Lines are accepted {'faster' if slowest >= GOAL_LINES else 'slower'} than the goal"
                f" of {GOAL_LINES:,} lines/s. The client makes each line in Python, on the same machine."
            ),
            (
                f"Transfers beside the batch start {'within' if p95 <= GOAL_START.total_seconds() else 'later than'}"
                f" the goal of {GOAL_START.total_seconds():g} s (p95)."
                f" Meanwhile the batch completes {throughput:.1f} documents/s."
            ),
        ],
        measured_on=datetime.now(UTC).date(),
    )


def _accepted_table(accepted: dict[int, list[Accepted]]) -> Table:
    return Table(
        title="Accepted",
        headings=["lines", "lines/s", "times COPY (range)", "peak RSS", "over idle"],
        rows=[
            [
                f"{lines:,}",
                f"{lines / median(run.seconds for run in runs):,.0f}",
                str(
                    Ratio.between(
                        [run.copied_seconds for run in runs], [run.seconds for run in runs]
                    )
                ),
                f"{max(run.peak_mib for run in runs):.0f} MiB",
                f"{max(run.grown_mib for run in runs):.0f} MiB",
            ]
            for lines, runs in accepted.items()
        ],
    )


def _started_table(alone: list[Spread], beside: list[Spread]) -> Table:
    return Table(
        title="Time until an interactive document starts",
        headings=["milliseconds", "p50", "p95", "worst"],
        rows=[
            [
                f"{step}, {condition}",
                *(f"{value * 1000:.0f}" for value in (each.p50, each.p95, each.worst)),
            ]
            for condition, spreads in (("alone", alone), ("beside the batch", beside))
            for step, each in zip(("transfer", "reading"), spreads, strict=True)
        ],
    )
