"""Gateways killed by the hundred."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.killed_gateways import upload_while_gateways_die
from tests.e2e.whole_system import Scene

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_two_hundred_kills_of_gateways_take_back_nothing_that_was_acked(
    scene: Scene, tmp_path: Path
) -> None:
    outcome = asyncio.run(
        upload_while_gateways_die(scene, directory=tmp_path, kills=200, seed=20_261_121)
    )

    assert outcome.checked > 1_000
    assert outcome.broken > 100, "the gateways died with nothing to do"
    scene.check_objects(outcome.sent)
    scene.check_no_files(outcome.sent)
