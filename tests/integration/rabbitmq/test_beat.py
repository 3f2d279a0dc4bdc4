"""Beat touches its liveness file only while the broker has the queue of the periodic tasks."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery

from pipeline.beat import TICK, BeatScheduler
from pipeline.messaging.broker import declare_topology
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


def declare(broker: BrokerSettings) -> None:
    with kombu.Connection(broker.rabbitmq_url.get_secret_value()) as connection:
        declare_topology(connection)


def test_every_tick_touches_the_liveness_file(
    scheduler: BeatScheduler, broker: BrokerSettings, file: Path
) -> None:
    declare(broker)
    for _ in range(2):
        assert 0 < scheduler.tick() <= TICK.total_seconds()
        assert file.exists()
        file.unlink()


def test_the_file_is_not_touched_while_the_queue_is_missing(
    scheduler: BeatScheduler, broker: BrokerSettings, file: Path
) -> None:
    scheduler.tick()
    assert not file.exists()
    declare(broker)
    scheduler.tick()
    assert file.exists()


def test_a_lost_connection_withholds_the_touch_until_beat_has_reconnected(
    scheduler: BeatScheduler, broker: BrokerSettings, file: Path
) -> None:
    declare(broker)
    scheduler.tick()
    file.unlink()
    amqp: Any = scheduler.connection.connection  # its stubs cover only what all transports share
    amqp.transport.sock.shutdown(socket.SHUT_RDWR)
    scheduler.tick()
    assert not file.exists()
    scheduler.tick()
    assert file.exists()


def test_without_a_liveness_file_beat_does_not_ask_the_broker() -> None:
    app = Celery(set_as_current=False)
    app.conf.update(broker_url="amqp://127.0.0.1:1", waybill_process=LivenessSettings())
    assert BeatScheduler(app).tick() > 0
