"""An `Idempotency-Key` that expires between two transactions of one request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway import db
from gateway.context import Context
from gateway.http.idempotency import KeyedRequest
from gateway.uploads.create import create_upload
from schemas import staging_layout
from schemas.api.uploads import CreateUpload, UploadCreated
from schemas.ids import TenantId
from schemas.settings import DatabaseSettings
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import BeginSession
from tests.integration.gateway.conftest import MakeKey

pytestmark = pytest.mark.anyio


class KeysExpire(db.Database):
    """Deletes every key after each transaction, as a sweep may do."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with super().transaction() as session:
            yield session
        async with super().transaction() as session:
            await session.execute(delete(IdempotentRequest))


@pytest.fixture
async def expiring(context: Context, database: DatabaseSettings) -> AsyncIterator[Context]:
    engine = db.build_engine(database)
    yield replace(context, database=KeysExpire(engine))
    await engine.dispose()


async def create(context: Context, tenant_id: TenantId) -> UploadCreated:
    """Create an upload, always with the same key."""
    request = CreateUpload(filename="a", size=5)
    return await create_upload(
        context,
        tenant_id=tenant_id,
        request=request,
        keyed=KeyedRequest.of("once", operation="create_upload", request=request),
        lifetime=context.settings.upload_ttl,
    )


def staged_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {staging_layout.MARKER}


async def test_a_repeated_create_never_returns_an_upload_without_a_staged_file(
    *,
    context: Context,
    expiring: Context,
    transaction: BeginSession,
    make_key: MakeKey,
    staging_dir: Path,
) -> None:
    await make_key()
    async with transaction() as session:
        tenant_id = (await session.scalars(select(Tenant.id))).one()

    first = await create(context, tenant_id)
    again = await create(expiring, tenant_id)

    assert again == first
    async with transaction() as session:
        opened = {str(upload_id) for upload_id in await session.scalars(select(Upload.id))}
    assert staged_in(staging_dir) == opened
