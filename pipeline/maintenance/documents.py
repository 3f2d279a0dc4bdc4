"""Deletes documents that are older than their tenant keeps documents (`waybill tenants retention`).

One transaction deletes a document with its text, cancels its upload and emits the event; from then
on no client sees the document. The objects are deleted afterwards: `uploads.removed_at` makes the next
sweep delete them if this one dies before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import Row, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from pipeline.context import Context, database_time
from pipeline.maintenance import removal
from pipeline.maintenance.exclusive import Budget
from schemas.errors import StoreRejected
from schemas.events.uploads import UploadCancelled
from schemas.ids import DocumentId, TenantId, UploadId
from schemas.lifecycle import UploadStatus
from schemas.tables import retention
from schemas.tables.documents import Document
from schemas.tables.events import emit
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Chunk, Upload

log = structlog.stdlib.get_logger(__name__)

SOURCE: Final = "/waybill/pipeline/sweep"

BATCH: Final = 100
"""Documents of one query; each is deleted in transactions of its own."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a sweep did.

    Attributes:
        documents: documents that were deleted.
        left: documents whose objects the store refuses to delete; the next sweep tries again.
    """

    documents: int
    left: int


def sweep(context: Context, budget: Budget) -> Summary:
    """Delete the documents that are due, tenant by tenant.

    Raises:
        StoreFailed: the store does not work; the next sweep deletes the objects.
    """
    left = _delete_objects(context, budget)  # of an earlier sweep
    documents = 0
    with context.transaction() as session:
        tenants = session.execute(
            select(Tenant.id, Tenant.document_retention)
            .where(Tenant.document_retention.is_not(None))
            .order_by(Tenant.id)
        ).all()
    for tenant in tenants:
        after: tuple[datetime, DocumentId] | None = None
        while not budget.is_spent:
            batch = _due(context, tenant.id, kept_for=tenant.document_retention, after=after)
            if not batch:
                break
            after = (batch[-1].at, batch[-1].id)
            documents += _delete(context, batch, budget)
            left = _delete_objects(context, budget)
    return Summary(documents=documents, left=left)


def _due(
    context: Context,
    tenant_id: TenantId,
    *,
    kept_for: timedelta,
    after: tuple[datetime, DocumentId] | None,
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the next documents of a tenant that are due, the oldest first."""
    query = retention.documents().where(
        Document.tenant_id == tenant_id,
        # With the column of the tenant alone, the planner reads every document of the tenant.
        Document.created_at < func.now() - kept_for,
    )
    if after is not None:
        query = query.where(tuple_(Document.created_at, Document.id) > after)
    with context.transaction() as session:
        return session.execute(query.order_by(Document.created_at, Document.id).limit(BATCH)).all()


def _delete(context: Context, batch: Sequence[Row[*tuple[Any, ...]]], budget: Budget) -> int:
    deleted = 0
    for document in batch:
        if budget.is_spent:
            break
        with context.transaction() as session:
            is_deleted = _delete_one(session, document)
        if is_deleted:
            deleted += 1
            log.info("sweep.document_deleted", document_id=str(document.id))
    return deleted


def _delete_one(session: Session, due: Row[*tuple[Any, ...]]) -> bool:
    """Delete a document and cancel its upload; False if a request or a worker has either."""
    upload = session.scalar(
        select(Upload)
        .where(Upload.id == due.upload_id, Upload.status == UploadStatus.STORED)
        .with_for_update(skip_locked=True)
    )
    is_free = session.scalar(
        select(Document.id).where(Document.id == due.id).with_for_update(skip_locked=True)
    )
    if upload is None or is_free is None:
        return False
    # A request may have added a job that reads the document before this transaction had the lock.
    document = session.execute(
        retention.documents().add_columns(Document.job_id).where(Document.id == due.id)
    ).one_or_none()
    if document is None:
        return False
    # Revisions, pages and entities are deleted with the document. Before the status, whose change
    # locks the usage of the tenant.
    session.execute(delete(Document).where(Document.id == document.id))
    session.execute(delete(Chunk).where(Chunk.upload_id == upload.id))
    session.execute(
        update(Upload)
        .where(Upload.id == upload.id)
        .values(status=UploadStatus.CANCELLED, removed_at=func.now())
    )
    emit(
        session,
        UploadCancelled(upload_id=upload.id, job_id=document.job_id, filename=upload.filename),
        tenant_id=upload.tenant_id,
        source=SOURCE,
        now=database_time(session),
    )
    return True


def _delete_objects(context: Context, budget: Budget) -> int:
    """Delete the objects of deleted documents; return of how many the store refuses to delete them.

    Raises:
        StoreFailed: the store does not work.
    """
    left = 0
    after: tuple[datetime, UploadId] | None = None
    while not budget.is_spent:
        query = select(Upload.id, Upload.tenant_id, Upload.removed_at).where(
            Upload.removed_at.is_not(None)
        )
        if after is not None:
            query = query.where(tuple_(Upload.removed_at, Upload.id) > after)
        with context.transaction() as session:
            batch = session.execute(query.order_by(Upload.removed_at, Upload.id).limit(BATCH)).all()
        if not batch:
            break
        after = (batch[-1].removed_at, batch[-1].id)
        left += _delete_objects_of(context, batch, budget)
    return left


def _delete_objects_of(
    context: Context, uploads: Sequence[Row[*tuple[Any, ...]]], budget: Budget
) -> int:
    left = 0
    for upload in uploads:
        if budget.is_spent:
            break
        try:
            removal.delete_objects(context.storage, tenant_id=upload.tenant_id, upload_id=upload.id)
        except StoreRejected as error:
            log.warning("sweep.objects_left", upload_id=str(upload.id), reason=str(error))
            left += 1
        else:
            with context.transaction() as session:
                _forget(session, upload.id)
    return left


def _forget(session: Session, upload_id: UploadId) -> None:
    """Record that an upload has no objects any more; it is then as one that was never finalized.

    Its row is kept for `JOB_RETENTION` from now: endpoints that choose events by metadata get
    `upload.cancelled` only while the row is there.
    """
    session.execute(
        update(Upload)
        .where(Upload.id == upload_id)
        .values(removed_at=None, finalized_at=None, expires_at=func.now())
    )
