"""Ends uploads that were not finalized in time.

The status changes before the bytes are deleted. A worker that dies in between leaves
orphans, which the sweep of orphans deletes. In the other order, an upload whose bytes
are gone could still be finalized.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from pipeline.context import Context, database_time
from pipeline.maintenance.exclusive import Budget
from pipeline.transfer import cleanup
from pipeline.transfer.cleanup import Leftovers
from pipeline.transfer.sources.staging import StagingNotMounted
from schemas.errors import ErrorCode, StoreFailed
from schemas.events.uploads import UploadFailed
from schemas.lifecycle import UploadStatus
from schemas.tables.events import emit
from schemas.tables.uploads import Chunk, Upload

log = structlog.stdlib.get_logger(__name__)

SOURCE: Final = "/waybill/pipeline/sweep"

BATCH: Final = 20
"""Uploads per transaction: each may have `CHUNK_COUNT_MAX` rows to delete."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    expired: int
    bytes_left: int
    """Uploads whose bytes could not be deleted now; they are orphans."""
    complete: bool


def sweep(context: Context, budget: Budget) -> Summary:
    expired = bytes_left = 0
    is_last = False
    while not is_last and not budget.is_spent:
        with context.transaction() as session:
            batch = expire(session, limit=BATCH)
        expired += len(batch)
        is_last = len(batch) < BATCH
        for upload in batch:
            log.info("sweep.upload_expired", upload_id=str(upload.upload_id))
            bytes_left += not _delete_bytes(context, upload, budget)
    return Summary(expired=expired, bytes_left=bytes_left, complete=is_last)


def expire(session: Session, *, limit: int) -> Sequence[Leftovers]:
    """Mark overdue uploads as expired and emit an event for each, longest overdue first.

    Uploads that are being finalized or written to at this moment are left for the next sweep.
    """
    overdue = session.execute(
        select(Upload.id, Upload.tenant_id, Upload.filename, Upload.staging, Upload.expires_at)
        .where(Upload.status == UploadStatus.OPEN, Upload.expires_at < func.now())
        .order_by(Upload.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    ids = [upload.id for upload in overdue]
    # Before the status: the change of status locks the usage of the tenants, and the
    # deletion of many rows would hold that lock.
    session.execute(delete(Chunk).where(Chunk.upload_id.in_(ids)))
    session.execute(update(Upload).where(Upload.id.in_(ids)).values(status=UploadStatus.EXPIRED))
    now = database_time(session)
    for upload in overdue:
        emit(
            session,
            UploadFailed(
                upload_id=upload.id,
                filename=upload.filename,
                code=ErrorCode.UPLOAD_EXPIRED,
                detail=f"the upload was not finalized before {upload.expires_at.isoformat()}",
            ),
            tenant_id=upload.tenant_id,
            source=SOURCE,
            now=now,
        )
    return [
        Leftovers(tenant_id=upload.tenant_id, upload_id=upload.id, staging=upload.staging)
        for upload in overdue
    ]


def _delete_bytes(context: Context, upload: Leftovers, budget: Budget) -> bool:
    """Return whether every staged byte of the upload was deleted."""
    try:
        return cleanup.delete_staged(context, upload, is_time_over=lambda: budget.is_spent)
    except (OSError, StoreFailed, StagingNotMounted) as error:
        log.warning("sweep.bytes_left", upload_id=str(upload.upload_id), reason=str(error))
        return False
