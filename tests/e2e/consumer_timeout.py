"""A system on a broker that soon takes back what is not acknowledged."""

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
from schemas import topology
from tests.bucket import Bucket
from tests.e2e.files import MIB, PATIENCE, random_file, settle, uploaded
from tests.e2e.watched_store import WatchedStore
from tests.eventually import eventually

OF_THE_BROKER = {"RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL"}
OF_ONE_SYSTEM = {"GATEWAY_PORT", "STAGING_DIR", "WORK_DIR"}

needs_a_broker_of_its_own = pytest.mark.skipif(
    not rabbitmq.SERVER.exists(), reason="a broker with other settings is started here"
)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A transfer that takes longer than the broker lets anybody keep a message."""

    mebibytes: int
    bytes_per_second: float
    """What the store takes."""
    consumer_timeout: timedelta
    slice: timedelta
    """How long the worker keeps a message, at the most."""

    @property
    def duration(self) -> timedelta:
        """How long it takes at least."""
        return timedelta(seconds=self.mebibytes * MIB / self.bytes_per_second)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "S3_PART_SIZE": "5MiB",
            "S3_PARALLEL_PARTS": "2",
            "TRANSFER_SLICE": f"{self.slice.total_seconds():.0f}s",
        }


@dataclass(frozen=True, kw_only=True)
class Deliveries:
    """What the broker counted of one queue."""

    published: int
    delivered: int
    acknowledged: int
    redelivered: int


def check_that_no_message_is_kept_too_long(
    trial: Trial, *, shared: Stack, template: str, store: WatchedStore, directory: Path
) -> None:
    """Transfer one file; see that it takes many deliveries, of which the broker takes none back."""
    path = directory / "large.bin"
    sha256 = random_file(path, mebibytes=trial.mebibytes, seed=8)
    with _system(trial, shared=shared, template=template, store=store) as system:
        store.be_as_slow_as(trial.bytes_per_second)
        job = _transferred(path, system=system, timeout=3 * trial.duration + PATIENCE)
        counted = _deliveries(system)

        assert job["status"] == "completed", job["error"]
        assert counted.redelivered == 0, counted
        assert counted.delivered > trial.duration / trial.consumer_timeout, counted
        bucket = Bucket(system.environment)
        assert bucket.sha256(bucket.key_of(job["upload_id"])) == sha256
        assert not (left := bucket.open_multiparts()), left


@contextmanager
def _system(trial: Trial, *, shared: Stack, template: str, store: WatchedStore) -> Iterator[Stack]:
    """Yield gateway, relay and transfer worker, with a broker of their own.

    Database server and object store are those of `shared`.
    """
    name = f"impatient-{trial.consumer_timeout.total_seconds():.0f}"
    environment = {
        name: value
        for name, value in shared.environment.items()
        if name not in OF_THE_BROKER | OF_ONE_SYSTEM
    }
    own = shared.create_database(name, template=template) | shared.create_bucket(name)
    try:
        with Stack(
            shared.state_dir / name,
            settings={**environment, **own, **trial.settings, "S3_ENDPOINT_URL": store.url},
            consumer_timeout=trial.consumer_timeout,
        ) as stack:
            stack.start_infrastructure(Part.RABBITMQ)
            stack.api_key = stack.create_api_key(tenant="local")
            stack.start_services("gateway", "relay", "transfer")
            yield stack
    finally:
        shared.drop_database(name)


def _transferred(path: Path, *, system: Stack, timeout: timedelta) -> dict[str, Any]:
    """Upload and finalize a file; return its job once it is settled."""
    with Client(system.url, api_key=str(system.api_key)) as client:
        job_id = client.finalize(uploaded(client, path)).json()["job_id"]
        return settle(client, job_id, timeout=timeout)


def _deliveries(system: Stack) -> Deliveries:
    """Return the broker's figures about the queue of the transfers, once they are complete."""
    # The broker gathers them every few seconds.
    return eventually(
        lambda: _figures(system),
        until=lambda seen: seen.acknowledged > 0 and seen.acknowledged >= seen.published,
    )


def _figures(system: Stack) -> Deliveries:
    management = urlsplit(system.environment["RABBITMQ_MANAGEMENT_URL"])
    answer = httpx.get(
        f"http://{management.hostname}:{management.port}/api/queues/%2F/{topology.UPLOADS}",
        auth=(str(management.username), str(management.password)),
        trust_env=False,
    )
    counted = answer.raise_for_status().json().get("message_stats", {})
    return Deliveries(
        published=counted.get("publish", 0),
        delivered=counted.get("deliver", 0),
        acknowledged=counted.get("ack", 0),
        redelivered=counted.get("redeliver", 0),
    )
