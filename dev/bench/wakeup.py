"""From the commit of finalize to the start of the task, beside a plain Celery task on the same broker.

Ours: the outbox row is committed, the relay is woken, publishes with a confirm,
the worker validates the event and its task claims the upload. The commit's time is
taken when its NOTIFY reaches this process, well under a millisecond after it; the
second figure counts from the start of the finalize transaction, so with the commit's
own sync to disk. The peer: `apply_async` straight to a Celery worker, from the call
to the first line of the task; nothing is stored, nothing confirmed.
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
from sqlalchemy.engine import make_url

from dev.bench.figures import Spread
from dev.client import Chunk, Client
from dev.stack.checkout import CHECKOUT
from schemas.tables.outbox import WAKE_CHANNEL

ROUNDS: Final = 200
PATIENCE: Final = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Milliseconds until the task claimed the upload."""

    from_commit: Spread
    from_begin: Spread


def ours(client: Client, *, database_url: str, rounds: int = ROUNDS) -> Waits:
    from_commit, from_begin = [], []
    url = make_url(database_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as listener:
        listener.execute(f"LISTEN {WAKE_CHANNEL}")
        for _ in range(rounds):
            created = client.create_upload(filename="note.txt", size=4)
            upload_id = created["upload_id"]
            client.put_chunk(upload_id, Chunk(index=0, content=b"note")).raise_for_status()
            with ThreadPoolExecutor(1) as waiting:
                committed = waiting.submit(_next_commit, listener)
                job_id = client.finalize(upload_id).json()["job_id"]
                commit = committed.result()
            job = client.wait_until_settled(job_id, patience=PATIENCE)
            begin, claimed = (
                datetime.fromisoformat(job[moment]) for moment in ("created_at", "started_at")
            )
            from_commit.append((claimed - commit).total_seconds() * 1000)
            from_begin.append((claimed - begin).total_seconds() * 1000)
            # The job's later events notify too.
            for _ in listener.notifies(timeout=0.2):
                continue
    return Waits(from_commit=Spread.of(from_commit), from_begin=Spread.of(from_begin))


def _next_commit(listener: psycopg.Connection) -> datetime:
    for _ in listener.notifies(timeout=PATIENCE.total_seconds(), stop_after=1):
        return datetime.now(UTC)
    msg = f"no commit within {PATIENCE}"
    raise TimeoutError(msg)


def plain_celery(broker_url: str, *, rounds: int = ROUNDS) -> Spread:
    from dev.bench.plain_celery import app, note_start  # noqa: PLC0415  # configured by its URL below

    app.conf.update(broker_url=broker_url)
    with TemporaryDirectory() as directory:
        starts = Path(directory) / "starts"
        starts.touch()
        with _worker(broker_url):
            waits = []
            for number in range(rounds):
                called = time.time()
                note_start.apply_async(args=(str(starts), number))
                waits.append((_start_of(starts, number) - called) * 1000)
    return Spread.of(waits)


def _start_of(starts: Path, number: int) -> float:
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while time.monotonic() < deadline:
        lines = starts.read_text().splitlines()
        if len(lines) > number:
            return float(lines[number])
        time.sleep(0.001)
    msg = f"task {number} did not start within {PATIENCE}"
    raise TimeoutError(msg)


@contextmanager
def _worker(broker_url: str) -> Iterator[None]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "dev.bench.plain_celery", "-b", broker_url),
            *("worker", "-c", "2", "--without-gossip", "--without-mingle", "-l", "WARNING"),
        ],
        cwd=CHECKOUT,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()
