"""Beat shows that it is alive while what it orders can reach somebody."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery

from pipeline.messaging.broker import declare_topology
from pipeline.messaging.liveness import TICK, Clock
from schemas.settings import BrokerSettings, LivenessSettings

pytestmark = pytest.mark.integration


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "alive"


@pytest.fixture
def clock(broker: BrokerSettings, file: Path) -> Iterator[Clock]:
    """A clock that has nothing to order, on a broker that has no queue yet."""
    app = Celery(set_as_current=False)
    app.conf.update(
        broker_url=broker.rabbitmq_url.get_secret_value(),
        waybill_process=LivenessSettings(liveness_file=file),
    )
    clock = Clock(app)
    yield clock
    clock.close()


def declare(broker: BrokerSettings) -> None:
    with kombu.Connection(broker.rabbitmq_url.get_secret_value()) as connection:
        declare_topology(connection)


def test_a_clock_shows_life_at_every_tick(clock: Clock, broker: BrokerSettings, file: Path) -> None:
    declare(broker)
    for _ in range(2):
        assert 0 < clock.tick() <= TICK.total_seconds()
        assert file.exists()
        file.unlink()


def test_a_clock_whose_orders_would_reach_nobody_shows_no_life(
    clock: Clock, broker: BrokerSettings, file: Path
) -> None:
    clock.tick()
    assert not file.exists()
    declare(broker)
    clock.tick()
    assert file.exists()


def test_a_clock_that_lost_the_broker_shows_no_life_until_it_is_connected_anew(
    clock: Clock, broker: BrokerSettings, file: Path
) -> None:
    declare(broker)
    clock.tick()
    file.unlink()
    amqp: Any = clock.connection.connection  # its stubs know only what all transports share
    amqp.transport.sock.shutdown(socket.SHUT_RDWR)
    clock.tick()
    assert not file.exists()
    clock.tick()
    assert file.exists()


def test_a_clock_that_nobody_watches_asks_the_broker_nothing() -> None:
    app = Celery(set_as_current=False)
    app.conf.update(broker_url="amqp://127.0.0.1:1", waybill_process=LivenessSettings())
    assert Clock(app).tick() > 0
