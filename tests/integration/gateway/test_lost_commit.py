"""A form whose COMMIT succeeds although the answer to the COMMIT is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway import db
from gateway.context import Context
from gateway.uploads.oneshot.form import Form
from gateway.uploads.oneshot.submission import Submission
from gateway.uploads.oneshot.submit_form import submit_form
from schemas.lifecycle import JobStatus
from schemas.settings import DatabaseSettings
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import BeginSession
from tests.integration.gateway.conftest import MakeKey

pytestmark = pytest.mark.anyio

FORM = (
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncontent\r\n--X--\r\n'
)


class LosesOneAnswer(db.Database):
    """Commits the transaction that adds the first job, then raises as if the answer was lost."""

    _is_lost = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        async with super().transaction() as session:
            yield session
        async with super().transaction() as session:
            has_job = await session.scalar(select(Job.id)) is not None
        if has_job and not self._is_lost:
            self._is_lost = True
            raise OperationalError("COMMIT", {}, psycopg.OperationalError())


async def body() -> AsyncIterator[bytes]:
    yield FORM


def form() -> Form:
    return Form.of(body(), content_type="multipart/form-data; boundary=X", length=len(FORM))


async def test_a_committed_form_is_kept_and_a_retry_with_its_key_returns_its_job(
    context: Context, database: DatabaseSettings, transaction: BeginSession, make_key: MakeKey
) -> None:
    await make_key()
    async with transaction() as session:
        tenant_id = (await session.scalars(select(Tenant.id))).one()
    engine = db.build_engine(database)
    unlucky = replace(context, database=LosesOneAnswer(engine))
    submission = Submission(tenant_id=tenant_id, idempotency_key="once", traceparent=None)

    with pytest.raises(OperationalError):
        await submit_form(unlucky, form(), submission=submission)
    again = await submit_form(unlucky, form(), submission=submission)

    assert again.job.status == JobStatus.QUEUED
    async with transaction() as session:
        upload = (await session.scalars(select(Upload))).one()
    assert (upload.id, upload.status) == (again.job.upload_id, "finalized")
    await engine.dispose()
