"""Documents that are read while readers, workers and their connections to the broker are killed."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import psutil
from sqlalchemy import create_engine, text

from dev.bench.papers import Scan, Words, write_scanned_pdf, write_text_pdf
from dev.client import Client
from tests.e2e.deployment import Deployment
from tests.e2e.files import retrying, settled

PAGES: Final = 6
READING: Final = ("ingest", "batch", "metadata", "ocr")
"""The workers that read documents."""
SCANS_EVERY: Final = 20
"""One document in so many is a scan, because OCR of a page takes seconds."""

# One published revision with every page once, and one event, for every document.
_WRONG: Final = text(
    """
    SELECT documents.id, documents.status,
           (SELECT count(*) FROM revisions WHERE document_id = documents.id AND state = 'published') AS published,
           (SELECT array_agg(number ORDER BY number) FROM pages WHERE revision_id = documents.revision_id) AS pages,
           (SELECT count(*) FROM events WHERE document_id = documents.id AND type = 'document.ingested') AS events
    FROM documents WHERE job_id = ANY (:jobs)
    """
)
_RUNNING: Final = text(
    "SELECT count(*) FROM steps WHERE job_id = ANY (:jobs) AND status NOT IN ('completed', 'failed', 'cancelled')"
)


def assert_documents_survive_kills(
    deployment: Deployment, *, documents: int, kills: int, directory: Path, seed: int
) -> None:
    """Upload documents while a process that reads is killed now and then; each is read once, as a whole."""
    random = Random(seed)
    words = Words(seed=seed)
    printed, scanned = directory / "printed.pdf", directory / "scanned.pdf"
    write_text_pdf(printed, pages=PAGES, words=words)
    write_scanned_pdf(scanned, [Scan(words, turn_degrees=0)])
    victims = cycle(_kinds_of_kills(deployment, random))
    kill_after = {(number + 1) * documents // (kills + 1) for number in range(kills)}
    jobs: dict[str, int] = {}
    killed = 0
    with ThreadPoolExecutor(4) as pool:
        uploads = []
        for number in range(documents):
            is_scan = number % SCANS_EVERY == SCANS_EVERY // 2
            path, pages = (scanned, 1) if is_scan else (printed, PAGES)
            uploads.append(
                pool.submit(_upload, deployment.client, path, pages=pages, number=number)
            )
        for done, upload in enumerate(as_completed(uploads), 1):
            job_id, pages = upload.result()
            jobs[job_id] = pages
            if done in kill_after:
                killed += next(victims)()
    ended = [settled(deployment.client, job_id) for job_id in jobs]

    assert killed >= kills // 2, f"only {killed} of {kills} kills met a process"
    assert {job["status"] for job in ended} == {"completed"}, _unfinished(ended)
    rows = _rows(deployment.system.environment, jobs=list(jobs))
    assert len(rows) == documents
    expected = {
        job["result"]["document_id"]: list(range(1, jobs[job["job_id"]] + 1)) for job in ended
    }
    wrong = [
        row
        for row in rows
        if (row.status, row.published, row.pages, row.events)
        != ("ingested", 1, expected[str(row.id)], 1)
    ]
    assert not wrong, wrong


def _upload(client: Client, path: Path, *, pages: int, number: int) -> tuple[str, int]:
    # Other bytes for every document: the result of the same bytes is reused.
    content = path.read_bytes() + f"\n% {number}\n".encode()
    for attempt in retrying():
        with attempt:
            answer = client.http.post(
                "/upload-async",
                files={"file": (f"{number}.pdf", content, "application/pdf")},
                headers={"Idempotency-Key": f"killed-readers-{path.stat().st_ino}-{number}"},
            )
            answer.raise_for_status()
    return str(answer.json()["job_id"]), pages


def _kinds_of_kills(deployment: Deployment, random: Random) -> Iterator[Callable[[], int]]:
    """Yield functions that kill one process, and return how many they killed."""
    for name in READING:
        if name in deployment.system.processes:
            for processes in (_readers_of, _workers_of):
                yield partial(_kill_one, processes, deployment, name, random=random)


def _workers_of(deployment: Deployment, name: str) -> list[psutil.Process]:
    """Return the worker's main process and its pool processes."""
    pid = deployment.system.processes[name].pid
    if pid is None:
        return []
    with suppress(psutil.NoSuchProcess):
        main = psutil.Process(pid)
        return [main, *main.children()]
    return []


def _readers_of(deployment: Deployment, name: str) -> list[psutil.Process]:
    """Return the sandbox children of the worker's pool processes."""
    found = []
    for worker in _workers_of(deployment, name)[1:]:
        with suppress(psutil.NoSuchProcess):
            found += worker.children()
    return found


def _kill_one(
    processes: Callable[[Deployment, str], list[psutil.Process]],
    deployment: Deployment,
    name: str,
    *,
    random: Random,
) -> int:
    """Kill one of the processes that are found, and return how many were killed: one or none."""
    found = processes(deployment, name)
    if not found:
        return 0
    with suppress(ProcessLookupError):
        os.kill(random.choice(found).pid, signal.SIGKILL)
        return 1
    return 0


def _rows(environment: Mapping[str, str], *, jobs: list[str]) -> list[Any]:
    engine = create_engine(environment["DATABASE_URL"])
    ids = [UUID(job) for job in jobs]
    try:
        with engine.connect() as connection:
            assert connection.execute(_RUNNING, {"jobs": ids}).scalar_one() == 0
            return list(connection.execute(_WRONG, {"jobs": ids}).all())
    finally:
        engine.dispose()


def _unfinished(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [job for job in jobs if job["status"] != "completed"][:3]
