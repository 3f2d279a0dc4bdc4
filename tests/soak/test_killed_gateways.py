"""Hundreds of kills of gateways."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.e2e.killed_gateways import upload_while_gateways_die

pytestmark = pytest.mark.timeout(3600)


def test_acknowledged_chunks_survive_two_hundred_kills_of_gateways(
    deployment: Deployment, tmp_path: Path
) -> None:
    report = asyncio.run(
        upload_while_gateways_die(deployment, directory=tmp_path, kills=200, seed=20_261_121)
    )

    assert report.checked_chunks > 1_000
    assert report.broken_requests > 100, "the gateways were idle when they died"
    deployment.assert_objects_complete(report.uploads)
    deployment.assert_no_files_left(report.uploads)
