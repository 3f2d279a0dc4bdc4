"""Every statement of the product reads a bounded number of rows, however many rows there are.

The statements are those that the product executes: each call, look and sweep runs on a seeded
history, and each of its statements is explained at that moment.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Select, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from dev.bench import jobs, looks
from dev.bench.looks import Call, Facts, Look, PipelineLook
from dev.seed.extent import Extent
from dev.seed.load import seed
from dev.stack.stack import Stack
from gateway.administration import keys
from gateway.app import create_app
from gateway.db import AutocommitConnection, SessionStatements
from gateway.settings import API_PREFIX
from gateway.settings import Settings as GatewaySettings
from gateway.uploads import queries as upload_queries
from pipeline.context import Context, build_context
from pipeline.ingest.extractors import registry
from pipeline.maintenance import orphans
from pipeline.maintenance.exclusive import Budget
from pipeline.settings import Settings
from schemas import object_keys, staging_layout
from schemas.api.scopes import Scope
from schemas.lifecycle import DocumentStatus, UploadStatus
from schemas.tables import ledger
from schemas.tables.documents import Document, Page
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.factories.secret_keys import KEY
from tests.fakes.storage import FakeStorage
from tests.plans import Plan, recorded
from tests.stack import fresh_name

MANY_JOBS = Extent(rows=20_000, active=200, tenants=500, span=timedelta(days=28))
MANY_WAITING = Extent(rows=12_000, active=8_000, tenants=1)
"""One tenant, with more waiting steps than a statement may read."""

BIG = 1_000
"""Rows from which a table must not be read from the first to the last."""
ROWS_MAX = 500
"""Rows that one part of a statement may return or discard; a tenant has more rows."""
BUFFERS_OF_STATEMENT, BUFFERS_OF_ROW = 260, 20
"""A new step fires triggers, and the change of a row is written to every index of its table, each of
which the connection first looks up in the catalog."""
BUFFERS_OF_POSITION = 10
"""The rows of a page may be on more blocks at one position than at another."""

Check = Callable[[Sequence[Plan]], None]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=[MANY_JOBS], ids=["many jobs"])
def seeded(
    request: pytest.FixtureRequest, infrastructure: Stack, migrated_template: str
) -> Iterator[str]:
    """The URL of a seeded database; no test changes it for good."""
    name = fresh_name()
    url = infrastructure.create_database(name, template=migrated_template)["DATABASE_URL"]
    seed(url, request.param)
    yield url
    infrastructure.drop_database(name)


@pytest.fixture(scope="module")
def engine(seeded: str) -> Iterator[Engine]:
    engine = create_engine(seeded)
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(seeded: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(seeded)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="module")
def facts(engine: Engine) -> Facts:
    with engine.connect() as connection:
        return Facts.of(connection)


@pytest.fixture(scope="module")
def check(engine: Engine) -> Check:
    """Fail if a statement reads more rows than its result needs."""
    query = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= :big")
    with engine.connect() as connection:
        big_tables = frozenset(connection.scalars(query, {"big": BIG}))
    assert big_tables >= {"uploads", "jobs", "steps", "outbox", "inbox", "documents"}
    for parent in ("events_", "deliveries_", "attempts_"):
        assert any(table.startswith(parent) for table in big_tables), parent

    def check(plans: Sequence[Plan]) -> None:
        assert plans
        for plan in plans:
            shown = f"{plan.statement}\n{plan.text}"
            assert not plan.scanned & big_tables, shown
            assert max(plan.rows, plan.discarded) <= ROWS_MAX, shown
            assert plan.buffers <= BUFFERS_OF_STATEMENT + BUFFERS_OF_ROW * plan.rows, shown

    return check


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(select(Job.id).where(Job.revision == 0), id="whole table"),
        pytest.param(
            select(Job.id)
            .join(Tenant, Tenant.id == Job.tenant_id)
            .where(Tenant.name == "seed-0001", Job.revision == 0),
            id="whole tenant",
        ),
        pytest.param(select(Upload).order_by(Upload.id), id="whole index"),
    ],
)
def test_a_statement_that_reads_too_much_is_found(
    engine: Engine, check: Check, statement: Select[Any]
) -> None:
    with recorded() as plans, engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_sort = off"))
        connection.execute(statement)

    with pytest.raises(AssertionError):
        check(plans)


# The gateway


class Recorded(AutocommitConnection):
    """Runs statements through an engine, which records their plans."""

    def __init__(self, engine: AsyncEngine, *, commits: bool) -> None:
        super().__init__(engine)
        self._commits = commits

    async def rows(self, statement: LiteralString, values: Mapping[str, Any]) -> Sequence[Any]:
        async with self._engine.connect() as connection:
            rows = (await connection.exec_driver_sql(statement, dict(values))).all()
            if self._commits:
                await connection.commit()
            return rows

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with AsyncSession(self._engine) as session, session.begin():
            yield RecordedTransaction(session)


class RecordedTransaction(SessionStatements):
    """Also copies rows, which has no plan."""

    async def copy(self, statement: LiteralString, rows: bytes) -> None:
        connection = await self._session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        async with driver.cursor().copy(statement) as copy:
            await copy.write(rows)


@pytest.fixture
async def gateway(
    seeded: str, async_engine: AsyncEngine, facts: Facts, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the tenant with the most jobs, for a gateway in this process."""
    app: Any = create_app(
        GatewaySettings.model_validate(
            {
                "database_url": seeded,
                "secret_keys": KEY,
                "staging_dir": tmp_path,
                "staging_reserve": 0,
            }
        )
    )
    autocommit = Recorded(async_engine, commits=True)
    app.state.context = replace(app.state.context, autocommit=autocommit)
    async with app.lifespan():
        async with app.state.context.database.transaction() as session:
            created = await keys.create(
                session, tenant=facts.tenant, scopes=tuple(Scope), actor="test"
            )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url=f"http://gateway{API_PREFIX}",
            headers={"Authorization": f"Bearer {created.key}"},
        ) as client:
            yield client


