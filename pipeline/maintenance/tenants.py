"""Deletes tenants: their work is stopped, then their rows, staged bytes and objects are deleted.

An operator's command orders the deletion. Every part may be killed and repeated: the rows say what is
left, and an object is deleted before the row that leads to it. See `docs/adr/0051-deleting-a-tenant.md`.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, Final
from uuid import UUID

import structlog
from psycopg.errors import ForeignKeyViolation
from sqlalchemy import Row, Select, Table, case, delete, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.tenant_rows import Before, BudgetSpent, RowDeletion, count
from pipeline.transfer import cleanup
from pipeline.transfer.cleanup import Leftovers
from pipeline.transfer.sources import staging
from pipeline.transfer.sources.staging import StagingNotMounted
from schemas import object_keys, staging_layout
from schemas.errors import StoreFailed, StoreRejected
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import ACTIVE_STEPS, JobStatus, StagingKind, StepStatus, UploadStatus
from schemas.steps import StepName
from schemas.tables import tenant_rows
from schemas.tables.audit import AuditEntry
from schemas.tables.base import table_of
from schemas.tables.documents import Document, Revision
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.tables.tenant_deletions import TenantDeletion
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook, WebhookSecret

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 100
"""Rows that one transaction changes."""

OBJECTS: Final = 1_000
"""Keys of one request; S3 deletes as many."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a sweep did.

    Attributes:
        finished: tenants of which nothing is left.
        left: tenants whose deletion goes on in the next sweep.
    """

    finished: int = 0
    left: int = 0


@dataclass(frozen=True, kw_only=True)
class _Deletion:
    """A deletion that is not finished, or whose last look is due."""

    tenant_id: TenantId
    is_finished: bool


def sweep(context: Context, *, max_time: timedelta) -> Summary:
    """Go on with every deletion, each for an equal share of the time."""
    deletions = _due(context)
    finished = left = 0
    for deletion in deletions:
        with structlog.contextvars.bound_contextvars(tenant_id=str(deletion.tenant_id)):
            if _advance(context, deletion, Budget.of(max_time / len(deletions))):
                finished += 1
            else:
                left += 1
    return Summary(finished=finished, left=left)


def _due(context: Context) -> Sequence[_Deletion]:
    with context.transaction() as session:
        found = session.execute(
            select(TenantDeletion.tenant_id, TenantDeletion.finished_at)
            .where(
                TenantDeletion.checked_at.is_(None),
                TenantDeletion.finished_at.is_(None)
                | (TenantDeletion.finished_at < func.now() - context.settings.sweep_grace),
            )
            .order_by(TenantDeletion.requested_at)
        ).all()
    return [
        _Deletion(tenant_id=row.tenant_id, is_finished=row.finished_at is not None) for row in found
    ]


def _advance(context: Context, deletion: _Deletion, budget: Budget) -> bool:
    """Return whether nothing of the tenant is left."""
    try:
        if deletion.is_finished or _stop(context, deletion.tenant_id, budget):
            return _delete_everything(context, deletion.tenant_id, budget)
        log.info("tenant_deletion.waits_for_workers")
    except BudgetSpent:
        log.info("tenant_deletion.goes_on")
    except (OSError, StoreFailed, StagingNotMounted) as error:
        log.warning("tenant_deletion.bytes_left", reason=str(error))
    except IntegrityError as error:
        if not isinstance(error.orig, ForeignKeyViolation):
            raise
        # A request that began before the order has added a row meanwhile.
        log.info("tenant_deletion.rows_arrived", table=error.orig.diag.table_name)
    return False


def _delete_everything(context: Context, tenant_id: TenantId, budget: Budget) -> bool:
    """Return whether nothing is left."""
    rows = RowDeletion(
        context=context,
        tenant_id=tenant_id,
        budget=budget,
        before=_before(context, tenant_id, budget),
    )
    rows.delete_all()
    for prefix in _prefixes(tenant_id):
        for number in chain(
            _delete_objects(context, prefix, budget), _abort_multiparts(context, prefix, budget)
        ):
            _count_objects(context, tenant_id, number)
    left = _finish(context, tenant_id)
    if left:
        # Their endpoint is no longer stored, or a request that began before the order has added them.
        rows.delete_rest(list(left))
        left = _finish(context, tenant_id)
    return not left


def _stop(context: Context, tenant_id: TenantId, budget: Budget) -> bool:
    """End the work of a tenant; return whether no worker can have a lease any more.

    A worker notices at its next heartbeat. It keeps its lease while it cleans up, and renews it no more.
    """
    with context.transaction() as session:
        # A step that a client cancelled before the order may still have a lease.
        session.execute(
            update(TenantDeletion)
            .where(TenantDeletion.tenant_id == tenant_id, TenantDeletion.quiet_at.is_(None))
            .values(quiet_at=TenantDeletion.requested_at + context.settings.step_lease)
        )
    _delete_endpoints(context, tenant_id, budget)
    _cancel_uploads(context, tenant_id, budget)
    _cancel_jobs(context, tenant_id, budget)
    with context.transaction() as session:
        is_quiet = session.scalar(
            select(TenantDeletion.quiet_at < func.now()).where(
                TenantDeletion.tenant_id == tenant_id
            )
        )
    return bool(is_quiet)


def _delete_endpoints(context: Context, tenant_id: TenantId, budget: Budget) -> None:
    """Mark the endpoints as deleted, without secrets; the process that delivers discards their deliveries."""
    some = (
        select(Webhook.id)
        .where(Webhook.tenant_id == tenant_id, Webhook.deleted_at.is_(None))
        .limit(BATCH)
    )
    secrets = table_of(WebhookSecret)
    found = BATCH
    while found == BATCH:
        if budget.is_spent:
            raise BudgetSpent
        with context.transaction() as session:
            marked = session.scalars(
                update(Webhook)
                .where(Webhook.id.in_(some))
                .values(deleted_at=func.now(), headers=None)
                .returning(Webhook.id)
            ).all()
            deleted = session.execute(
                delete(secrets).where(secrets.c.webhook_id.in_(marked)).returning(secrets.c.id)
            ).all()
            count(session, tenant_id, secrets, number=len(deleted))
        found = len(marked)


def _cancel_uploads(context: Context, tenant_id: TenantId, budget: Budget) -> None:
    """Cancel the open uploads, so that no more chunks are accepted."""
    has_open = select(TenantUsage.tenant_id).where(
        TenantUsage.tenant_id == tenant_id, TenantUsage.open_uploads > 0
    )
    with context.transaction() as session:
        # No index has the open uploads of a tenant.
        if session.scalar(has_open) is None:
            return
    some = (
        select(Upload.id)
        .where(Upload.tenant_id == tenant_id, Upload.status == UploadStatus.OPEN)
        .limit(BATCH)
    )
    found = BATCH
    while found == BATCH:
        if budget.is_spent:
            raise BudgetSpent
        with context.transaction() as session:
            cancelled = session.scalars(
                update(Upload)
                .where(Upload.id.in_(some), Upload.status == UploadStatus.OPEN)
                .values(status=UploadStatus.CANCELLED)
                .returning(Upload.id)
            ).all()
        found = len(cancelled)


def _cancel_jobs(context: Context, tenant_id: TenantId, budget: Budget) -> None:
    """Cancel every step that has not ended, without the events of a cancel, which nobody may receive."""
    last: tuple[datetime, JobId] | None = None
    while True:
        if budget.is_spent:
            raise BudgetSpent
        query = (
            select(Job.created_at, Job.id)
            .where(
                Job.tenant_id == tenant_id,
                Job.status.in_((JobStatus.QUEUED, JobStatus.PROCESSING)),
            )
            .order_by(Job.created_at, Job.id)
            .limit(BATCH)
        )
        if last is not None:
            query = query.where(tuple_(Job.created_at, Job.id) > tuple_(*last))
        with context.transaction() as session:
            jobs = session.execute(query).all()
        # One name per statement, because a statement locks the counters of all its steps; see
        # `schemas.tables.steps.cancel`.
        for name in StepName:
            if jobs and name is not StepName.CLEANUP:
                with context.transaction() as session:
                    _cancel_steps(session, name, tenant_id, job_ids=[job.id for job in jobs])
        if len(jobs) < BATCH:
            return
        last = (jobs[-1].created_at, jobs[-1].id)


def _cancel_steps(
    session: Session, name: StepName, tenant_id: TenantId, *, job_ids: Sequence[JobId]
) -> None:
    leases = session.scalars(
        update(Step)
        .where(Step.job_id.in_(job_ids), Step.name == name, Step.status.in_(ACTIVE_STEPS))
        .values(status=StepStatus.CANCELLED, finished_at=func.now())
        .returning(Step.lease_until)
    ).all()
    if held := [each for each in leases if each is not None]:
        session.execute(
            update(TenantDeletion)
            .where(TenantDeletion.tenant_id == tenant_id)
            .values(quiet_at=func.greatest(TenantDeletion.quiet_at, max(held)))
        )


def _before(context: Context, tenant_id: TenantId, budget: Budget) -> Mapping[Table, Before]:
    documents, jobs, uploads = table_of(Document), table_of(Job), table_of(Upload)
    before = _BeforeRows(context=context, tenant_id=tenant_id, budget=budget)
    return {
        documents: Before(columns=[documents.c.upload_id], prepare=before.documents),
        jobs: Before(columns=[jobs.c.upload_id], prepare=before.jobs),
        uploads: Before(columns=[uploads.c.staging, uploads.c.removed_at], prepare=before.uploads),
    }


@dataclass(frozen=True, kw_only=True)
class _BeforeRows:
    """Deletes what only some rows lead to: images of pages, whose keys have the ids of uploads, and staged files."""

    context: Context
    tenant_id: TenantId
    budget: Budget

    def documents(self, rows: Sequence[Row[Any]]) -> None:
        """Delete the images of documents that have a revision; others have none."""
        read = select(Revision.document_id).where(
            Revision.document_id.in_([row.id for row in rows])
        )
        self._delete_images(rows, have_images=read)

    def jobs(self, rows: Sequence[Row[Any]]) -> None:
        """Delete the images of documents that a client has deleted, and whose cleanup has not ended."""
        purged = select(Step.job_id).where(
            Step.job_id.in_([row.id for row in rows]),
            Step.name == StepName.CLEANUP,
            Step.status.in_(ACTIVE_STEPS),
        )
        self._delete_images(rows, have_images=purged)

    def uploads(self, rows: Sequence[Row[Any]]) -> None:
        """Delete the staged files of uploads, and the images of documents that the retention has deleted.

        Raises:
            StagingNotMounted: the staging directory of this worker is not that of the gateways.
        """
        self._delete_under([row.id for row in rows if row.removed_at is not None])
        _delete_staged(self.context, self.tenant_id, rows)

    def _delete_images(self, rows: Sequence[Row[Any]], *, have_images: Select[UUID]) -> None:
        with self.context.transaction() as session:
            found = set(session.scalars(have_images))
        self._delete_under([row.upload_id for row in rows if row.id in found])

    def _delete_under(self, upload_ids: Sequence[UploadId]) -> None:
        if not upload_ids:
            return
        prefixes = map(object_keys.derived, upload_ids)
        # The client of the store keeps so many connections.
        with ThreadPoolExecutor(max_workers=self.context.settings.s3_parallel_parts) as pool:
            numbers = pool.map(
                lambda prefix: sum(_delete_objects(self.context, prefix, self.budget)), prefixes
            )
            _count_objects(self.context, self.tenant_id, sum(numbers))


def _delete_staged(context: Context, tenant_id: TenantId, uploads: Sequence[Row[Any]]) -> None:
    """Delete the staged files of uploads; staged objects have a prefix of the tenant."""
    staged = [row.id for row in uploads if row.staging == StagingKind.DIRECTORY]
    # The staging directory of an earlier configuration is gone.
    if not staged or context.settings.staging_dir is None:
        return
    if not staging.is_mounted(context):
        raise StagingNotMounted("the staging directory is not mounted")
    for upload_id in staged:
        cleanup.delete_staged(
            context,
            Leftovers(
                tenant_id=tenant_id,
                upload_id=UploadId(upload_id),
                staging=StagingKind.DIRECTORY,
            ),
        )


def _prefixes(tenant_id: TenantId) -> Sequence[str]:
    return (*object_keys.of_tenant(tenant_id), staging_layout.of_tenant(tenant_id))


def _delete_objects(context: Context, prefix: str, budget: Budget) -> Iterator[int]:
    """Delete the objects under a prefix; yield how many, in parts."""
    found = context.storage.objects_under(prefix)
    while True:
        # Also before a listing that finds nothing: a slow store must not outlast the budget.
        if budget.is_spent:
            raise BudgetSpent
        keys = [each.key for each in islice(found, OBJECTS)]
        if not keys:
            return
        context.storage.delete_all(keys)
        yield len(keys)


def _abort_multiparts(context: Context, prefix: str, budget: Budget) -> Iterator[int]:
    """Abort the unfinished multipart uploads under a prefix; yield how many, one by one."""
    try:
        unfinished = list(context.storage.multiparts_under(prefix))
    except StoreRejected as error:
        # Some stores do not list them. They delete what is left unfinished by rules of their own.
        log.warning("tenant_deletion.multiparts_not_listed", reason=str(error))
        return
    for each in unfinished:
        if budget.is_spent:
            raise BudgetSpent
        context.storage.abort(each.multipart)
        yield 1


def _count_objects(context: Context, tenant_id: TenantId, number: int) -> None:
    if number:
        with context.transaction() as session:
            session.execute(
                update(TenantDeletion)
                .where(TenantDeletion.tenant_id == tenant_id)
                .values(objects=TenantDeletion.objects + number)
            )


def _finish(context: Context, tenant_id: TenantId) -> Mapping[str, int]:
    """Delete the row of the tenant if nothing else of it is left.

    Returns:
        What is left: the tables with rows of the tenant and how many, or the objects.
    """
    objects = [
        listed
        for prefix in _prefixes(tenant_id)
        for listed in islice(context.storage.objects_under(prefix), 1)
    ]
    if objects:
        return {"objects": len(objects)}
    with context.transaction() as session:
        # Locked first: no row that refers to it can be added after the count.
        session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update())
        left = {
            table.name: rows
            for table in tenant_rows.tables()[:-1]
            if (rows := session.execute(tenant_rows.count(table, tenant_id)).scalar_one())
        }
        if left:
            log.info("tenant_deletion.rows_left", **left)
            return left
        deleted = session.execute(
            delete(Tenant).where(Tenant.id == tenant_id).returning(Tenant.id)
        ).all()
        count(session, tenant_id, table_of(Tenant), number=len(deleted))
        _record_end(session, tenant_id)
    return {}


def _record_end(session: Session, tenant_id: TenantId) -> None:
    """Record that the deletion is finished, and the second time that its last look is over."""
    ended = session.execute(
        update(TenantDeletion)
        .where(TenantDeletion.tenant_id == tenant_id)
        .values(
            finished_at=func.coalesce(TenantDeletion.finished_at, func.now()),
            # The columns of an UPDATE have their old values.
            checked_at=case((TenantDeletion.finished_at.is_not(None), func.now())),
        )
        .returning(TenantDeletion)
    ).scalar_one()
    detail = {"name": ended.name, "rows": ended.rows, "objects": ended.objects}
    if ended.checked_at is None:
        session.add(
            AuditEntry(
                actor=ended.requested_by,
                action="tenant.deleted",
                target=f"tenant/{tenant_id}",
                detail=detail,
            )
        )
    log.info("tenant_deletion.finished", **detail)
