"""Which kind of staging an upload has: opened to be sent, removed when it ended."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from pipeline.context import Context
from pipeline.messaging.event_task import RetryLater
from pipeline.transfer import plan
from pipeline.transfer.lease import ClaimedTransfer
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.sources.staged_file import StagedFile
from pipeline.transfer.sources.staged_objects import StagedObjects
from schemas import object_keys
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.object_keys import ObjectKey
from schemas.settings import STAGING_MARKER, ObjectStoreSettings

log = structlog.stdlib.get_logger(__name__)

REMOVED_AT_ONCE: Final = 1_000
"""Keys held in memory while a prefix is emptied; one request deletes as many."""


class StagingNotMounted(RetryLater):
    """The staging directory here is not the one the gateways write to."""

    backoff = True


def staged(context: Context, claimed: ClaimedTransfer) -> StagedFile | StagedObjects:
    """Return what a client sent in chunks.

    Raises:
        StagingNotMounted: it lies in a directory this worker does not have.
    """
    if claimed.staging is StagingKind.OBJECTS:
        return StagedObjects(
            storage=context.storage,
            tenant_id=claimed.tenant_id,
            upload_id=claimed.upload_id,
            size_bytes=claimed.size,
            chunk_size=claimed.chunk_size,
            chunks=claimed.chunks,
            sha256=claimed.declared_sha256,
            content_type=claimed.declared_content_type,
        )
    return StagedFile(
        path=_directory(context) / str(claimed.upload_id),
        size_bytes=claimed.size,
        chunk_size=claimed.chunk_size,
        chunks=claimed.chunks,
        sha256=claimed.declared_sha256,
        content_type=claimed.declared_content_type,
    )


def part_plan(claimed: ClaimedTransfer, *, settings: ObjectStoreSettings) -> PartPlan:
    """Cut along the chunks where the store can make parts of them, else as the settings prefer."""
    along = (
        plan.along_chunks(
            claimed.size, chunk_size=claimed.chunk_size, max_parts=settings.s3_max_parts
        )
        if claimed.staging is StagingKind.OBJECTS
        else None
    )
    return along or plan.split(
        claimed.size, part_size=settings.s3_part_size, max_parts=settings.s3_max_parts
    )


def is_lost(context: Context) -> bool:
    """Whether the volume with the staged files is not mounted here, marker and all."""
    return not (_directory(context) / STAGING_MARKER).exists()


def remove(
    context: Context,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    staging: StagingKind,
    known: Sequence[ObjectKey] = (),
) -> None:
    """Remove what is staged of an upload; again is no error. An object named by reference stays.

    `known` chunks are deleted without asking what there is: a listing may lag behind.

    Raises:
        StagingNotMounted: it lies in a directory this worker does not have.
        StoreFailed: it lies in the bucket, which does not answer.
    """
    match staging:
        case StagingKind.DIRECTORY:
            (_directory(context) / str(upload_id)).unlink(missing_ok=True)
        case StagingKind.OBJECTS:
            if known:
                context.storage.delete_all(known)
            # Also what was stored of chunks that were never acked.
            left = context.storage.objects_under(object_keys.staged(tenant_id, upload_id))
            while keys := [found.key for found in islice(left, REMOVED_AT_ONCE)]:
                context.storage.delete_all(keys)
        case StagingKind.REFERENCE:
            log.debug("transfer.reference_kept")


def _directory(context: Context) -> Path:
    directory = context.settings.staging_dir
    if directory is None:
        raise StagingNotMounted("this worker has no STAGING_DIR")
    return directory