async def ask(gateway: httpx.AsyncClient, call: Call) -> dict[str, Any]:
    answer = await gateway.request(
        call.method, call.path, content=call.body, headers=dict(call.headers)
    )
    assert answer.is_success, answer.text
    is_json = answer.headers.get("Content-Type", "").partition(";")[0] == "application/json"
    return answer.json() if is_json else {}


@pytest.mark.anyio
async def test_calls_that_read_use_an_index(
    gateway: httpx.AsyncClient, facts: Facts, check: Check
) -> None:
    for call in looks.reads(facts):
        with recorded() as plans:
            await ask(gateway, call)

        check(plans)


@pytest.mark.anyio
async def test_a_page_deep_in_the_list_of_jobs_reads_as_much_as_the_first(
    gateway: httpx.AsyncClient, engine: Engine, facts: Facts, check: Check
) -> None:
    with engine.connect() as connection:
        lists = jobs.lists(connection, facts, size=5, pages=10_000)
    for listed in lists:
        buffers = []
        for is_deep in (False, True):
            with recorded() as plans:
                page = await ask(gateway, Call(name=listed.name, path=listed.path(is_deep=is_deep)))
            check(plans)
            assert len(page["items"]) == listed.size, listed
            buffers.append(sum(plan.buffers for plan in plans))

        first, deep = buffers
        assert deep <= first + BUFFERS_OF_POSITION, (listed.name, listed.deep, buffers)


@pytest.mark.anyio
async def test_the_calls_of_an_upload_use_an_index(
    gateway: httpx.AsyncClient, check: Check
) -> None:
    await check_upload(gateway, check=check)


