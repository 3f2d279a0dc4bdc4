"""A transfer worker is killed repeatedly in one file; each next worker resumes the transfer."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from dev.client import Client
from dev.stack.stack import Stack
from tests.e2e.deployment import PARALLEL_PARTS, PART_SIZE, Deployment
from tests.e2e.files import MIB, random_file, send_file, settled
from tests.e2e.store_proxy import ProxiedRequest, StoreProxy
from tests.eventually import eventually

NEXT_WORKER = timedelta(seconds=90)
"""Longer than a worker's start, the dead worker's lease and a wait in the retry tier together."""
BYTES_PER_SECOND = 15 * MIB
"""Speed of the store: slow enough to kill a worker in the middle of a transfer."""


@dataclass(kw_only=True)
class TransferRounds:
    """What reached the store between one kill and the next.

    Attributes:
        begun: requests that sent a part or began to send it, all rounds together.
        in_flight: for each round, its requests without an answer at the end.
        stored: for each round, the number of parts stored at its end.
        sent_again: parts that were sent again although the store had confirmed them before a kill.
    """

    begun: int = 0
    in_flight: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    sent_again: list[int] = field(default_factory=list)
    _confirmed: set[int] = field(default_factory=set)

    def assert_only_missing_parts_sent(self, *, part_count: int) -> None:
        """Each worker sent the parts that the store lacked, and no others."""
        *at_kills, _ = self.stored
        assert max(at_kills) < part_count, "no part was missing at the last kill"
        assert not self.sent_again, self
        assert max(self.in_flight) <= PARALLEL_PARTS, self
        assert part_count <= self.begun <= part_count + sum(self.in_flight), self

    def end(self, parts: list[ProxiedRequest]) -> None:
        """End a round, with all requests that sent parts so far."""
        self.sent_again += sorted(_numbers(parts[self.begun :]) & self._confirmed)
        self.in_flight.append(sum(request.status is None for request in parts[self.begun :]))
        self._confirmed = _numbers(request for request in parts if request.is_stored)
        self.stored.append(len(self._confirmed))
        self.begun = len(parts)


def assert_transfer_resumes_after_kills(
    *,
    mebibytes: int,
    kills: int,
    deployment: Deployment,
    store_proxy: StoreProxy,
    directory: Path,
) -> None:
    """Transfer a file of this size while its worker is killed this often."""
    path = directory / "large.bin"
    sha256 = random_file(path, mebibytes=mebibytes, seed=7)

    job, rounds = _transfer(path, kills=kills, deployment=deployment, store_proxy=store_proxy)

    assert job["status"] == "completed", job["error"]
    rounds.assert_only_missing_parts_sent(part_count=mebibytes * MIB // PART_SIZE)
    deployment.assert_only_object_left(job["upload_id"], sha256=sha256)


def _transfer(
    path: Path, *, kills: int, deployment: Deployment, store_proxy: StoreProxy
) -> tuple[dict[str, Any], TransferRounds]:
    """Transfer a file, with the kills spread over it; return the settled job.

    Odd kills end the whole worker, as when its container dies; even kills end only its
    children, as when memory runs out.
    """
    client, rounds = deployment.client, TransferRounds()
    size = path.stat().st_size
    # Chunks below the minimum part size: the store cannot copy them, so the worker sends each part.
    upload_id = send_file(client, path, chunk_size=MIB)
    store_proxy.limit_speed(BYTES_PER_SECOND)
    job_id = client.finalize(upload_id).json()["job_id"]
    for number in range(1, kills + 1):
        _await_progress(size * number // (kills + 1), job_id=job_id, client=client)
        _kill(deployment.system, whole=number % 2 == 1)
        rounds.end(store_proxy.part_requests(upload_id))
    job = settled(client, job_id, timeout=NEXT_WORKER)
    rounds.end(store_proxy.part_requests(upload_id))
    return job, rounds


def _await_progress(size_bytes: int, *, job_id: str, client: Client) -> None:
    eventually(
        lambda: client.job(job_id)["bytes_done"],
        until=lambda done: done >= size_bytes,
        within=NEXT_WORKER,
    )


def _kill(system: Stack, *, whole: bool) -> None:
    worker = system.processes["transfer"]
    # The previous worker may have stored enough for this kill before it died: the next one starts.
    children = eventually(lambda: _children_of(worker.pid), until=bool, within=NEXT_WORKER)
    if whole:
        worker.kill()
    for child in children:
        child.kill()
    psutil.wait_procs(children, timeout=10)


def _children_of(pid: int | None) -> list[psutil.Process]:
    # psutil reads None as this very process.
    return [] if pid is None else psutil.Process(pid).children()


def _numbers(parts: Iterable[ProxiedRequest]) -> set[int]:
    return {request.part for request in parts if request.part is not None}
