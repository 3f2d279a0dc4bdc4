"""Beat keeps the queue of the periodic tasks, and touches its liveness file while it can."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery

from pipeline.beat import TICK, BeatScheduler
from schemas import topology
from schemas.settings import BrokerSettings, LivenessSettings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "alive"


@pytest.fixture
def scheduler(broker: BrokerSettings, file: Path) -> Iterator[BeatScheduler]:
    """A scheduler with an empty schedule, on a broker without queues."""
    app = Celery(set_as_current=False)
    app.conf.update(
        broker_url=broker.rabbitmq_url.get_secret_value(),
        waybill_process=LivenessSettings(liveness_file=file),
    )
    scheduler = BeatScheduler(app)
    yield scheduler
    scheduler.close()


def test_every_tick_touches_the_liveness_file(scheduler: BeatScheduler, file: Path) -> None:
    for _ in range(2):
        assert 0 < scheduler.tick() <= TICK.total_seconds()
        assert file.exists()
        file.unlink()


@pytest.mark.parametrize("writes_a_file", [True, False])
def test_every_tick_declares_the_queue_of_the_periodic_tasks(
    writes_a_file: bool,  # noqa: FBT001  # pytest passes parameters by name
    scheduler: BeatScheduler,
    broker: BrokerSettings,
    file: Path,
) -> None:
    if not writes_a_file:
        scheduler.app.conf.update(waybill_process=LivenessSettings())
    with kombu.Connection(broker.rabbitmq_url.get_secret_value()) as connection:
        channel: Any = connection.channel()  # its stubs cover only what all transports share
        for _ in range(2):
            assert scheduler.tick() > 0
            assert file.exists() == writes_a_file
            channel.queue_declare(topology.MAINTENANCE, passive=True)
            channel.queue_delete(topology.MAINTENANCE)


def test_a_lost_connection_withholds_the_touch_until_beat_has_reconnected(
    scheduler: BeatScheduler, file: Path
) -> None:
    scheduler.tick()
    file.unlink()
    amqp: Any = scheduler.connection.connection  # its stubs cover only what all transports share
    amqp.transport.sock.shutdown(socket.SHUT_RDWR)
    scheduler.tick()
    assert not file.exists()
    scheduler.tick()
    assert file.exists()
