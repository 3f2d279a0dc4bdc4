"""An `Idempotency-Key` whose time is over between two transactions of one request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway import db
from gateway.http.idempotency import KeyedRequest
from gateway.settings import Settings
from gateway.staging import Staging
from gateway.staging.directory import DirectoryArea
from gateway.uploads.operations import open_upload
from gateway.uploads.routes import terms_of
from gateway.webhooks.operations import register_callback
from schemas.api.uploads import CreateUpload, UploadCreated
from schemas.settings import STAGING_MARKER, DatabaseSettings
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import BeginSession
from tests.integration.gateway.conftest import MakeKey

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


class Create(Protocol):
    async def __call__(self, database: db.Database) -> UploadCreated: ...


class SweptInBetween(db.Database):
    """After each of its transactions the sweep takes every key away."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with super().transaction() as session:
            yield session
        async with super().transaction() as session:
            await session.execute(delete(IdempotentRequest))


@pytest.fixture
async def swept(database: DatabaseSettings) -> AsyncIterator[SweptInBetween]:
    engine = db.build_engine(database)
    yield SweptInBetween(engine)
    await engine.dispose()


@pytest.fixture
async def staging(staging_dir: Path) -> AsyncIterator[Staging]:
    staging = Staging(DirectoryArea(staging_dir, reserve_bytes=0))
    await staging.prepare()
    yield staging
    staging.close()


@pytest.fixture
async def create(
    *,
    database: DatabaseSettings,
    transaction: BeginSession,
    staging: Staging,
    staging_dir: Path,
    make_key: MakeKey,
) -> Create:
    """Creates an upload, always with the same key."""
    await make_key()
    async with transaction() as session:
        tenant_id = (await session.scalars(select(Tenant.id))).one()
    settings = Settings.model_validate(database.model_dump() | {"staging_dir": staging_dir})
    request = CreateUpload(filename="a", size=5)

    async def create_with(database: db.Database) -> UploadCreated:
        return await open_upload(
            database,
            staging,
            tenant_id=tenant_id,
            request=request,
            keyed=KeyedRequest.of("once", operation="create_upload", request=request),
            terms=terms_of(settings),
            now=datetime.now(UTC),
            register_callback=partial(register_callback, allow_loopback=False),
        )

    return create_with


def staged_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {STAGING_MARKER}


async def test_a_repeated_create_answers_no_upload_without_a_file(
    create: Create, gateway_database: db.Database, swept: SweptInBetween, staging_dir: Path
) -> None:
    first = await create(gateway_database)
    again = await create(swept)

    assert again == first
    async with gateway_database.transaction() as session:
        opened = {str(upload_id) for upload_id in await session.scalars(select(Upload.id))}
    assert staged_in(staging_dir) == opened
