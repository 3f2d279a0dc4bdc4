"""A hundred kills while a thousand documents are read."""

from pathlib import Path

import pytest

from tests.e2e.broker_proxy import BrokerProxy
from tests.e2e.deployment import Deployment
from tests.e2e.killed_readers import assert_documents_survive_kills

pytestmark = pytest.mark.timeout(3600)


def test_a_thousand_documents_survive_a_hundred_kills(
    reading_deployment: Deployment, broker_proxy: BrokerProxy, tmp_path: Path
) -> None:
    assert_documents_survive_kills(
        reading_deployment, broker_proxy, documents=1_000, kills=100, directory=tmp_path, seed=32
    )
