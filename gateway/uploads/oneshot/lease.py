"""The life of a form's upload: short, and lengthened for as long as its form is taken in.

Nobody but the gateway that reads the form can go on with its upload. Where that
gateway dies, what it reserved of the tenant's quota is free again soon.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from gateway.db import Database
from schemas.ids import UploadId
from schemas.lifecycle import UploadStatus
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)

RENEWALS: Final = 3
"""Times a lease is renewed before it would end: one or two of them may fail."""


@asynccontextmanager
async def renewed(
    database: Database,
    upload_id: UploadId,
    *,
    lease: timedelta,
    longest: timedelta,
    clock: Callable[[], datetime],
) -> AsyncIterator[None]:
    """Keep an upload from expiring within the block.

    Args:
        database: opens transactions.
        upload_id: an upload that expires in `lease`.
        lease: how long it lives from each renewal.
        longest: how long it lives in all, however slow its client.
        clock: tells the time.
    """
    ended = asyncio.Event()
    renewing = asyncio.create_task(
        _renew(database, upload_id, lease=lease, until=clock() + longest, clock=clock, ended=ended)
    )
    try:
        yield
    finally:
        # Not cancelled: a statement cut off costs its connection.
        ended.set()
        await renewing


async def _renew(
    database: Database,
    upload_id: UploadId,
    *,
    lease: timedelta,
    until: datetime,
    clock: Callable[[], datetime],
    ended: asyncio.Event,
) -> None:
    pause = (lease / RENEWALS).total_seconds()
    while not await _is_set_within(pause, event=ended):
        renewal = (
            update(Upload)
            .where(Upload.id == upload_id, Upload.status == UploadStatus.OPEN)
            .values(expires_at=min(clock() + lease, until))
        )
        try:
            async with database.transaction() as session:
                await session.execute(renewal)
        except (SQLAlchemyError, OSError) as error:
            # The next one may come in time.
            log.warning("submission.lease_not_renewed", error=type(error).__name__)


async def _is_set_within(seconds: float, *, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
