"""Readers, workers and connections may end at any time; every document is read once, as a whole."""

from pathlib import Path

import pytest

from tests.e2e.broker_proxy import BrokerProxy
from tests.e2e.deployment import Deployment
from tests.e2e.killed_readers import assert_documents_survive_kills

pytestmark = pytest.mark.timeout(420)


def test_documents_are_read_once_although_readers_workers_and_connections_are_killed(
    reading_deployment: Deployment, broker_proxy: BrokerProxy, tmp_path: Path
) -> None:
    assert_documents_survive_kills(
        reading_deployment, broker_proxy, documents=40, kills=12, directory=tmp_path, seed=31
    )
