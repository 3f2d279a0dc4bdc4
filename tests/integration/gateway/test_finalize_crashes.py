"""A finalize that crashes at any of its lines has either all of its effects or none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select

from gateway.context import Context
from gateway.uploads import finalize
from schemas.api.uploads import FinalizeUpload
from schemas.ids import UploadId
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.uploads import Chunk, Upload
from tests.integration.gateway.api import Api, BeginSession

pytestmark = pytest.mark.anyio


class Crash(BaseException):
    """Stands for the death of the process."""


@contextmanager
def crash_at(number: int) -> Iterator[list[int]]:
    """Raise at the `number`-th executed line of the module; yields the lines before it."""
    executed: list[int] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401  # a function like this one
        if frame.f_code.co_filename != finalize.__file__:
            return None
        if event == "line":
            if len(executed) == number:
                raise Crash
            executed.append(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield executed
    finally:
        sys.settrace(before)


async def finalize_in(context: Context, upload_id: str) -> str:
    async with context.database.transaction() as session:
        tenant_id = (await session.scalars(select(Upload.tenant_id))).one()
    async with context.autocommit.transaction() as transaction:
        job = await finalize.finalize_upload(
            transaction,
            tenant_id=tenant_id,
            request=FinalizeUpload(upload_id=UploadId(UUID(upload_id))),
            keyed=None,
            settings=context.settings,
            backlog=None,
            traceparent=None,
        )
    return str(job.job_id)


async def state(transaction: BeginSession) -> tuple[int, int, str]:
    async with transaction() as session:
        jobs = await session.scalar(select(func.count()).select_from(Job)) or 0
        events = await session.scalar(select(func.count()).select_from(EventRecord)) or 0
        return jobs, events, (await session.scalars(select(Upload.status))).one()


async def test_a_crash_at_any_line_leaves_all_or_nothing_and_the_retry_creates_one_job(
    api: Api, context: Context, transaction: BeginSession
) -> None:
    crashes = 0
    while True:
        upload_id = await api.sent(b"content")
        try:
            with crash_at(crashes) as executed:
                await finalize_in(context, upload_id)
        except Crash:
            # The last batch of statements commits; the lines after it make the answer.
            assert await state(transaction) in {(0, 0, "open"), (1, 1, "finalized")}
            job_id = await finalize_in(context, upload_id)
        else:
            break
        assert await state(transaction) == (1, 1, "finalized")
        assert await finalize_in(context, upload_id) == job_id
        crashes += 1
        async with transaction() as session:
            for table in (OutboxMessage, EventRecord, Step, Job, Chunk, Upload):
                await session.execute(delete(table))

    assert crashes == len(executed)
    assert crashes > 30, "the lines were traced"
    assert await state(transaction) == (1, 1, "finalized")
