"""Many kills of workers in one transfer."""

from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.e2e.killed_workers import assert_transfer_resumes_after_kills
from tests.e2e.store_proxy import StoreProxy

pytestmark = pytest.mark.timeout(1800)


def test_a_transfer_with_twenty_kills_sends_no_stored_part_again(
    deployment: Deployment, store_proxy: StoreProxy, tmp_path: Path
) -> None:
    assert_transfer_resumes_after_kills(
        mebibytes=250, kills=20, deployment=deployment, store_proxy=store_proxy, directory=tmp_path
    )
