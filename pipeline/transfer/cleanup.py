"""Deletes what is left of an upload: staged bytes, multipart uploads and the object.

Used by the transfer, by the task for cancelled uploads and by the sweeps. Every function
may be repeated.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Final

import structlog
from sqlalchemy import RowMapping, delete, select
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.messaging.event_task import RetryLater
from pipeline.steps import lease
from pipeline.steps.call_pool import CallPool
from pipeline.steps.errors import LeaseHeld
from pipeline.storage.port import Multipart, ObjectStorage
from pipeline.transfer.claim import UnknownUpload
from pipeline.transfer.sources import staging
from schemas import object_keys, staging_layout
from schemas.errors import StoreFailed
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables.documents import Document
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)

DELETE_BATCH: Final = 1_000
"""Keys held in memory at once; S3 deletes as many in one request."""


class CleanupIncomplete(RetryLater):
    """The store failed to delete something; the event is delivered again for the rest."""

    backoff = True


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """An upload that ended, and the places where its bytes may still be."""

    tenant_id: TenantId
    upload_id: UploadId
    staging: StagingKind
    multipart_id: str | None = None


_LEFTOVERS: Final = (
    select(
        Upload.tenant_id,
        Upload.id,
        Upload.staging,
        Step.checkpoint["multipart_id"].astext.label("multipart_id"),
    )
    .select_from(Upload)
    .outerjoin(Job, Job.upload_id == Upload.id)
    .outerjoin(Step, (Step.job_id == Job.id) & (Step.name == StepName.TRANSFER))
)


def leftovers(session: Session, upload_id: UploadId, *, job_id: JobId) -> Leftovers:
    """Return the leftovers of the upload of a job.

    Raises:
        UnknownUpload: the job has no such upload. A forged event must not delete the upload of
            another job.
    """
    found = session.execute(_LEFTOVERS.where(Upload.id == upload_id, Job.id == job_id)).mappings()
    row = found.one_or_none()
    if row is None:
        raise UnknownUpload(upload_id)
    return _from_row(row)


def leftovers_of_cancelled(session: Session, upload_id: UploadId) -> Leftovers | None:
    """Return the leftovers of a cancelled upload; None if the upload is not cancelled.

    Raises:
        LeaseHeld: a worker holds the lease; that worker cleans up.
    """
    found = (
        session.execute(
            _LEFTOVERS.add_columns(Step.lease_owner, (~lease.is_free()).label("is_held")).where(
                Upload.id == upload_id, Upload.status == UploadStatus.CANCELLED
            )
        )
        .mappings()
        .one_or_none()
    )
    if found is None:
        return None
    if found["is_held"]:
        raise LeaseHeld(f"held by {found['lease_owner']}")
    return _from_row(found)


def delete_document(session: Session, upload_id: UploadId) -> None:
    """Delete the document of a cancelled upload, with its text.

    The purge deletes the document itself, unless a worker reads it at that moment. The message of
    that worker may be lost.

    Raises:
        LeaseHeld: a worker still reads the document.
    """
    document = select(Document.id).where(Document.upload_id == upload_id)
    if session.scalar(document) is None:
        return
    # Never waits for the worker: the lease of the cleanup would expire.
    if session.scalar(document.with_for_update(skip_locked=True)) is None:
        raise LeaseHeld("a worker reads the document")
    session.execute(delete(Document).where(Document.upload_id == upload_id))


def clean_up(context: Context, upload: Leftovers) -> None:
    """Delete everything of an upload; if one deletion fails, the others are still tried.

    Raises:
        CleanupIncomplete, StagingNotMounted: as `clean_up_staged`.
    """
    try:
        clean_up_staged(context, upload)
    finally:
        try:
            with _failures_retried(of="object"):
                delete_object(
                    object_keys.original(upload.tenant_id, upload.upload_id),
                    storage=context.storage,
                    multipart_id=upload.multipart_id,
                )
        finally:
            with _failures_retried(of="derived objects"):
                derived = context.storage.objects_under(object_keys.derived(upload.upload_id))
                while keys := [found.key for found in islice(derived, DELETE_BATCH)]:
                    context.storage.delete_all(keys)


def clean_up_staged(
    context: Context, upload: Leftovers, *, known: Sequence[ObjectKey] = ()
) -> None:
    """Delete the staged bytes of an upload.

    Raises:
        CleanupIncomplete: the store fails; deliver the event again.
        StagingNotMounted: the bytes are in a directory that this worker does not have.
    """
    with _failures_retried(of="staging"):
        delete_staged(context, upload, known=known)


def delete_staged(
    context: Context,
    upload: Leftovers,
    *,
    known: Sequence[ObjectKey] = (),
    is_time_over: Callable[[], bool] = lambda: False,
) -> bool:
    """Delete the staged bytes of an upload; an object named by reference is kept.

    Args:
        context: the staging directory and the bucket.
        upload: the upload.
        known: keys that are deleted even if the listing, which may be out of date, lacks them.
        is_time_over: called before each batch; if true, the rest is kept.

    Returns:
        Whether everything was deleted.

    Raises:
        StagingNotMounted: the bytes are in a directory that this worker does not have.
        StoreFailed: the bytes are in the bucket, and the store fails.
    """
    match upload.staging:
        case StagingKind.DIRECTORY:
            staging_layout.file_of(staging.directory(context), upload.upload_id).unlink(
                missing_ok=True
            )
        case StagingKind.OBJECTS:
            if known:
                context.storage.delete_all(known)
            # The listing also has chunks that were stored and never acknowledged.
            left = context.storage.objects_under(
                staging_layout.prefix_of(upload.tenant_id, upload.upload_id)
            )
            while not is_time_over():
                keys = [found.key for found in islice(left, DELETE_BATCH)]
                if not keys:
                    return True
                context.storage.delete_all(keys)
            return False
        case StagingKind.REFERENCE:
            log.debug("transfer.reference_kept")
    return True


def delete_object(
    key: ObjectKey, *, storage: ObjectStorage, multipart_id: str | None = None
) -> None:
    """Abort the multipart uploads of a key and delete its object.

    A known `multipart_id` is aborted even if the store refuses to list multipart uploads.
    """
    try:
        _abort_multiparts(key, storage=storage, multipart_id=multipart_id)
    finally:
        # Deleted even if the listing fails, because the listing may fail for ever.
        storage.delete(key)


def delete_object_while_leased(
    heartbeat: Callable[[], None],
    *,
    heartbeat_interval: timedelta,
    key: ObjectKey,
    storage: ObjectStorage,
    multipart_id: str | None,
    keep_object: bool,
) -> None:
    """Do the same as `delete_object`, but stop when `heartbeat` raises; log store failures.

    A worker that was suspended must not delete what its successor stored.
    """
    with CallPool[None](heartbeat=heartbeat, heartbeat_interval=heartbeat_interval) as pool:
        steps = [partial(_abort_multiparts, key, storage=storage, multipart_id=multipart_id)]
        if not keep_object:
            steps.append(partial(storage.delete, key, abandoned=pool.abandoned))
        try:
            for step in steps:
                heartbeat()
                pool.run(step)
        except StoreFailed as error:
            log.warning("transfer.cleanup_failed", key=key, reason=str(error))


def _abort_multiparts(key: ObjectKey, *, storage: ObjectStorage, multipart_id: str | None) -> None:
    if multipart_id is not None:
        storage.abort(Multipart(key, id=multipart_id))
    for multipart in storage.open_multiparts(key):
        storage.abort(multipart)


def _from_row(row: RowMapping) -> Leftovers:
    return Leftovers(
        tenant_id=row["tenant_id"],
        upload_id=row["id"],
        staging=row["staging"],
        multipart_id=row["multipart_id"],
    )


@contextmanager
def _failures_retried(*, of: str) -> Iterator[None]:
    try:
        yield
    except StoreFailed as error:
        log.warning("transfer.cleanup_incomplete", of=of, reason=str(error))
        raise CleanupIncomplete(str(error)) from error
