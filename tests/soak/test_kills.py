"""Kills by the hundred."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.dying_gateways import upload_while_gateways_die
from tests.e2e.dying_workers import transfer_while_workers_die
from tests.e2e.ends import check_objects
from tests.e2e.files import MIB, random_file
from tests.e2e.scenes import PARALLEL_PARTS, PART_SIZE, Scene
from tests.e2e.watched_store import WatchedStore

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]


def test_two_hundred_kills_of_gateways_take_back_nothing_that_was_acked(
    scene: Scene, tmp_path: Path
) -> None:
    outcome = asyncio.run(
        upload_while_gateways_die(
            environment=scene.gateway_environment,
            key=str(scene.system.api_key),
            directory=tmp_path,
            kills=200,
            seed=20_261_121,
        )
    )

    assert outcome.checked > 1_000
    assert outcome.broken > 100, "the gateways died with nothing to do"
    check_objects(outcome.sent, client=scene.client, bucket=scene.bucket)
    scene.check_no_files(outcome.sent)


def test_twenty_kills_in_one_transfer_send_nothing_again_that_is_stored(
    scene: Scene, store: WatchedStore, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    sha256 = random_file(path, mebibytes=250, seed=17)

    job, rounds = transfer_while_workers_die(
        path, kills=20, speed=15 * MIB, scene=scene, store=store
    )

    assert job["status"] == "completed", job["error"]
    rounds.check(part_count=250 * MIB // PART_SIZE, parallel_parts=PARALLEL_PARTS)
    scene.check_end(job["upload_id"], sha256=sha256)
