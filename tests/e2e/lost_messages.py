"""Uploads whose messages the broker loses: purged, deleted with their queue, or with all its data."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kombu
import pytest

from dev.client import Client
from dev.stack import vhosts
from dev.stack.stack import Stack
from schemas import queues
from tests.e2e.deployment import Deployment
from tests.e2e.files import retrying, send_file, settled
from tests.eventually import eventually
from tests.factories import pdfs
from tests.killable import Killable

WORKER_OF = {queues.UPLOADS: "transfer", queues.DOCUMENT_PROCESSING: "ingest"}


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What the broker loses.

    Attributes:
        queue: the queue whose worker is paused, so that messages wait when they are lost.
        strike: loses them.
    """

    queue: str
    strike: Callable[[Stack, "Broker"], None]


@dataclass(frozen=True, kw_only=True)
class Broker:
    """The broker's process and the directory with its data; None if it runs elsewhere."""

    process: Killable
    data: Path | None


def purge(queue: str) -> Loss:
    def strike(system: Stack, _: Broker) -> None:
        with _channel(system) as channel:
            assert channel.queue_purge(queue) > 0

    return Loss(queue=queue, strike=strike)


def delete(queue: str) -> Loss:
    def strike(system: Stack, _: Broker) -> None:
        with _channel(system) as channel:
            assert channel.queue_delete(queue) > 0

    return Loss(queue=queue, strike=strike)


def lose_data() -> Loss:
    def strike(system: Stack, broker: Broker) -> None:
        # Other systems of the test session are on the same broker.
        names = vhosts.names(system.environment)
        broker.process.halt()
        if broker.data is not None:
            shutil.rmtree(broker.data)
            broker.data.mkdir()
        broker.process.start()
        # The operator creates the virtual hosts again; queues and messages are gone.
        for name in names:
            vhosts.create(system.environment, name=name)

    return Loss(queue=queues.UPLOADS, strike=strike)


LOSSES = [
    pytest.param(purge(queues.UPLOADS), id="uploads purged"),
    pytest.param(purge(queues.DOCUMENT_PROCESSING), id="document_processing purged"),
    pytest.param(delete(queues.UPLOADS), id="uploads deleted"),
    pytest.param(delete(queues.DOCUMENT_PROCESSING), id="document_processing deleted"),
    pytest.param(lose_data(), id="data directory removed"),
]


def assert_every_upload_completes(
    loss: Loss,
    *,
    count: int,
    directory: Path,
    deployment: Deployment,
    broker: Broker,
) -> None:
    """Send uploads, lose the messages of the first half while they wait, and await every job."""
    system = deployment.system
    half = count // 2
    pdf = directory / "note.pdf"
    pdf.write_bytes(pdfs.with_pages("A note.", "Its second page."))
    with Client(system.url, api_key=deployment.key) as client, ThreadPoolExecutor(4) as threads:

        def upload(_: int) -> str:
            for attempt in retrying():
                with attempt:
                    answer = client.finalize(send_file(client, pdf))
                    answer.raise_for_status()
            job_id: str = answer.json()["job_id"]
            return job_id

        with deployment.paused(WORKER_OF[loss.queue]):
            jobs = list(threads.map(upload, range(half)))
            await_messages(system, loss.queue, count=half // 2)
            later = threads.map(upload, range(count - half))
            loss.strike(system, broker)
        jobs += later
        ended = [settled(client, job_id) for job_id in jobs]
    assert Counter(job["status"] for job in ended) == {"completed": count}
    assert all(job["result"]["pages"] for job in ended)


def await_messages(system: Stack, queue: str, *, count: int) -> None:
    """Return once this many messages wait in the queue."""

    def depth() -> int:
        with _channel(system) as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    eventually(depth, until=lambda waiting: waiting >= count)


@contextmanager
def _channel(system: Stack) -> Iterator[Any]:
    with kombu.Connection(system.environment["RABBITMQ_URL"]) as connection:
        yield connection.channel()
