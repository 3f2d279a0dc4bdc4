"""A system on a broker with a short consumer timeout."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from dev.client import Client
from dev.stack import rabbitmq
from dev.stack.infrastructure import Part
from dev.stack.stack import Stack
from schemas import queues
from tests.bucket import Bucket
from tests.e2e.files import MIB, TIMEOUT, random_file, send_file, settled
from tests.e2e.store_proxy import StoreProxy
from tests.eventually import eventually
from tests.forked_stack import Forked

BROKER_SETTINGS = {"RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL"}
SYSTEM_SETTINGS = {"GATEWAY_PORT", "STAGING_DIR", "WORK_DIR"}

needs_local_rabbitmq = pytest.mark.skipif(
    not rabbitmq.SERVER.exists(), reason="the test starts a local RabbitMQ with its own settings"
)


@dataclass(frozen=True, kw_only=True)
class SlowTransfer:
    """A transfer that takes longer than the consumer timeout of its broker.

    Attributes:
        bytes_per_second: speed of the store.
        slice: the time after which the worker acknowledges a message and continues with a new one.
    """

    mebibytes: int
    bytes_per_second: float
    consumer_timeout: timedelta
    slice: timedelta

    @property
    def duration(self) -> timedelta:
        """The time that the transfer takes at least."""
        return timedelta(seconds=self.mebibytes * MIB / self.bytes_per_second)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "S3_PART_SIZE": "5MiB",
            "S3_PARALLEL_PARTS": "2",
            "TRANSFER_SLICE": f"{self.slice.total_seconds():.0f}s",
        }


@dataclass(frozen=True, kw_only=True)
class QueueCounts:
    """The broker's counters of one queue."""

    published: int
    delivered: int
    acknowledged: int
    redelivered: int


def assert_no_message_outlives_the_timeout(
    transfer: SlowTransfer,
    *,
    shared: Stack,
    template: str,
    store_proxy: StoreProxy,
    directory: Path,
) -> None:
    """Transfer one file: it takes many messages, and the broker redelivers none of them."""
    path = directory / "large.bin"
    sha256 = random_file(path, mebibytes=transfer.mebibytes, seed=8)
    with _system(transfer, shared=shared, template=template, store_proxy=store_proxy) as system:
        store_proxy.limit_speed(transfer.bytes_per_second)
        job = _transferred(path, system=system, timeout=3 * transfer.duration + TIMEOUT)
        counted = _queue_counts(system)

        assert job["status"] == "completed", job["error"]
        assert counted.redelivered == 0, counted
        assert counted.delivered > transfer.duration / transfer.consumer_timeout, counted
        bucket = Bucket(system.environment)
        assert bucket.sha256(bucket.key_of(job["upload_id"])) == sha256
        assert not (left := bucket.open_multiparts()), left


@contextmanager
def _system(
    transfer: SlowTransfer, *, shared: Stack, template: str, store_proxy: StoreProxy
) -> Iterator[Stack]:
    """Yield gateway, relay and transfer worker with a broker of their own.

    They use the database server and the object store of `shared`.
    """
    name = f"timeout-{transfer.consumer_timeout.total_seconds():.0f}"
    environment = {
        name: value
        for name, value in shared.environment.items()
        if name not in BROKER_SETTINGS | SYSTEM_SETTINGS
    }
    own = shared.create_database(name, template=template) | shared.create_bucket(name)
    try:
        with Stack(
            shared.state_dir / name,
            settings={
                **environment,
                **own,
                **transfer.settings,
                "S3_ENDPOINT_URL": store_proxy.url,
            },
            consumer_timeout=transfer.consumer_timeout,
            execution=Forked(),
        ) as stack:
            stack.start_infrastructure(Part.RABBITMQ)
            stack.api_key = stack.create_api_key(tenant="local")
            stack.start_services("gateway", "relay", "transfer")
            yield stack
    finally:
        shared.drop_database(name)


def _transferred(path: Path, *, system: Stack, timeout: timedelta) -> dict[str, Any]:
    """Upload and finalize a file; return its settled job."""
    with Client(system.url, api_key=str(system.api_key)) as client:
        job_id = client.finalize(send_file(client, path)).json()["job_id"]
        return settled(client, job_id, timeout=timeout)


def _queue_counts(system: Stack) -> QueueCounts:
    """Return the counters of the transfer queue once every message is acknowledged."""
    # The broker updates the counters every few seconds.
    return eventually(
        lambda: _read_counts(system),
        until=lambda counts: 0 < counts.acknowledged >= counts.published,
    )


def _read_counts(system: Stack) -> QueueCounts:
    management = urlsplit(system.environment["RABBITMQ_MANAGEMENT_URL"])
    answer = httpx.get(
        f"http://{management.hostname}:{management.port}/api/queues/%2F/{queues.UPLOADS}",
        auth=(str(management.username), str(management.password)),
        trust_env=False,
    )
    counted = answer.raise_for_status().json().get("message_stats", {})
    return QueueCounts(
        published=counted.get("publish", 0),
        delivered=counted.get("deliver", 0),
        acknowledged=counted.get("ack", 0),
        redelivered=counted.get("redeliver", 0),
    )
