"""One file, many workers."""

from pathlib import Path

import pytest

from tests.e2e.dying_workers import transfer_while_workers_die
from tests.e2e.files import MIB, random_file
from tests.e2e.scenes import PARALLEL_PARTS, PART_SIZE, Scene
from tests.e2e.watched_store import WatchedStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_each_successor_of_a_killed_worker_sends_only_what_the_store_does_not_have(
    scene: Scene, store: WatchedStore, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    sha256 = random_file(path, mebibytes=60, seed=7)

    job, rounds = transfer_while_workers_die(
        path, kills=2, speed=15 * MIB, scene=scene, store=store
    )

    assert job["status"] == "completed", job["error"]
    rounds.check(part_count=60 * MIB // PART_SIZE, parallel_parts=PARALLEL_PARTS)
    scene.check_end(job["upload_id"], sha256=sha256)
