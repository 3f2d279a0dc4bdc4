from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from sqlalchemy import text

from gateway import db
from gateway.administration import keys
from gateway.context import Context
from gateway.settings import Settings
from schemas.api.scopes import Scope
from schemas.lifecycle import StagingKind
from schemas.settings import DatabaseSettings, ObjectStoreSettings, OcrEngineName
from tests.factories.secret_keys import KEY
from tests.integration.gateway.api import Api, BeginSession
from tests.integration.gateway.applications import Applications
from tests.integration.gateway.process import Process, api_of
from tests.integration.gateway.staged import InBucket, InDirectory, Staged

SHIFT_NOW = (
    "CREATE SCHEMA shifted",
    """
    CREATE FUNCTION shifted.now() RETURNS timestamptz STABLE LANGUAGE sql
    AS 'SELECT pg_catalog.now() + make_interval(days => {days})'
    """,
    "SET LOCAL search_path = shifted, public, pg_catalog",
    "ALTER TABLE uploads ALTER COLUMN created_at SET DEFAULT now()",
    """
    DO $$ BEGIN EXECUTE format(
        'ALTER DATABASE %I SET search_path = shifted, public, pg_catalog', current_database()
    ); END $$
    """,
)


class MakeKey(Protocol):
    """Creates an API key, by default with all scopes."""

    async def __call__(self, *, tenant: str = "acme", scopes: tuple[Scope, ...] = ...) -> str: ...


class Serve(Protocol):
    """Runs the application in this process, with the given settings and store."""

    def __call__(
        self,
        *,
        store: ObjectStoreSettings | None = None,
        **settings: Any,  # noqa: ANN401  # any setting
    ) -> AbstractAsyncContextManager[Api]: ...


class Start(Protocol):
    """Starts a gateway process; it is killed at the end of the test if it still runs."""

    async def __call__(self, **settings: str) -> Process: ...


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def staging_dir(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def staging_kind(request: pytest.FixtureRequest) -> StagingKind:
    """The staging of the gateways of a test; see `over_both_stagings`."""
    return StagingKind(getattr(request, "param", StagingKind.DIRECTORY))


@pytest.fixture
def staged(
    staging_kind: StagingKind, staging_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Staged:
    """The staged bytes of the gateways of a test."""
    if staging_kind == StagingKind.DIRECTORY:
        return InDirectory(staging_dir)
    return InBucket(request.getfixturevalue("object_store_settings"), work_dir=tmp_path / "work")


@pytest.fixture
async def gateway_database(database: DatabaseSettings) -> AsyncIterator[db.Database]:
    engine = db.build_engine(database)
    yield db.Database(engine)
    await engine.dispose()


@pytest.fixture
def transaction(gateway_database: db.Database) -> BeginSession:
    return gateway_database.transaction


@pytest.fixture(params=[2, -2], ids=["gateway_is_behind", "gateway_is_ahead"])
async def clock_shift(request: pytest.FixtureRequest, transaction: BeginSession) -> timedelta:
    """Shift the database's clock for all new connections; return how far.

    The clock of the gateway is then wrong by this difference, whichever clock it reads.
    """
    days: int = request.param
    async with transaction() as session:
        for statement in SHIFT_NOW:
            await session.execute(text(statement.format(days=days)))
    return timedelta(days=days)


@pytest.fixture(scope="session")
def applications() -> Applications:
    return Applications()


@pytest.fixture
async def context(
    applications: Applications, database: DatabaseSettings, staging_dir: Path
) -> AsyncIterator[Context]:
    """The context of a gateway, for calls below its routes."""
    settings = database.model_dump() | {
        "staging_dir": staging_dir,
        "staging_reserve": 0,
        "secret_keys": KEY,
    }
    async with applications.running(Settings.model_validate(settings)) as app:
        yield app.state.context


@pytest.fixture
def make_key(transaction: BeginSession) -> MakeKey:
    return _key_maker(transaction)


def _key_maker(transaction: BeginSession) -> MakeKey:
    async def make(*, tenant: str = "acme", scopes: tuple[Scope, ...] = tuple(Scope)) -> str:
        async with transaction() as session:
            return (await keys.create(session, tenant=tenant, scopes=scopes, actor="test")).key

    return make


@pytest.fixture(scope="module")
async def shared_transaction(module_database: DatabaseSettings) -> AsyncIterator[BeginSession]:
    """Opens sessions on the database of `shared_api`."""
    engine = db.build_engine(module_database)
    yield db.Database(engine).transaction
    await engine.dispose()


@pytest.fixture(scope="module")
def make_shared_key(shared_transaction: BeginSession) -> MakeKey:
    return _key_maker(shared_transaction)


@pytest.fixture(scope="module")
async def shared_api(
    applications: Applications,
    module_database: DatabaseSettings,
    make_shared_key: MakeKey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Api]:
    """A client of acme, of one application and database for all tests of a file.

    For requests that are refused or only read: a new application takes most of the time of such a test.
    """
    staged = InDirectory(tmp_path_factory.mktemp("shared") / "staging")
    settings = _settings(module_database, staged)
    async with _serving(applications, settings, key=await make_shared_key()) as api:
        yield api


@pytest.fixture
def serve(
    applications: Applications, database: DatabaseSettings, staged: Staged, make_key: MakeKey
) -> Serve:
    @asynccontextmanager
    async def running(
        *,
        store: ObjectStoreSettings | None = None,
        **settings: Any,  # noqa: ANN401  # any setting
    ) -> AsyncIterator[Api]:
        validated = _settings(database, staged, **settings)
        key = await make_key()
        async with _serving(applications, validated, key=key, store=store or staged.store) as api:
            yield api

    return running


def _settings(
    database: DatabaseSettings,
    staged: Staged,
    **settings: Any,  # noqa: ANN401  # any setting
) -> Settings:
    return Settings.model_validate(
        {"staging_reserve": 0, "secret_keys": KEY, "ocr_engine": OcrEngineName.NONE}
        | {name.lower(): value for name, value in staged.settings.items()}
        | database.model_dump()
        | settings
    )


@asynccontextmanager
async def _serving(
    applications: Applications,
    settings: Settings,
    *,
    key: str,
    store: ObjectStoreSettings | None = None,
) -> AsyncIterator[Api]:
    app: Any
    async with (
        applications.running(settings, store=store) as app,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://gateway",
            timeout=60,
        ) as http,
    ):
        yield Api(http, key)


@pytest.fixture
async def api(serve: Serve) -> AsyncIterator[Api]:
    """A client of the tenant acme, with all scopes."""
    async with serve() as api:
        yield api


@pytest.fixture
async def stranger(api: Api, make_key: MakeKey) -> Api:
    """A client of another tenant, with all scopes."""
    return api.of(await make_key(tenant="globex"))


@pytest.fixture
async def start(database: DatabaseSettings, staged: Staged, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start_process(**settings: str) -> Process:
        environment = {
            "DATABASE_URL": database.database_url.get_secret_value(),
            "STAGING_RESERVE": "0",
            "SECRET_KEYS": KEY,
            "OCR_ENGINE": "none",
            **staged.settings,
            "LOG_LEVEL": "DEBUG",
            **settings,
        }
        process = await Process.start(environment=environment, directory=tmp_path)
        started.append(process)
        return process

    yield start_process
    for process in started:
        await process.kill()


@pytest.fixture
async def served(start: Start, make_key: MakeKey) -> AsyncIterator[Api]:
    """A client of acme, for a gateway in its own process."""
    process = await start()
    async with api_of(process, await make_key()) as api:
        yield api
