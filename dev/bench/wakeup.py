"""From the commit of finalize to the start of the task, beside a plain Celery task on the same broker.

Ours: the outbox row is committed, the relay is woken, publishes with a confirm,
the worker validates the event and its task claims the upload. The figure is the
claim's time minus the finalize transaction's *start*, so the commit itself is
counted in. The peer: `apply_async` straight to a Celery worker, from the call to
the first line of the task; nothing is stored, nothing confirmed.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from dev.bench.figures import Spread
from dev.client import Chunk, Client
from dev.stack.checkout import CHECKOUT

ROUNDS: Final = 200
PATIENCE: Final = timedelta(seconds=30)


def ours(client: Client, *, rounds: int = ROUNDS) -> Spread:
    waits = []
    for _ in range(rounds):
        created = client.create_upload(filename="note.txt", size=4)
        client.put_chunk(created["upload_id"], Chunk(index=0, content=b"note")).raise_for_status()
        job_id = client.finalize(created["upload_id"]).json()["job_id"]
        job = client.wait_until_settled(job_id, patience=PATIENCE)
        began, started = (datetime.fromisoformat(job[at]) for at in ("created_at", "started_at"))
        waits.append((started - began).total_seconds() * 1000)
    return Spread.of(waits)


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
