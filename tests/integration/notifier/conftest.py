from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from schemas.settings import BrokerSettings, DatabaseSettings
from tests.integration.notifier import bus, proxy
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.process import Process
from tests.integration.notifier.proxy import Proxy
from tests.integration.notifier.scene import Scene, engine_of


class Start(Protocol):
    """Starts a process of the notifier; it is killed when the test ends, if it still runs."""

    async def __call__(self, command: str, **settings: str) -> Process: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def scene(database: DatabaseSettings) -> AsyncIterator[Scene]:
    async with engine_of(database) as engine:
        yield Scene(engine)


@pytest.fixture
async def events_bus(broker: BrokerSettings) -> AsyncIterator[Bus]:
    async with bus.connected(broker) as connected:
        yield connected


@dataclass(frozen=True)
class CutBroker:
    """The broker, reached by a way that can be cut."""

    way: Proxy
    settings: BrokerSettings


@dataclass(frozen=True)
class CutDatabase:
    """The database, reached by a way that can be cut."""

    way: Proxy
    settings: DatabaseSettings


@pytest.fixture
async def cut(broker: BrokerSettings) -> AsyncIterator[CutBroker]:
    async with proxy.to_broker(broker) as way:
        yield CutBroker(way, way.in_front_of_broker(broker))


@pytest.fixture
async def cut_database(database: DatabaseSettings) -> AsyncIterator[CutDatabase]:
    async with proxy.to_database(database) as way:
        yield CutDatabase(way, way.in_front_of_database(database))


@pytest.fixture
async def start(
    database: DatabaseSettings, broker: BrokerSettings, tmp_path: Path
) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start_process(command: str, **settings: str) -> Process:
        environment = {
            "DATABASE_URL": database.database_url.get_secret_value(),
            "RABBITMQ_URL": broker.rabbitmq_url.get_secret_value(),
            "WEBHOOK_ALLOW_LOOPBACK": "true",
            "LOG_LEVEL": "DEBUG",
            **settings,
        }
        process = await Process.start(command, environment=environment, directory=tmp_path)
        started.append(process)
        return process

    yield start_process
    for process in started:
        await process.kill()
