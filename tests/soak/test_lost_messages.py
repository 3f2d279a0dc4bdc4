"""The broker loses the messages of many uploads."""

from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.e2e.lost_messages import (
    LOSSES,
    Broker,
    Loss,
    assert_every_upload_completes,
)

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_hundred_uploads_complete_although_messages_are_lost(
    loss: Loss, forgetful_deployment: Deployment, broker_process: Broker, tmp_path: Path
) -> None:
    assert_every_upload_completes(
        loss, count=200, directory=tmp_path, deployment=forgetful_deployment, broker=broker_process
    )
