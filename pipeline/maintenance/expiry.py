"""Ends uploads that nobody finalized in time.

State first, bytes after: a worker that dies between the two leaves orphans,
which the next sweep of orphans finds. The other way round an upload could
still be finalized whose bytes are gone.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from pipeline.context import Context
from pipeline.maintenance import objects, operations
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.operations import Expired
from schemas import staging_layout
from schemas.errors import StoreFailed
from schemas.lifecycle import StagingKind

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 20
"""Uploads per transaction: each may have `CHUNK_COUNT_MAX` rows to delete."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    expired: int
    bytes_left: int
    """Uploads whose bytes could not be removed now; they are orphans."""
    complete: bool


def sweep(context: Context, budget: Budget) -> Summary:
    expired = bytes_left = 0
    is_last = False
    while not is_last and not budget.is_spent:
        with context.transaction() as session:
            batch = operations.expire(session, at_most=BATCH, now=datetime.now(UTC))
        expired += len(batch)
        is_last = len(batch) < BATCH
        for upload in batch:
            log.info("sweep.upload_expired", upload_id=str(upload.upload_id))
            bytes_left += not _remove_bytes(context, upload, budget)
    return Summary(expired=expired, bytes_left=bytes_left, complete=is_last)


def _remove_bytes(context: Context, upload: Expired, budget: Budget) -> bool:
    """Remove what is staged of an upload; say whether nothing is left of it."""
    try:
        match upload.staging:
            case StagingKind.DIRECTORY:
                directory = context.settings.staging_dir
                if directory is None:
                    return False
                staging_layout.file_of(directory, upload.upload_id).unlink(missing_ok=True)
            case StagingKind.OBJECTS:
                objects.remove_staged(
                    upload.tenant_id, upload.upload_id, storage=context.storage, budget=budget
                )
                return not budget.is_spent
            case StagingKind.REFERENCE:
                pass  # the object is not ours
    except (OSError, StoreFailed) as error:
        log.warning("sweep.bytes_left", upload_id=str(upload.upload_id), reason=str(error))
        return False
    return True
