"""One gateway process for all tests of a file, for clients that connect to it over a socket.

A file that needs other settings overrides `gateway_settings`; a test that needs a process of its own
uses `start`, on another database.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway import db
from gateway.administration import keys
from schemas.api.scopes import Scope
from schemas.settings import DatabaseSettings
from tests.factories.secret_keys import KEY
from tests.integration.gateway.api import Api, BeginSession
from tests.integration.gateway.clients.raw import Connection
from tests.integration.gateway.process import Process, api_of


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway process with its database, and an API key of the tenant acme with all scopes."""

    process: Process
    key: str
    transaction: BeginSession
    staging_dir: Path

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def port(self) -> int:
        return self.process.port

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def connect(self) -> Connection:
        """Return a raw connection; use it as an asynchronous context manager."""
        return Connection(port=self.port, key=self.key)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def gateway_settings() -> Mapping[str, str]:
    """Settings of the file's gateway beside the usual ones."""
    return {}


@pytest.fixture(scope="module")
async def gateway(
    module_database: DatabaseSettings,
    gateway_settings: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gateway]:
    directory = tmp_path_factory.mktemp("gateway")
    async with running(module_database, settings=gateway_settings, directory=directory) as gateway:
        yield gateway


@asynccontextmanager
async def running(
    database: DatabaseSettings, *, settings: Mapping[str, str], directory: Path
) -> AsyncIterator[Gateway]:
    """Start a gateway, with its staging and its log in a directory; kill it when the block ends."""
    engine = db.build_engine(database)
    transaction = db.Database(engine).transaction
    async with transaction() as session:
        created = await keys.create(session, tenant="acme", scopes=tuple(Scope), actor="test")
    staging_dir = directory / "staging"
    process = await Process.start(
        environment={
            "DATABASE_URL": database.database_url.get_secret_value(),
            "STAGING_DIR": str(staging_dir),
            "STAGING_RESERVE": "0",
            "SECRET_KEYS": KEY,
            "LOG_LEVEL": "DEBUG",
            **settings,
        },
        directory=directory,
    )
    yield Gateway(
        process=process, key=created.key, transaction=transaction, staging_dir=staging_dir
    )
    await process.kill()
    await engine.dispose()


@pytest.fixture
async def api(gateway: Gateway) -> AsyncIterator[Api]:
    """A client of acme, over connections of its own."""
    async with api_of(gateway.process, gateway.key) as api:
        yield api


@pytest.fixture
async def transaction(module_database: DatabaseSettings) -> AsyncIterator[BeginSession]:
    """Opens sessions on the database of the file's gateway."""
    engine = db.build_engine(module_database)
    yield db.Database(engine).transaction
    await engine.dispose()
