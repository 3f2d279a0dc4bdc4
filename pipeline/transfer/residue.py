"""Removing what an upload that ended has left behind, for as long as it takes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from pipeline.context import Context
from pipeline.messaging.event_task import RetryLater
from pipeline.storage.errors import StoreFailed
from pipeline.transfer import removal
from pipeline.transfer.sources import mount
from schemas import object_keys
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)


class ResidueLeft(RetryLater):
    """Something of an upload that ended could not be removed yet."""

    backoff = True


def remove_staged(
    context: Context,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    staging: StagingKind,
    known: Sequence[ObjectKey] = (),
) -> None:
    """Remove what is staged of an upload; again is no error.

    Raises:
        ResidueLeft: the store does not answer; the event comes back for it.
        StagingNotMounted: it lies in a directory this worker does not have.
    """
    with _told(of="staging"):
        mount.remove(
            context, tenant_id=tenant_id, upload_id=upload_id, staging=staging, known=known
        )


def remove_all(
    context: Context,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    staging: StagingKind,
    multipart_id: str | None,
) -> None:
    """Remove whatever there is of an upload; a failure with the one does not spare the other.

    Raises:
        ResidueLeft, StagingNotMounted: as for what is staged.
    """
    try:
        remove_staged(context, tenant_id=tenant_id, upload_id=upload_id, staging=staging)
    finally:
        with _told(of="object"):
            removal.discard(
                object_keys.original(tenant_id, upload_id),
                storage=context.storage,
                multipart_id=multipart_id,
            )


@contextmanager
def _told(*, of: str) -> Iterator[None]:
    try:
        yield
    except StoreFailed as error:
        log.warning("transfer.residue_left", of=of, reason=str(error))
        raise ResidueLeft(str(error)) from error
