"""How fast a gateway takes chunks, what memory that costs it, and how long finalize takes then.

`python -m dev.bench.ingest --url http://127.0.0.1:8000 --key wb_… --pid 1234`

The client is one plain connection per thread, and a chunk's digest is computed
once for the whole file: what is measured is the gateway, not its client. Every
upload is given up at the end.
"""

import argparse
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from queue import SimpleQueue
from typing import Any, Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from dev.bench.memory import MIB, watched

GIB: Final = 1024 * MIB


@dataclass(frozen=True, kw_only=True)
class Load:
    """A file, how it is cut, and over how many connections it is sent."""

    size: int
    chunk_size: int
    connections: int


WARM_UP: Final = Load(size=64 * MIB, chunk_size=8 * MIB, connections=4)
LOADS: Final = (
    Load(size=MIB, chunk_size=8 * MIB, connections=1),
    Load(size=GIB, chunk_size=8 * MIB, connections=1),
    Load(size=GIB, chunk_size=8 * MIB, connections=4),
    Load(size=256 * MIB, chunk_size=MIB, connections=1),
    Load(size=256 * MIB, chunk_size=MIB, connections=4),
    Load(size=2 * GIB, chunk_size=8 * MIB, connections=4),
    Load(size=2 * GIB, chunk_size=64 * MIB, connections=4),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    load: Load
    seconds: float
    grown_mib: float
    """Resident memory of the gateway above what it was before this load."""
    finalize_ms: float

    @property
    def mib_per_second(self) -> float:
        return self.load.size / MIB / self.seconds


class UnexpectedAnswer(Exception):
    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body[:500].decode(errors='replace')}")


class Connection:
    """One connection to the gateway, kept open."""

    def __init__(self, url: str, *, api_key: str) -> None:
        host = urlsplit(url)
        self._http = HTTPConnection(host.hostname or "", host.port, timeout=120)
        self._authorization = {"Authorization": f"Bearer {api_key}"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        content = json.dumps(body).encode() if body is not None else None
        return self._ask(method, path, content, {"Content-Type": "application/json"})

    def put_chunk(self, upload_id: str, index: int, *, content: bytes, digest: str) -> None:
        path = f"/uploads/{upload_id}/chunks/{index}"
        self._ask("PUT", path, content, {"Content-Digest": digest})

    def close(self) -> None:
        self._http.close()

    def _ask(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> dict[str, Any]:
        self._http.request(
            method, f"/api/v1{path}", body=content, headers=self._authorization | headers
        )
        answer = self._http.getresponse()
        body = answer.read()
        if answer.status not in {200, 201, 202}:
            raise UnexpectedAnswer(answer.status, body)
        decoded: dict[str, Any] = json.loads(body)
        return decoded


def measure(
    url: str, *, api_key: str, pid: int, loads: Sequence[Load] = LOADS
) -> Iterator[Outcome]:
    """Send every load once and yield what came of it; a small one before warms the gateway up."""
    _send(WARM_UP, url, api_key=api_key, pid=pid)
    for load in loads:
        yield _send(load, url, api_key=api_key, pid=pid)


def _send(load: Load, url: str, *, api_key: str, pid: int) -> Outcome:
    with closing(Connection(url, api_key=api_key)) as connection:
        wish = {"filename": "bench.bin", "size": load.size, "chunk_size": load.chunk_size}
        created = connection.call("POST", "/uploads", wish)
        upload_id = created["upload_id"]
        content = secrets.token_bytes(min(created["chunk_size"], load.size))
        digest = f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"
        waiting: SimpleQueue[int | None] = SimpleQueue()
        for index in range(created["chunk_count"]):
            waiting.put(index)
        for _ in range(load.connections):
            waiting.put(None)

        def send_chunks() -> None:
            with closing(Connection(url, api_key=api_key)) as sender:
                while (index := waiting.get()) is not None:
                    sender.put_chunk(upload_id, index, content=content, digest=digest)

        with watched({"gateway": pid}) as growth, ThreadPoolExecutor(load.connections) as senders:
            begun = time.perf_counter()
            for sender in [senders.submit(send_chunks) for _ in range(load.connections)]:
                sender.result()
            seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        connection.call("POST", "/upload", {"upload_id": upload_id})
        finalize_ms = (time.perf_counter() - begun) * 1000
        connection.call("DELETE", f"/uploads/{upload_id}")
    return Outcome(
        load=load, seconds=seconds, grown_mib=growth.mib["gateway"], finalize_ms=finalize_ms
    )


def table_of(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Receiving chunks")
    for heading in ("file", "chunk", "connections", "MiB/s", "memory over idle", "finalize"):
        table.add_column(heading, justify="right")
    for outcome in outcomes:
        load = outcome.load
        table.add_row(
            f"{load.size // MIB} MiB",
            f"{load.chunk_size // MIB} MiB",
            str(load.connections),
            f"{outcome.mib_per_second:.0f}",
            f"{outcome.grown_mib:+.1f} MiB",
            f"{outcome.finalize_ms:.1f} ms",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the gateway, such as http://127.0.0.1:8000")
    parser.add_argument("--key", required=True, help="an API key that may write uploads")
    parser.add_argument("--pid", required=True, type=int, help="the gateway's process")
    arguments = parser.parse_args()
    outcomes = list(measure(arguments.url, api_key=arguments.key, pid=arguments.pid))
    Console().print(table_of(outcomes))


if __name__ == "__main__":
    main()