async def check_upload(gateway: httpx.AsyncClient, *, check: Check) -> None:
    """Check the statements of each call of an upload."""
    calls = looks.upload()
    call: Call | None = next(calls)
    while call is not None:
        with recorded() as plans:
            answer = await ask(gateway, call)
        check(plans)
        try:
            call = calls.send(answer)
        except StopIteration:
            call = None


@pytest.mark.anyio
async def test_rendering_reprocessing_and_deleting_a_document_use_an_index(
    gateway: httpx.AsyncClient, engine: Engine, facts: Facts, check: Check
) -> None:
    oldest = (
        select(Document.id)
        .join(Page, (Page.revision_id == Document.revision_id) & (Page.number == 1))
        .where(Document.tenant_id == facts.tenant_id, Document.status == DocumentStatus.INGESTED)
        .order_by(Document.created_at)
        .limit(1)
    )
    with engine.connect() as connection:
        path = f"/documents/{connection.scalars(oldest).one()}"
    json_type = {"Content-Type": "application/json"}
    image = Call(name="image", path=f"{path}/pages/1/image")
    for call in (
        image,
        image,
        Call(
            name="reprocess", method="POST", path=f"{path}/reprocess", body=b"{}", headers=json_type
        ),
        Call(name="delete", method="DELETE", path=path),
    ):
        with recorded() as plans:
            await ask(gateway, call)

        check(plans)


@pytest.mark.anyio
async def test_the_calls_of_an_export_use_an_index(
    gateway: httpx.AsyncClient, check: Check
) -> None:
    path = "/exports"
    for method, body in (("POST", b'{"kind": "documents"}'), ("GET", None), ("DELETE", None)):
        with recorded() as plans:
            answer = await ask(
                gateway,
                Call(
                    name=f"{method} {path}",
                    method=method,
                    path=path,
                    body=body,
                    headers={"Content-Type": "application/json"} if body else {},
                ),
            )
        check(plans)
        path = answer.get("status_url", path).removeprefix(API_PREFIX)


@pytest.mark.anyio
async def test_the_calls_of_a_batch_use_an_index(gateway: httpx.AsyncClient, check: Check) -> None:
    path = "/batches"
    for method, action, body in (
        ("POST", "", b"{}\n" * 10),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/cancel", None),
    ):
        with recorded() as plans:
            answer = await ask(
                gateway,
                Call(
                    name=f"{method} {path}{action}",
                    method=method,
                    path=f"{path}{action}",
                    body=body,
                    headers={"Content-Type": "application/x-ndjson"} if body else {},
                ),
            )
        check(plans)
        path = answer["status_url"].removeprefix(API_PREFIX)


@pytest.mark.anyio
async def test_the_statements_of_a_chunk_use_an_index(
    async_engine: AsyncEngine, facts: Facts, check: Check
) -> None:
    connection = Recorded(async_engine, commits=False)
    with recorded() as plans:
        upload = await upload_queries.staged_upload(
            connection, tenant_id=facts.tenant_id, upload_id=facts.upload_id
        )
        await upload_queries.chunk_state(connection, upload, index=0)
        for index in (0, 1):
            chunk = upload_queries.StoredChunk(index=index, size=1, sha256=bytes(32), crc32c=None)
            await upload_queries.record_chunk(connection, upload, chunk, sniffed_type=None)

    assert len(plans) == 4
    check(plans)


def test_the_ledger_looks_up_the_deliveries_of_the_events_of_its_range(
    connection: Connection, facts: Facts, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "EVENTS_MAX", 100)
    since, until = datetime.fromtimestamp(0, tz=UTC), datetime.now(UTC)
    values = ledger.values_of(tenant_id=facts.tenant_id, since=since, until=until)

    with recorded() as plans:
        row = connection.execute(ledger.LEDGER, values).one()

    found = ledger.ledger_of(row, since=since, until=until)
    assert (found.is_complete, found.difference) == (False, 0)
    assert found.published > 0
    check(plans)


# Looks


