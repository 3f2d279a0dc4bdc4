"""What has to happen within a certain time, on a machine with nothing else to do."""

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from tests.e2e.cancellable_uploads import Uploads
from tests.e2e.cut_connections import upload_over_bad_connections
from tests.e2e.watched_store import WatchedStore
from tests.e2e.whole_system import Scene
from tests.eventually import eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


def test_a_transfer_under_way_is_aborted_within_two_seconds(
    scene: Scene, store: WatchedStore, tmp_path: Path
) -> None:
    uploads = Uploads(scene=scene, directory=tmp_path, store=store, options={})
    for _ in range(5):
        with uploads.mid_transfer() as moment:
            began = monotonic()
            scene.client.cancel(moment.upload_id)
            eventually(
                partial(scene.remains.multiparts, moment.upload_id),
                until=lambda found: not found,
            )
            assert timedelta(seconds=monotonic() - began) < timedelta(seconds=2)
            assert scene.client.job(str(moment.job_id))["status"] == "cancelled"
        store.be_fast()


def test_among_a_hundred_clients_nobody_waits_a_second_for_a_manifest_while_a_chunk_hangs(
    scene: Scene, tmp_path: Path
) -> None:
    outcome = asyncio.run(
        upload_over_bad_connections(scene, directory=tmp_path, clients=100, looks=100, seed=18)
    )

    assert len(outcome.sent) == 100
    assert outcome.cut > 100
    assert len(outcome.waits) >= 100
    assert max(outcome.waits) < timedelta(seconds=1)
    assert outcome.stuck_answer == 200
    scene.check_objects(outcome.sent)
