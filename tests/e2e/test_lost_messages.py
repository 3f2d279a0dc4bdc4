"""Messages that the broker loses are published again; every upload completes."""

from pathlib import Path

import pytest

from dev.client import Client
from schemas import queues
from tests.e2e.deployment import Deployment
from tests.e2e.files import TIMEOUT, send_file, settled
from tests.e2e.lost_messages import (
    LOSSES,
    Broker,
    Loss,
    assert_every_upload_completes,
    await_messages,
    purge,
)
from tests.fakes.receiver import Receiver

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_upload_completes_although_its_message_is_lost(
    loss: Loss, forgetful_deployment: Deployment, broker_process: Broker, tmp_path: Path
) -> None:
    assert_every_upload_completes(
        loss, count=24, directory=tmp_path, deployment=forgetful_deployment, broker=broker_process
    )


def test_a_webhook_is_delivered_although_the_queue_of_the_notifier_was_purged(
    forgetful_deployment: Deployment, broker_process: Broker, tmp_path: Path
) -> None:
    file = tmp_path / "note.bin"
    file.write_bytes(b"a note")
    system = forgetful_deployment.system
    deliver = system.processes["deliver"]
    with Client(system.url, api_key=forgetful_deployment.key) as client, Receiver() as receiver:
        client.create_webhook(receiver.url, event_types=["upload.stored"])
        deliver.stop()
        settled(client, client.finalize(send_file(client, file)).json()["job_id"])
        await_messages(system, queues.NOTIFY, count=1)
        purge(queues.NOTIFY).strike(system, broker_process)
        deliver.start()
        receiver.wait_for(1, timeout=TIMEOUT)
