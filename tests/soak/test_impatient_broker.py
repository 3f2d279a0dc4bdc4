"""A transfer of five minutes, on a broker that waits one."""

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
    pytest.mark.soak,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not rabbitmq.SERVER.exists(), reason="a broker with other settings is started here"
    ),
]


def test_a_transfer_of_five_minutes_is_delivered_by_a_broker_that_waits_one(
    infrastructure: Stack, migrated_template: str, store: WatchedStore, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    sha256 = random_file(path, mebibytes=150, seed=19)
    with impatient_broker.system(
        infrastructure,
        template=migrated_template,
        consumer_timeout=timedelta(seconds=60),
        settings={
            "S3_ENDPOINT_URL": store.url,
            "S3_PART_SIZE": "5MiB",
            "S3_PARALLEL_PARTS": "2",
            "TRANSFER_SLICE": "30s",
        },
    ) as system:
        store.be_as_slow_as(MIB / 2)
        job = impatient_broker.transferred(path, system=system, patience=timedelta(minutes=15))
        counted = impatient_broker.deliveries(system)

        assert job["status"] == "completed", job["error"]
        assert counted.redelivered == 0
        assert counted.delivered > 5
        assert "timed out" not in system.processes["rabbitmq"].log_file.read_text()
        bucket = Bucket(system.environment)
        assert bucket.sha256(bucket.key_of(job["upload_id"])) == sha256
        assert bucket.open_multiparts() == []
