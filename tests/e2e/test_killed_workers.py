"""One file, many workers."""

from pathlib import Path

import pytest

from tests.e2e.killed_workers import check_transfer_while_workers_die
from tests.e2e.watched_store import WatchedStore
from tests.e2e.whole_system import Scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_each_successor_of_a_killed_worker_sends_only_what_the_store_does_not_have(
    scene: Scene, store: WatchedStore, tmp_path: Path
) -> None:
    check_transfer_while_workers_die(
        mebibytes=60, kills=2, scene=scene, store=store, directory=tmp_path
    )
