from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from notifier import db
from notifier.delivery.store import open_store
from schemas.settings import BrokerSettings, DatabaseSettings
from tests.factories.secret_keys import KEY
from tests.fakes.receiver import Receiver
from tests.integration.notifier import bus, dispatchers
from tests.integration.notifier import proxy as proxies
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.dispatchers import RunDispatcher
from tests.integration.notifier.process import Process
from tests.integration.notifier.proxy import Proxy
from tests.integration.notifier.rows import Rows, engine_of


class Start(Protocol):
    """Starts a process of the notifier; the end of the test kills it."""

    async def __call__(self, command: str, **settings: str) -> Process: ...


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def rows(database: DatabaseSettings) -> AsyncIterator[Rows]:
    async with (
        engine_of(database) as engine,
        open_store(connect=db.connector(database, name="tests"), transaction=engine.begin) as store,
    ):
        yield Rows(engine, store=store)


@pytest.fixture
async def events_bus(broker: BrokerSettings) -> AsyncIterator[Bus]:
    async with bus.connected(broker) as connected:
        yield connected


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running_receiver:
        yield running_receiver


@pytest.fixture
def run_dispatcher(database: DatabaseSettings) -> RunDispatcher:
    return dispatchers.on(database)


@dataclass(frozen=True)
class ProxiedBroker:
    """The broker behind a proxy that can cut the connection."""

    proxy: Proxy
    settings: BrokerSettings


@dataclass(frozen=True)
class ProxiedDatabase:
    """The database behind a proxy that can cut the connection."""

    proxy: Proxy
    settings: DatabaseSettings


@pytest.fixture
async def proxied_broker(broker: BrokerSettings) -> AsyncIterator[ProxiedBroker]:
    async with proxies.to_broker(broker) as proxy:
        yield ProxiedBroker(proxy, proxy.in_front_of_broker(broker))


@pytest.fixture
async def proxied_database(database: DatabaseSettings) -> AsyncIterator[ProxiedDatabase]:
    async with proxies.to_database(database) as proxy:
        yield ProxiedDatabase(proxy, proxy.in_front_of_database(database))


@pytest.fixture
async def start(
    database: DatabaseSettings, broker: BrokerSettings, tmp_path: Path
) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start_process(command: str, **settings: str) -> Process:
        environment = {
            "DATABASE_URL": database.database_url.get_secret_value(),
            "RABBITMQ_URL": broker.rabbitmq_url.get_secret_value(),
            "SECRET_KEYS": KEY,
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
