"""Time from the commit of finalize to the start of the task, compared with a plain Celery task.

Waybill: the outbox row is committed, the relay wakes and publishes with a confirm, the worker
validates the event, and its task claims the upload. The commit is timed by its NOTIFY, which
arrives within a millisecond; the second figure starts with the finalize transaction and
includes the commit's sync to disk. The peer: `apply_async` to a Celery worker on the same
broker, from the call to the first line of the task, without storage and without confirms.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from dev.bench import machine
from dev.bench.figures import Spread
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.client import Chunk, Client
from dev.stack.checkout import CHECKOUT
from schemas.tables.outbox import WAKE_CHANNEL

WARM_UPS: Final = 4
"""Two for each process of a worker; not counted."""
TIMEOUT: Final = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Milliseconds until the task claimed the upload."""

    from_commit: Spread
    from_begin: Spread


def run(system: System, *, rounds: int) -> Section:
    system.run_only("gateway", "relay", "transfer")
    with Client(system.url, api_key=system.api_key) as client:
        own = _ours(client, system=system, rounds=rounds)
    system.empty_bucket()
    broker = system.stack.create_vhost("bench-peer")["RABBITMQ_URL"]
    try:
        plain = _plain_celery(broker, rounds=rounds, log_file=system.scratch / "celery.log")
    finally:
        system.stack.delete_vhost("bench-peer")
    rows = [
        [name, f"{spread.p50:.1f} ms", f"{spread.p95:.1f} ms", f"{spread.worst:.1f} ms"]
        for name, spread in (
            ("finalize committed → claimed by the worker", own.from_commit),
            ("finalize begun → claimed by the worker", own.from_begin),
            ("plain Celery, `apply_async` → task", plain),
        )
    ]
    ratio = own.from_commit.p50 / plain.p50
    return Section(
        title="Waking a worker",
        question=(
            f"From the commit of finalize to the claim of the upload, {rounds} times, one at a time:"
            " the outbox row wakes the relay, which publishes with a confirm; the worker validates"
            " the event and claims the upload. The peer is the smallest Celery task on the"
            " same broker, without storage and without confirms."
        ),
        tables=[Table(headings=["", "p50", "p95", "worst"], rows=rows)],
        remarks=[f"Ratio of the medians: {ratio:.2f} (lower is better)."],
        peers=machine.versions_of("celery"),
        measured_on=datetime.now(UTC).date(),
    )


def _ours(client: Client, *, system: System, rounds: int) -> Waits:
    from_commit, from_begin = [], []
    with system.database() as listener:
        listener.execute(f"LISTEN {WAKE_CHANNEL}")
        for _ in range(rounds + WARM_UPS):
            created = client.create_upload(filename="note.bin", size=4)
            upload_id = created["upload_id"]
            client.put_chunk(upload_id, Chunk(index=0, content=b"note")).raise_for_status()
            with ThreadPoolExecutor(1) as waiting:
                committed = waiting.submit(_next_commit, listener)
                job_id = client.finalize(upload_id).json()["job_id"]
                commit = committed.result()
            job = client.wait_until_settled(job_id, timeout=TIMEOUT)
            begin, claimed = (
                datetime.fromisoformat(job[moment]) for moment in ("created_at", "started_at")
            )
            from_commit.append((claimed - commit).total_seconds() * 1000)
            from_begin.append((claimed - begin).total_seconds() * 1000)
            # Discard the notifications of the job's later events.
            for _ in listener.notifies(timeout=0.2):
                continue
    return Waits(
        from_commit=Spread.of(from_commit[WARM_UPS:]), from_begin=Spread.of(from_begin[WARM_UPS:])
    )


def _next_commit(listener: psycopg.Connection) -> datetime:
    for _ in listener.notifies(timeout=TIMEOUT.total_seconds(), stop_after=1):
        return datetime.now(UTC)
    raise TimeoutError(f"no commit within {TIMEOUT}")


def _plain_celery(broker_url: str, *, rounds: int, log_file: Path) -> Spread:
    from dev.bench.plain_celery import app, note_start  # noqa: PLC0415  # configured below

    app.conf.update(broker_url=broker_url)
    with TemporaryDirectory() as directory:
        starts = Path(directory) / "starts"
        starts.touch()
        with _worker(broker_url, log_file=log_file):
            waits = []
            for number in range(rounds + WARM_UPS):
                called = time.time()
                note_start.apply_async(args=(str(starts), number))
                waits.append((_start_of(starts, number) - called) * 1000)
    return Spread.of(waits[WARM_UPS:])


def _start_of(starts: Path, number: int) -> float:
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        lines = starts.read_text().splitlines()
        if len(lines) > number:
            return float(lines[number])
        time.sleep(0.001)
    raise TimeoutError(f"task {number} did not start within {TIMEOUT}")


@contextmanager
def _worker(broker_url: str, *, log_file: Path) -> Iterator[None]:
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "dev.bench.plain_celery", "-b", broker_url),
                *("worker", "-c", "2", "--without-gossip", "--without-mingle", "-l", "WARNING"),
            ],
            cwd=CHECKOUT,
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()
