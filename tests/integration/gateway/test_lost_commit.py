"""A form whose COMMIT reached the database, and whose answer did not come back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway import db
from gateway.settings import Settings
from gateway.staging import Staging
from gateway.staging.directory import DirectoryArea
from gateway.uploads.oneshot import operations
from gateway.uploads.oneshot.form import Form
from gateway.uploads.oneshot.operations import Reception, Request
from gateway.uploads.operations import check_complete_upload
from gateway.uploads.receive import receive_chunk
from gateway.uploads.routes import terms_of
from gateway.webhooks.operations import register_callback
from schemas.lifecycle import JobStatus
from schemas.settings import DatabaseSettings
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import BeginSession
from tests.integration.gateway.conftest import MakeKey

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

FORM = (
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncontent\r\n--X--\r\n'
)


class LosesAnAnswer(db.Database):
    """Commits what makes the first job, and then says that nobody knows whether it did."""

    _is_lost = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with super().transaction() as session:
            yield session
        async with super().transaction() as session:
            is_made = await session.scalar(select(Job.id)) is not None
        if is_made and not self._is_lost:
            self._is_lost = True
            raise OperationalError("COMMIT", {}, psycopg.OperationalError())


async def body() -> AsyncIterator[bytes]:
    yield FORM


def form() -> Form:
    return Form.of(body(), content_type="multipart/form-data; boundary=X", length=len(FORM))


async def test_what_was_committed_stays_and_is_found_by_its_key(
    database: DatabaseSettings, transaction: BeginSession, make_key: MakeKey, staging_dir: Path
) -> None:
    await make_key()
    async with transaction() as session:
        tenant_id = (await session.scalars(select(Tenant.id))).one()
    settings = Settings.model_validate(database.model_dump() | {"staging_dir": staging_dir})
    staging = Staging(DirectoryArea(staging_dir, reserve_bytes=0))
    await staging.prepare()
    engine = db.build_engine(database)
    autocommit_engine = db.build_autocommit_engine(database)
    clock = partial(datetime.now, UTC)
    reception = Reception(
        database=LosesAnAnswer(engine),
        staging=staging,
        register_callback=partial(register_callback, allow_loopback=False),
        check=partial(check_complete_upload, settings=settings),
        terms=terms_of(settings),
        form_lease=timedelta(minutes=1),
        receive_chunk=partial(
            receive_chunk,
            db.AutocommitConnection(autocommit_engine),
            staging,
            lock_wait=timedelta(seconds=1),
            clock=clock,
        ),
        clock=clock,
    )
    request = Request(tenant_id=tenant_id, idempotency_key="once", traceparent=None)

    with pytest.raises(OperationalError):
        await operations.submit_form(reception, form(), request=request)
    again = await operations.submit_form(reception, form(), request=request)

    assert again.job.status == JobStatus.QUEUED
    async with transaction() as session:
        upload = (await session.scalars(select(Upload))).one()
    assert (upload.id, upload.status) == (again.job.upload_id, "finalized")
    staging.close()
    await autocommit_engine.dispose()
    await engine.dispose()
