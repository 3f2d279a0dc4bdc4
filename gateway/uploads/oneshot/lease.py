"""The lease of a form's upload: short, and renewed while the form is read.

No other process can continue the upload of a form. If the gateway dies, the
lease expires and frees the reserved part of the tenant's quota soon.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from sqlalchemy import func, update
from sqlalchemy.exc import SQLAlchemyError

from gateway.context import Context
from schemas.ids import UploadId
from schemas.lifecycle import UploadStatus
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)

RENEWALS: Final = 3
"""Renewals per lease: one or two of them may fail."""


@asynccontextmanager
async def renewed(context: Context, upload_id: UploadId) -> AsyncIterator[None]:
    """Renew the lease of an upload until the block ends, for `UPLOAD_TTL` at most."""
    ended = asyncio.Event()
    renewing = asyncio.create_task(_renew(context, upload_id, ended=ended))
    try:
        yield
    finally:
        # The statement is not cancelled: a cancellation would close its connection.
        ended.set()
        await renewing


async def _renew(context: Context, upload_id: UploadId, *, ended: asyncio.Event) -> None:
    lease, lifetime = context.settings.form_lease, context.settings.upload_ttl
    while not await _is_set_within((lease / RENEWALS).total_seconds(), event=ended):
        renewal = (
            update(Upload)
            .where(Upload.id == upload_id, Upload.status == UploadStatus.OPEN)
            .values(expires_at=func.least(func.now() + lease, Upload.created_at + lifetime))
        )
        try:
            async with context.database.transaction() as session:
                await session.execute(renewal)
        except (SQLAlchemyError, OSError) as error:
            # The next renewal may still be in time.
            log.warning("submission.lease_not_renewed", error=type(error).__name__)


async def _is_set_within(seconds: float, *, event: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
