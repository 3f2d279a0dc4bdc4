"""The broker, the database and the store restart under load: nobody is needed, so nothing is an error."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from dev.client import Chunk, Client, chunks_of
from dev.demo import paper
from dev.stack.execution import Executed
from dev.stack.stack import Stack
from tests.e2e.deployment import SETTINGS
from tests.e2e.files import random_file, retrying, settled
from tests.eventually import eventually
from tests.fakes.receiver import Receiver
from tests.killable import Killable

pytestmark = pytest.mark.timeout(420)

DOWN_SECONDS: Final = 6
"""Long enough for several attempts to reconnect, and for a retry tier to return its messages."""


def errors(system: Stack) -> list[dict[str, Any]]:
    """Return the log lines of all processes that call an operator, with the name of the process."""
    found = []
    for log in sorted((system.state_dir / "log").glob("*.log")):
        for line in log.read_text().splitlines():
            if line.startswith("{") and (entry := json.loads(line))["level"] in {
                "error",
                "critical",
            }:
                found.append({"process": log.stem, **entry})
            elif line.startswith("Traceback"):
                found.append({"process": log.stem, "event": line})
    return found


class Uploads:
    """Clients that upload without a pause until the block ends."""

    def __init__(self, client: Client, files: list[Path]) -> None:
        self._client = client
        self._files = files
        self._stopped = threading.Event()
        self.job_ids: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(3) as pool:
            clients = [
                pool.submit(self._upload_until_stopped),
                pool.submit(self._upload_until_stopped),
                pool.submit(self._follow_until_stopped),
            ]
            try:
                yield
            finally:
                self._stopped.set()
        for each in clients:
            each.result()

    def wait_for(self, more: int) -> None:
        enough = len(self.job_ids) + more
        eventually(lambda: len(self.job_ids), until=lambda count: count >= enough)

    def _upload_until_stopped(self) -> None:
        number = 0
        while not self._stopped.is_set():
            self.job_ids.append(self._upload(self._files[number % len(self._files)]))
            number += 1

    def _upload(self, path: Path) -> str:
        def create() -> dict[str, Any]:
            created = self._client.http.post(
                "/uploads", json={"filename": path.name, "size": path.stat().st_size}
            )
            created.raise_for_status()
            body: dict[str, Any] = created.json()
            return body

        def put(chunk: Chunk) -> None:
            self._client.put_chunk(upload["upload_id"], chunk).raise_for_status()

        def finalize() -> str:
            answer = self._client.finalize(upload["upload_id"])
            answer.raise_for_status()
            return str(answer.json()["job_id"])

        upload = retrying()(create)
        for chunk in chunks_of(path, chunk_size=upload["chunk_size"]):
            retrying()(put, chunk)
        return retrying()(finalize)

    def _follow_until_stopped(self) -> None:
        """Open streams and long polls, and hang up in the middle."""
        while not self._stopped.is_set():
            if not self.job_ids:
                self._stopped.wait(0.05)
                continue
            with suppress(httpx.HTTPError):
                path = f"/jobs/{self.job_ids[-1]}/events"
                with self._client.http.stream("GET", path, timeout=2) as stream:
                    next(stream.iter_bytes(), None)


@pytest.fixture
def own(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    # Executed, not forked: one system of the tests starts as operators start it.
    with infrastructure.scoped(
        "restarts", settings=SETTINGS, template=migrated_template, execution=Executed()
    ) as own:
        own.start()
        yield own


def test_restarts_log_no_errors(
    infrastructure_processes: Mapping[str, Killable], own: Stack, tmp_path: Path
) -> None:
    note, pdf = tmp_path / "note.bin", tmp_path / "consignment.pdf"
    random_file(note, mebibytes=1, seed=4)
    paper.write_pdf(pdf, seed=5)

    def restart(name: str) -> None:
        process = infrastructure_processes[name]
        process.halt()
        time.sleep(DOWN_SECONDS)
        process.start()

    with Client(own.url, api_key=str(own.api_key)) as client, Receiver() as receiver:
        client.create_webhook(receiver.url, event_types=["upload.stored"])
        uploads = Uploads(client, [note, note, pdf])
        with uploads.running():
            for name in infrastructure_processes:
                uploads.wait_for(2)
                restart(name)
            uploads.wait_for(4)
        statuses = {settled(client, job_id)["status"] for job_id in uploads.job_ids}

    assert statuses == {"completed"}
    relay = (own.state_dir / "log" / "relay.log").read_text()
    assert relay.count("relay.waiting_for_broker") == relay.count("relay.broker_accepts_again") >= 1
    gateway = (own.state_dir / "log" / "gateway.log").read_text()
    assert "query cancellation interrupted" not in gateway, (
        "a client that hangs up costs a connection"
    )
    assert errors(own) == []
