"""The broker loses the messages of many uploads."""

from pathlib import Path

import pytest

from schemas import queues
from tests.e2e.deployment import Deployment
from tests.e2e.lost_messages import (
    Broker,
    Loss,
    assert_every_upload_completes,
    delete,
    lose_data,
    purge,
)
from tests.factories import pdfs

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(purge(queues.UPLOADS), id="uploads purged"),
        pytest.param(purge(queues.DOCUMENT_PROCESSING), id="document_processing purged"),
        pytest.param(delete(queues.UPLOADS), id="uploads deleted"),
        pytest.param(delete(queues.DOCUMENT_PROCESSING), id="document_processing deleted"),
        pytest.param(lose_data(), id="data directory removed"),
    ],
)
def test_two_hundred_uploads_complete_although_messages_are_lost(
    loss: Loss, forgetful_deployment: Deployment, broker_process: Broker, tmp_path: Path
) -> None:
    pdf = tmp_path / "note.pdf"
    pdf.write_bytes(pdfs.with_pages("A note.", "Its second page."))
    assert_every_upload_completes(
        loss, count=200, pdf=pdf, deployment=forgetful_deployment, broker=broker_process
    )