@pytest.mark.anyio
@pytest.mark.parametrize("look", looks.LOOKS, ids=lambda look: look.name)
async def test_a_look_reads_only_what_is_due(
    async_engine: AsyncEngine, facts: Facts, check: Check, look: Look
) -> None:
    async with async_engine.connect() as connection:
        await connection.run_sync(look.prepare, facts)
        with recorded() as plans:
            await look.look(connection, facts)
        await connection.rollback()

    check(plans)


# The pipeline


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that is rolled back."""
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


@pytest.fixture
def context(seeded: str, connection: Connection, tmp_path: Path) -> Iterator[Context]:
    """A context whose transactions are rolled back, with a store in memory."""
    (tmp_path / staging_layout.MARKER).touch()
    built = build_context(
        Settings(
            database_url=SecretStr(seeded),
            rabbitmq_url=SecretStr("amqp://nobody@127.0.0.1/none"),
            staging_dir=tmp_path,
            secret_keys=SecretStr(KEY),
            s3_bucket="none",
            s3_access_key_id=SecretStr("none"),
            s3_secret_access_key=SecretStr("none"),
            # Some partitions are older, and no event of them is needed.
            event_retention=timedelta(days=10),
            # No seeded job is older: a look makes those old that it needs.
            job_retention=timedelta(days=30),
            sweep_grace=timedelta(milliseconds=1),
        ),
        will_be_read=registry.will_be_read,
    )
    yield looks.in_transaction(replace(built, storage=FakeStorage()), connection)
    built.engine.dispose()


@pytest.mark.parametrize("look", looks.PIPELINE, ids=lambda look: look.name)
def test_the_pipeline_reads_only_what_it_needs(
    connection: Connection, context: Context, check: Check, look: PipelineLook
) -> None:
    check_look(look, connection=connection, context=context, check=check)


def check_look(
    look: PipelineLook, *, connection: Connection, context: Context, check: Check
) -> None:
    facts = Facts.of(connection)
    look.prepare(connection, facts)
    with recorded() as plans:
        look.look(context, facts)

    check(plans)


def test_the_sweeps_of_orphans_look_uploads_up_by_their_ids(
    connection: Connection, context: Context, tmp_path: Path, check: Check
) -> None:
    storage = context.storage
    uploads = connection.execute(
        select(Upload.id, Upload.tenant_id)
        .where(Upload.status == UploadStatus.FINALIZED)
        .order_by(Upload.id)
        .limit(100)
    ).all()
    long_ago = datetime.now(UTC) - timedelta(days=7)
    assert isinstance(storage, FakeStorage)
    for upload in uploads:
        file = tmp_path / str(upload.id)
        file.touch()
        os.utime(file, (long_ago.timestamp(), long_ago.timestamp()))
        storage.create_multipart(
            object_keys.original(upload.tenant_id, upload.id), content_type="x/y"
        )
    budget = Budget.of(timedelta(minutes=1))

    with recorded() as plans:
        report = orphans.sweep_files(context, budget)
        orphans.sweep_multiparts(context, budget)
        orphans.sweep_originals(context, budget)

    assert report.kept == len(uploads)
    check(plans)


# Many waiting steps of one tenant


with_many_waiting = pytest.mark.parametrize(
    "seeded", [MANY_WAITING], indirect=True, ids=["many waiting"], scope="module"
)


@with_many_waiting
@pytest.mark.anyio
async def test_an_upload_reads_no_steps_that_wait(gateway: httpx.AsyncClient, check: Check) -> None:
    await check_upload(gateway, check=check)


@with_many_waiting
@pytest.mark.parametrize(
    "look",
    [look for look in looks.PIPELINE if look.name.startswith(("step: ", "watchdog: "))],
    ids=lambda look: look.name,
)
def test_a_step_reads_no_steps_that_wait(
    connection: Connection, context: Context, check: Check, look: PipelineLook
) -> None:
    check_look(look, connection=connection, context=context, check=check)
