"""Title and thumbnail of a document while heavy documents occupy every reader of text."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Final

import psycopg

from dev.bench.figures import Spread
from dev.bench.papers import Words, write_dense_pdf, write_text_pdf
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.client import Client

SERVICES: Final = ("gateway", "relay", "transfer", "metadata", "ingest", "batch")
TIMEOUT: Final = timedelta(minutes=10)
POLL_INTERVAL: Final = timedelta(milliseconds=20)
WARM_UPS: Final = 3
GOAL: Final = timedelta(seconds=2)

READERS: Final = 2
"""Processes of the worker of `document_processing`."""
BUSY: Final = """
    SELECT count(*) FILTER (WHERE name = 'ingest') > %s AND count(*) FILTER (WHERE name = 'ingest_rest') > 0
    FROM steps WHERE job_id = ANY (%s) AND status IN ('waiting', 'queued', 'running')
"""
"""More heavy documents are left for both lanes than processes can read at once."""
DESCRIBED: Final = """
    SELECT extract(epoch FROM metadata.finished_at - transfer.finished_at)::float,
           revisions.title IS NOT NULL AND revisions.has_thumbnail
    FROM steps AS metadata
    JOIN steps AS transfer ON transfer.job_id = metadata.job_id AND transfer.name = 'transfer'
    JOIN revisions ON revisions.job_id = metadata.job_id
    WHERE metadata.job_id = %s AND metadata.name = 'metadata' AND metadata.status = 'completed'
"""


@dataclass(frozen=True, kw_only=True)
class Extent:
    heavy: int
    """Heavy documents."""
    heavy_pages: int
    papers: int
    """Measured documents, alone and beside the heavy ones."""


FULL: Final = Extent(heavy=24, heavy_pages=600, papers=40)
QUICK: Final = Extent(heavy=8, heavy_pages=600, papers=3)


class NotBusy(Exception):
    """The heavy documents no longer occupy every reader: the measurement would be too good."""


def run(system: System, *, extent: Extent) -> Section:
    system.run_only(*SERVICES)
    words = Words(seed=6)
    paper, heavy = system.scratch / "paper.pdf", system.scratch / "heavy.pdf"
    write_text_pdf(paper, pages=1, words=words)
    write_dense_pdf(heavy, pages=extent.heavy_pages, words=words)
    content, numbers = paper.read_bytes(), count()
    with (
        system.database() as database,
        Client(system.url, api_key=system.other_api_key("bench-papers")) as client,
    ):

        def described() -> float:
            return _described(client, database, _numbered(content, next(numbers)))

        for _ in range(WARM_UPS):
            described()
        alone = Spread.of([described() for _ in range(extent.papers)])
        beside = []
        with _readers_occupied(system, database, heavy, documents=extent.heavy) as jobs:
            for number in range(extent.papers):
                _check_busy(database, jobs)
                beside.append(described())
                _check_busy(database, jobs)
                system.report(f"lanes: paper {number + 1}: {beside[-1] * 1000:.0f} ms")
    system.empty_bucket()
    return section(alone, Spread.of(beside), extent=extent)


@contextmanager
def _readers_occupied(
    system: System, database: psycopg.Connection, heavy: Path, *, documents: int
) -> Iterator[Sequence[str]]:
    """Have every reader of text read heavy documents; yield their jobs, and cancel them at the end."""
    content = heavy.read_bytes()
    with Client(system.url, api_key=system.api_key) as client:
        sent = [_send(client, _numbered(content, number)) for number in range(documents)]
        jobs = [job["job_id"] for job in sent]
        deadline = time.monotonic() + TIMEOUT.total_seconds()
        while not _is_busy(database, jobs):
            if time.monotonic() > deadline:
                raise NotBusy
            time.sleep(POLL_INTERVAL.total_seconds())
        yield jobs
        for job in sent:
            client.http.delete(
                f"/uploads/{job['upload_id']}", params={"purge": True}
            ).raise_for_status()
        for job_id in jobs:
            client.wait_until_settled(job_id, timeout=TIMEOUT)


def _check_busy(database: psycopg.Connection, jobs: Sequence[str]) -> None:
    if not _is_busy(database, jobs):
        raise NotBusy


def _is_busy(database: psycopg.Connection, jobs: Sequence[str]) -> bool:
    return database.execute(BUSY, (READERS, [*jobs])).fetchone() == (True,)


def _numbered(content: bytes, number: int) -> bytes:
    # The result of the same bytes is reused. The time makes the bytes differ between runs.
    return content + f"\n% {number} {datetime.now(UTC).isoformat()}\n".encode()


def _send(client: Client, content: bytes) -> dict[str, str]:
    answer = client.http.post(
        "/upload-async", files={"file": ("paper.pdf", content, "application/pdf")}
    )
    answer.raise_for_status()
    job: dict[str, str] = answer.json()
    return job


def _described(client: Client, database: psycopg.Connection, content: bytes) -> float:
    """Upload a document; return the seconds from its storing until title and thumbnail are ready."""
    job_id = _send(client, content)["job_id"]
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while (row := database.execute(DESCRIBED, (job_id,)).fetchone()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"job {job_id} is not described")
        time.sleep(POLL_INTERVAL.total_seconds())
    seconds: float = row[0]
    if not row[1]:
        raise AssertionError(f"job {job_id} has no title or no thumbnail")
    return seconds


def section(alone: Spread, beside: Spread, *, extent: Extent) -> Section:
    """Compare the seconds of papers alone with those of papers beside heavy documents."""
    goal = GOAL.total_seconds()
    return Section(
        title="Title and thumbnail",
        question=(
            f"Documents of one page, one after another: the time from `upload.stored` until title,"
            " page count and thumbnail are ready, alone and while"
            f" {extent.heavy} documents of another tenant, {extent.heavy_pages} pages of 5,000 words each, keep"
            " both processes of `document_processing` and the one of `batch_processing` busy."
            f" {extent.papers} documents each."
        ),
        tables=[
            Table(
                headings=["milliseconds", "p50", "p95", "worst"],
                rows=[
                    [name, *(f"{value * 1000:.0f}" for value in (each.p50, each.p95, each.worst))]
                    for name, each in (("alone", alone), ("beside heavy documents", beside))
                ],
            )
        ],
        remarks=[
            f"The slowest is {'within' if beside.worst <= goal else 'above'} the goal of {goal:g} s."
        ],
        measured_on=datetime.now(UTC).date(),
    )
