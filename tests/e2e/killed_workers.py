"""A transfer worker is killed in the middle of one file, again and again; each successor goes on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from dev.client import Client
from dev.stack.stack import Stack
from tests.e2e.files import MIB, random_file, settle, uploaded
from tests.e2e.watched_store import Passed, WatchedStore
from tests.e2e.whole_system import PARALLEL_PARTS, PART_SIZE, Scene
from tests.eventually import eventually

NEXT_WORKER = timedelta(seconds=90)
"""A new worker, the lease of the dead one and a wait in the retry tier fit in."""
SPEED = 15 * MIB
"""What the store takes in a second: slow enough to be killed at the right moment."""


@dataclass(kw_only=True)
class Rounds:
    """What reached the store, from kill to kill."""

    begun: int = 0
    """Requests that sent a part, or began to."""
    in_flight: list[int] = field(default_factory=list)
    """How many of them had no answer yet, at each kill."""
    stored: list[int] = field(default_factory=list)
    """How many parts the store had answered for, at each kill and in the end."""
    sent_in_vain: list[int] = field(default_factory=list)
    """Parts that were sent once more although the store had answered for them before a kill."""
    _kept: set[int] = field(default_factory=set)

    def check(self, *, part_count: int) -> None:
        """Each successor sent what the store did not have yet, and no more."""
        *at_kills, _ = self.stored
        assert max(at_kills) < part_count, "nothing was left to be sent"
        assert not self.sent_in_vain, self
        assert max(self.in_flight) <= PARALLEL_PARTS, self
        assert part_count <= self.begun <= part_count + sum(self.in_flight), self

    def end(self, parts: list[Passed]) -> None:
        """Take note of all the requests there were when a round ended."""
        self.sent_in_vain += sorted(_numbers(parts[self.begun :]) & self._kept)
        self.in_flight.append(sum(one.status is None for one in parts[self.begun :]))
        self._kept = _stored(parts)
        self.stored.append(len(self._kept))
        self.begun = len(parts)


def check_transfer_while_workers_die(
    *, mebibytes: int, kills: int, scene: Scene, store: WatchedStore, directory: Path
) -> None:
    """Transfer a file of that size and kill the worker so often meanwhile; see what comes of it."""
    path = directory / "large.bin"
    sha256 = random_file(path, mebibytes=mebibytes, seed=7)

    job, rounds = _transfer(path, kills=kills, scene=scene, store=store)

    assert job["status"] == "completed", job["error"]
    rounds.check(part_count=mebibytes * MIB // PART_SIZE)
    scene.check_end(job["upload_id"], sha256=sha256)


def _transfer(
    path: Path, *, kills: int, scene: Scene, store: WatchedStore
) -> tuple[dict[str, Any], Rounds]:
    """Transfer a file, with the kills spread over it; return the settled job.

    One time the whole worker dies, as with its container; the next time only its children,
    as when memory runs out.
    """
    rounds = Rounds()
    size = path.stat().st_size
    # Too small for the store to make parts of them by itself: the worker sends every part.
    upload_id = uploaded(scene.client, path, chunk_size=MIB)
    store.be_as_slow_as(SPEED)
    job_id = scene.client.finalize(upload_id).json()["job_id"]
    for number in range(1, kills + 1):
        _await_progress(size * number // (kills + 1), job_id=job_id, client=scene.client)
        _kill(scene.system, whole=number % 2 == 1)
        rounds.end(store.parts_of(upload_id))
    job = settle(scene.client, job_id, timeout=NEXT_WORKER)
    rounds.end(store.parts_of(upload_id))
    return job, rounds


def _await_progress(size_bytes: int, *, job_id: str, client: Client) -> None:
    eventually(
        lambda: client.job(job_id)["bytes_done"],
        until=lambda done: done >= size_bytes,
        within=NEXT_WORKER,
    )


def _kill(system: Stack, *, whole: bool) -> None:
    worker = system.processes["transfer"]
    # The one before may have stored enough for this kill too, just before it died.
    children = eventually(lambda: _children_of(worker.pid), until=bool, within=NEXT_WORKER)
    if whole:
        worker.kill()
    for child in children:
        child.kill()
    psutil.wait_procs(children, timeout=10)


def _children_of(pid: int | None) -> list[psutil.Process]:
    # For psutil, None would be this very process.
    return [] if pid is None else psutil.Process(pid).children()


def _numbers(parts: Iterable[Passed]) -> set[int]:
    return {one.part for one in parts if one.part is not None}


def _stored(parts: Iterable[Passed]) -> set[int]:
    return _numbers(one for one in parts if one.is_stored)
