"""Queues that are deleted under a running worker and beat, one by one or with the whole broker."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import kombu
import pytest
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from pipeline.messaging.broker import declare_topology
from schemas import queues, topology
from schemas.lifecycle import JobStatus, UploadStatus
from schemas.tables.uploads import Upload
from tests.eventually import eventually
from tests.factories.abandoned import add_abandoned_upload
from tests.integration.pipeline.workbench import prepare_staging, workbench


class Broker:
    """The broker of the tests' own worker and beat."""

    def __init__(self, system: Stack, *, infrastructure: Stack) -> None:
        self._url = system.environment["RABBITMQ_URL"]
        self._infrastructure = infrastructure

    def delete(self, queue: str) -> None:
        with kombu.Connection(self._url) as connection:
            self._raw(connection).queue_delete(queue)

    def replace(self, queue: str) -> None:
        """Delete a queue and declare it again at once."""
        with kombu.Connection(self._url) as connection:
            self._raw(connection).queue_delete(queue)
            declare_topology(connection)

    def lose_data(self) -> None:
        """Replace the virtual host by an empty one, which also drops its connections."""
        self._infrastructure.create_vhost(urlsplit(self._url).path.strip("/"))

    def until_consumed(self, queue: str) -> None:
        eventually(lambda: self._consumers(queue), until=bool)

    def _consumers(self, queue: str) -> int:
        with kombu.Connection(self._url) as connection:
            try:
                declared = self._raw(connection).queue_declare(queue, passive=True)
            except connection.channel_errors:
                return 0
            return int(declared.consumer_count)

    @staticmethod
    def _raw(connection: kombu.Connection) -> Any:  # noqa: ANN401  # its stubs cover only what all transports share
        return connection.channel()


@pytest.fixture(scope="module")
def system(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    settings = {"SWEEP_EVERY": "1s", "S3_PART_SIZE": "5MiB"}
    with infrastructure.scoped("lost", settings=settings, template=migrated_template) as own:
        prepare_staging(own)
        own.start_services("transfer", "beat")
        yield own


@pytest.fixture
def broker(system: Stack, infrastructure: Stack) -> Broker:
    return Broker(system, infrastructure=infrastructure)


@pytest.fixture
def process_ids(system: Stack) -> Iterator[None]:
    """Worker and beat; the test fails if one of them ends."""
    before = [process.pid for process in system.processes.values()]
    yield
    assert [process.pid for process in system.processes.values()] == before


def transferred(system: Stack, *, count: int = 1) -> None:
    """Return once a worker has run the tasks of events that are published now."""
    with workbench(system) as bench:
        events = [bench.finalized() for _ in range(count)]
        for event in events:
            bench.bus.publish(event)
        for event in events:
            assert bench.settled(event).status == JobStatus.COMPLETED


def swept(system: Stack) -> None:
    """Return once a worker has run a periodic task that beat sends from now on."""
    with workbench(system) as bench:
        with Session(bench.engine) as session, session.begin():
            upload = add_abandoned_upload(session)

        def status() -> str:
            with Session(bench.engine) as session:
                return session.get_one(Upload, upload.id).status

        eventually(status, until=lambda status: status == UploadStatus.EXPIRED)


pytestmark = pytest.mark.usefixtures("process_ids")


def test_the_worker_declares_a_deleted_queue_and_consumes_again(
    system: Stack, broker: Broker
) -> None:
    for _ in range(2):
        broker.delete(queues.UPLOADS)
        broker.until_consumed(queues.UPLOADS)
        transferred(system)


def test_no_event_is_lost_after_a_queue_was_replaced_at_once(system: Stack, broker: Broker) -> None:
    for _ in range(2):
        broker.replace(queues.UPLOADS)
        # The broker may count one event for each of the two processes as delivered.
        transferred(system, count=3)


def test_beat_declares_the_deleted_queue_of_the_periodic_tasks(
    system: Stack, broker: Broker
) -> None:
    broker.delete(topology.MAINTENANCE)
    swept(system)


def test_worker_and_beat_continue_on_a_broker_that_lost_its_data(
    system: Stack, broker: Broker
) -> None:
    for _ in range(2):
        broker.lose_data()
        broker.until_consumed(queues.UPLOADS)
        transferred(system)
        swept(system)
