"""Staging as this worker reaches it: a mounted directory, or the bucket."""

from pathlib import Path

from pipeline.context import Context
from pipeline.messaging.event_task import RetryLater
from pipeline.transfer.claim import ClaimedTransfer
from pipeline.transfer.sources.staged_file import StagedFile
from pipeline.transfer.sources.staged_objects import StagedObjects
from schemas import staging_layout
from schemas.lifecycle import StagingKind


class StagingNotMounted(RetryLater):
    """The staging directory of this worker is not the directory that the gateways write to."""

    backoff = True


def directory(context: Context) -> Path:
    """Return the staging directory.

    Raises:
        StagingNotMounted: this worker has none.
    """
    if context.settings.staging_dir is None:
        raise StagingNotMounted("this worker has no STAGING_DIR")
    return context.settings.staging_dir


def is_mounted(context: Context) -> bool:
    """Return whether the staging directory has the marker that the gateways write into it."""
    return (directory(context) / staging_layout.MARKER).exists()


def open_staged(context: Context, claimed: ClaimedTransfer) -> StagedFile | StagedObjects:
    """Return the chunks that the client uploaded, as a source.

    Raises:
        StagingNotMounted: the upload is in a directory that this worker does not have.
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
        path=staging_layout.file_of(directory(context), claimed.upload_id),
        size_bytes=claimed.size,
        chunk_size=claimed.chunk_size,
        chunks=claimed.chunks,
        sha256=claimed.declared_sha256,
        content_type=claimed.declared_content_type,
    )
