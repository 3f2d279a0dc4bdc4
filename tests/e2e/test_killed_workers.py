"""A transfer outlives its workers."""

from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.e2e.killed_workers import assert_transfer_resumes_after_kills
from tests.e2e.store_proxy import StoreProxy

pytestmark = pytest.mark.timeout(240)


def test_the_next_worker_sends_only_the_parts_that_the_store_lacks(
    deployment: Deployment, store_proxy: StoreProxy, tmp_path: Path
) -> None:
    assert_transfer_resumes_after_kills(
        mebibytes=60, kills=2, deployment=deployment, store_proxy=store_proxy, directory=tmp_path
    )
