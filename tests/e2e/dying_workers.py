"""A transfer worker is killed in the middle of one file, again and again; each successor goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil

from tests.e2e.ends import eventually
from tests.e2e.files import MIB, settle, uploaded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dev.client import Client
    from dev.stack.stack import Stack
    from tests.e2e.scenes import Scene
    from tests.e2e.watched_store import Passed, WatchedStore

NEXT_WORKER = timedelta(seconds=90)
"""A new worker, the lease of the dead one and a wait in the retry tier fit in."""


@dataclass(kw_only=True)
class Rounds:
    """What reached the store, from kill to kill."""

    begun: int = 0
    """Requests that sent a part, or began to."""
    in_flight: list[int] = field(default_factory=list)
    """How many of them had no answer yet, at each kill."""
    sent_in_vain: list[int] = field(default_factory=list)
    """Parts that were sent once more although the store had answered for them before a kill."""
    _kept: set[int] = field(default_factory=set)

    def check(self, *, part_count: int, parallel_parts: int) -> None:
        """Each successor sent what the store did not have yet, and no more."""
        assert self.sent_in_vain == []
        assert max(self.in_flight) <= parallel_parts
        assert self.begun <= part_count + sum(self.in_flight)

    def end(self, parts: list[Passed]) -> None:
        """Take note of all the requests there were when a round ended."""
        self.sent_in_vain += sorted(_numbers(parts[self.begun :]) & self._kept)
        self.in_flight.append(sum(one.status is None for one in parts[self.begun :]))
        self._kept = _stored(parts)
        self.begun = len(parts)


def transfer_while_workers_die(
    path: Path, *, kills: int, speed: float, scene: Scene, store: WatchedStore
) -> tuple[dict[str, Any], Rounds]:
    """Transfer a file, kill the worker so often meanwhile, and return the settled job.

    The kills are spread over the file, which the store takes at `speed` bytes a second. One time the whole worker dies, as with
    its container; the next time only its children, as when memory runs out.
    """
    rounds = Rounds()
    size = path.stat().st_size
    # Too small for the store to make parts of them by itself: the worker sends every part.
    upload_id = uploaded(scene.client, path, chunk_size=MIB)
    store.be_as_slow_as(speed)
    job_id = scene.client.finalize(upload_id).json()["job_id"]
    for number in range(1, kills + 1):
        _await_progress(size * number // (kills + 1), job_id=job_id, client=scene.client)
        _kill(scene.system, whole=number % 2 == 1)
        rounds.end(store.parts_of(upload_id))
    job = settle(scene.client, job_id, patience=NEXT_WORKER)
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
    children = psutil.Process(worker.pid).children()
    if whole:
        worker.kill()
    for child in children:
        child.kill()
    psutil.wait_procs(children, timeout=10)


def _numbers(parts: Iterable[Passed]) -> set[int]:
    return {one.part for one in parts if one.part is not None}


def _stored(parts: Iterable[Passed]) -> set[int]:
    return _numbers(one for one in parts if one.is_stored)
