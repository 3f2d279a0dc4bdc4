"""A transfer takes longer than the broker lets anybody keep a message."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dev.stack import rabbitmq
from dev.stack.stack import Stack
from tests.e2e import impatient_broker
from tests.e2e.files import MIB, random_file
from tests.e2e.watched_store import WatchedStore
from tests.store import Bucket

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not rabbitmq.SERVER.exists(), reason="a broker with other settings is started here"
    ),
]

CONSUMER_TIMEOUT = timedelta(seconds=12)


@pytest.fixture
def impatient(
    infrastructure: Stack, migrated_template: str, watched_store: WatchedStore
) -> Iterator[Stack]:
    settings = {
        "S3_ENDPOINT_URL": watched_store.url,
        "S3_PART_SIZE": "5MiB",
        "S3_PARALLEL_PARTS": "2",
        "TRANSFER_SLICE": "5s",
    }
    with impatient_broker.system(
        infrastructure,
        template=migrated_template,
        consumer_timeout=CONSUMER_TIMEOUT,
        settings=settings,
    ) as system:
        yield system


def test_a_transfer_may_take_longer_than_a_message_may_be_kept(
    impatient: Stack, store: WatchedStore, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    sha256 = random_file(path, mebibytes=40, seed=8)
    store.be_as_slow_as(2.5 * MIB)

    job = impatient_broker.transferred(path, system=impatient, patience=timedelta(minutes=3))

    assert job["status"] == "completed"
    counted = impatient_broker.deliveries(impatient)
    assert counted.redelivered == 0
    assert counted.delivered > 40 * MIB / (2.5 * MIB * CONSUMER_TIMEOUT.total_seconds())
    assert "timed out" not in impatient.processes["rabbitmq"].log_file.read_text()
    bucket = Bucket(impatient.environment)
    assert bucket.sha256(bucket.key_of(job["upload_id"])) == sha256
    assert bucket.open_multiparts() == []
