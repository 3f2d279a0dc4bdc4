"""Workers killed again and again in one transfer."""

from pathlib import Path

import pytest

from tests.e2e.killed_workers import check_transfer_while_workers_die
from tests.e2e.watched_store import WatchedStore
from tests.e2e.whole_system import Scene

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_twenty_kills_in_one_transfer_send_nothing_again_that_is_stored(
    scene: Scene, store: WatchedStore, tmp_path: Path
) -> None:
    check_transfer_while_workers_die(
        mebibytes=250, kills=20, scene=scene, store=store, directory=tmp_path
    )
