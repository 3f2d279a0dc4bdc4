"""Documents that are read while readers and workers are killed and connections to the broker cut."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import psutil
from sqlalchemy import create_engine, text

from dev.bench.papers import Scan, Words, write_dense_pdf, write_scanned_pdf, write_text_pdf
from dev.client import Client
from tests.e2e.broker_proxy import BrokerProxy
from tests.e2e.deployment import Deployment
from tests.e2e.files import retrying, settled
from tests.eventually import eventually

PAGES: Final = 6
READING: Final = ("ingest", "batch", "metadata", "ocr")
"""The workers that read documents."""
SCANS_EVERY: Final = 20
"""One document in so many is a scan, because OCR of a page takes seconds."""
LONG_EVERY: Final = 40
"""One document in so many takes more than its share of CPU time: the batch lane reads its rest."""
LONG_PAGES: Final = 60
ENDED_WITHIN: Final = timedelta(minutes=10)
"""Longer than a wait in the last retry tier."""
CLIENTS: Final = 24
"""Each waits for its document: a document that waits in a retry tier leaves work for the readers."""

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
    deployment: Deployment,
    broker_proxy: BrokerProxy,
    *,
    documents: int,
    kills: int,
    directory: Path,
    seed: int,
) -> None:
    """Read documents while something that reads is killed now and then; each is read once, as a whole.

    A kill ends a reader or a process of a worker, or cuts every connection to the broker. The kills
    are spread over the documents that have ended.
    """
    random = Random(seed)
    words = Words(seed=seed)
    printed, scanned, long = (directory / f"{name}.pdf" for name in ("printed", "scanned", "long"))
    write_text_pdf(printed, pages=PAGES, words=words)
    write_scanned_pdf(scanned, [Scan(words, turn_degrees=0)])
    write_dense_pdf(long, pages=LONG_PAGES, words=words)
    victims = cycle(_kinds_of_kills(deployment, broker_proxy, random))
    kill_after = {(number + 1) * documents // (kills + 1) for number in range(kills)}
    pages: dict[str, int] = {}
    ended: list[dict[str, Any]] = []
    killed: Counter[str] = Counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        reading = {}
        for number in range(documents):
            if number % SCANS_EVERY == SCANS_EVERY // 2:
                path, page_count = scanned, 1
            elif number % LONG_EVERY == LONG_EVERY // 2 + 1:
                path, page_count = long, LONG_PAGES
            else:
                path, page_count = printed, PAGES
            future = pool.submit(_read, deployment.client, path, number=number)
            reading[future] = page_count
        for done, each in enumerate(as_completed(reading), 1):
            job = each.result()
            ended.append(job)
            pages[job["job_id"]] = reading[each]
            if done in kill_after:
                kind, kill = next(victims)
                killed[kind] += kill()

    assert killed.total() >= kills // 2, f"of {kills} kills these met something: {killed}"
    assert {job["status"] for job in ended} == {"completed"}, _unfinished(ended)
    rows = _rows(deployment.system.environment, jobs=list(pages))
    assert len(rows) == documents
    expected = {
        job["result"]["document_id"]: list(range(1, pages[job["job_id"]] + 1)) for job in ended
    }
    wrong = [
        row
        for row in rows
        if (row.status, row.published, row.pages, row.events)
        != ("ingested", 1, expected[str(row.id)], 1)
    ]
    assert not wrong, wrong


def _read(client: Client, path: Path, *, number: int) -> dict[str, Any]:
    """Upload a file and return its job once it has ended."""
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
    return settled(client, str(answer.json()["job_id"]), timeout=ENDED_WITHIN)


def _kinds_of_kills(
    deployment: Deployment, broker_proxy: BrokerProxy, random: Random
) -> Iterator[tuple[str, Callable[[], int]]]:
    """Yield names and functions that kill one process or cut connections; each returns how many kills it was."""
    for name in READING:
        yield f"reader of {name}", partial(_kill_one, _readers_of, deployment, name, random=random)
        yield f"worker {name}", partial(_kill_one, _workers_of, deployment, name, random=random)
        yield "connections", lambda: int(broker_proxy.cut() > 0)


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
            # A job does not wait for the vectors of its document.
            eventually(
                lambda: connection.execute(_RUNNING, {"jobs": ids}).scalar_one(),
                until=lambda running: running == 0,
                within=timedelta(minutes=2),
            )
            return list(connection.execute(_WRONG, {"jobs": ids}).all())
    finally:
        engine.dispose()


def _unfinished(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [job for job in jobs if job["status"] != "completed"][:3]
