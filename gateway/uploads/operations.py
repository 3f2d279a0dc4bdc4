"""Opening an upload within its tenant's quotas, and giving it up."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, runtime_checkable
from uuid import uuid4

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_result,
    stop_after_delay,
    wait_exponential,
)

from gateway.db import Database
from gateway.http import idempotency
from gateway.staging import Staging
from gateway.uploads import chunking, queries
from schemas.api.uploads import CreateUpload, UploadAbandoned, UploadCreated
from schemas.errors import DomainError, ErrorCode
from schemas.events.uploads import UploadCancelled
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import (
    ACTIVE_JOBS,
    CANCELLABLE_UPLOADS,
    JobStage,
    JobStatus,
    UploadStatus,
)
from schemas.policy import quotas as quota_policy
from schemas.settings import QuotaSettings
from schemas.tables.documents import Document
from schemas.tables.jobs import Job
from schemas.tables.outbox import emit
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Chunk, Upload

log = structlog.stdlib.get_logger(__name__)

SOURCE: Final = "/waybill/gateway"

PURGEABLE_UPLOADS: Final = CANCELLABLE_UPLOADS | {UploadStatus.STORED}

READER_WAIT: Final = timedelta(seconds=10)
"""How long a purge waits for a worker that reads the document."""

FIRST_PAUSE: Final = timedelta(milliseconds=50)
LONGEST_PAUSE: Final = timedelta(milliseconds=500)


@runtime_checkable
class RegisterCallback(Protocol):
    """Has somebody told of one upload's events; returns the secret that verifies them.

    Called again for the same upload it changes nothing and returns the same secret.
    """

    async def __call__(
        self, session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId, url: str
    ) -> str: ...


class UploadAlreadySettled(DomainError):
    """The upload's end has come already; nothing is left to cancel."""

    code = ErrorCode.UPLOAD_ALREADY_SETTLED

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"upload {upload_id} is settled and can no longer be cancelled")


class StillBeingRead(DomainError):
    """A worker has not let go of the document yet; in a moment it will have."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"upload {upload_id} is cancelled, but still being read; try again soon")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What an operator grants an upload."""

    limits: chunking.Limits
    lifetime: timedelta
    quotas: quota_policy.Quotas
    """Of tenants that have none of their own."""


async def open_upload(
    database: Database,
    staging: Staging,
    *,
    tenant_id: TenantId,
    request: CreateUpload,
    keyed: idempotency.KeyedRequest | None,
    terms: Terms,
    now: datetime,
    register_callback: RegisterCallback,
    slack: int = 0,
) -> UploadCreated:
    """Make an upload that takes chunks; with a used key, return the one made then.

    Its size is reserved from the tenant's quota at once: of requests that come
    together only those that fit are let in.

    Args:
        database: opens transactions.
        staging: where its bytes will lie.
        tenant_id: whose it is.
        request: what the client promises to send.
        keyed: makes a repeated request the same one.
        terms: what the operator grants.
        now: when its time begins.
        register_callback: has the client's `callback_url` told.
        slack: how many bytes of its size may turn out not to belong to the file.

    Raises:
        FileTooLarge, TypeNotAllowed, TooManyOpenUploads, QuotaExceeded: not for this tenant.
        StagingFull: for the staging disk, now.
        IdempotencyKeyReused: the key is bound to another request.
    """
    plan = chunking.plan(request.size, wish=request.chunk_size, limits=terms.limits)
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
        status=UploadStatus.OPEN,
        filename=request.filename,
        content_type=request.content_type,
        size=request.size,
        chunk_size=plan.chunk_size,
        chunk_count=plan.chunk_count,
        sha256=request.sha256,
        staging=staging.kind,
        client_metadata=request.metadata,
        expires_at=now + terms.lifetime,
    )
    callback = (
        partial(register_callback, tenant_id=tenant_id, url=request.callback_url)
        if request.callback_url is not None
        else None
    )
    async with database.transaction() as session:
        made_id = await idempotency.earlier_use(session, keyed, tenant_id=tenant_id)
        if made_id is not None:
            # Answered at once: by the next transaction the key may be forgotten.
            upload = await queries.upload_of(
                session, tenant_id=tenant_id, upload_id=UploadId(made_id)
            )
            return await _created(session, upload, callback=callback)
        quotas = await quotas_of(session, tenant_id=tenant_id, defaults=terms.quotas)
    # Before there is a file: one this large may not even fit on the disk.
    quota_policy.check_size(upload.size - slack, quotas=quotas)
    quota_policy.check_declared(upload.content_type, quotas=quotas)
    # Before the transaction that lets it in: while that is open, every other create
    # of the tenant waits for it, each with a connection, and this one would wait for a disk.
    await staging.create(upload.id, tenant_id=tenant_id, size_bytes=upload.size)
    try:
        async with database.tenant_lock(tenant_id) as session:
            let_in = await _let_in(session, upload, keyed=keyed, quotas=quotas, slack=slack)
            created = await _created(session, let_in, callback=callback)
    except DomainError:
        # Of any other failure it is not known whether it came before the commit; a file
        # that no row speaks of is swept.
        await staging.remove(upload.id, tenant_id=tenant_id)
        raise
    if created.upload_id == upload.id:
        log.info("upload.opened", upload_id=str(upload.id), size_bytes=upload.size)
    else:
        await staging.remove(upload.id, tenant_id=tenant_id)
    return created


async def _let_in(
    session: AsyncSession,
    upload: Upload,
    *,
    keyed: idempotency.KeyedRequest | None,
    quotas: quota_policy.Quotas,
    slack: int,
) -> Upload:
    """Add the upload, or find the one that was made when its key was first used."""
    made_id = UploadId(
        await idempotency.first_use(
            session, keyed, tenant_id=upload.tenant_id, resource_id=upload.id
        )
    )
    if made_id != upload.id:
        return await queries.upload_of(session, tenant_id=upload.tenant_id, upload_id=made_id)
    await _admit(session, upload, quotas=quotas, slack=slack)
    return upload


async def _created(
    session: AsyncSession, upload: Upload, *, callback: Callable[..., Awaitable[str]] | None
) -> UploadCreated:
    """Show an upload as its creator is told of it, with the callback it wanted."""
    secret = None if callback is None else await callback(session, upload_id=upload.id)
    return queries.show_created(upload, callback_secret=secret)


async def quotas_of(
    session: AsyncSession, *, tenant_id: TenantId, defaults: quota_policy.Quotas
) -> quota_policy.Quotas:
    """Return a tenant's own quotas, and the defaults in the place of those it has not."""
    own = (
        await session.execute(
            select(
                Tenant.quota_file_size,
                Tenant.quota_bytes,
                Tenant.quota_open_uploads,
                Tenant.allowed_types,
            ).where(Tenant.id == tenant_id),
        )
    ).one()
    return defaults.replaced_by(
        file_size=own.quota_file_size,
        total_bytes=own.quota_bytes,
        open_uploads=own.quota_open_uploads,
        types=own.allowed_types,
    )


async def check_complete_upload(
    session: AsyncSession, upload: Upload, *, settings: QuotaSettings
) -> None:
    """Look at the quotas again, once it is known what was sent.

    Raises:
        FileTooLarge, TypeNotAllowed, QuotaExceeded: it is more than was let in, or
            something else, or the tenant may have less by now.
    """
    quotas = await quotas_of(
        session, tenant_id=upload.tenant_id, defaults=quota_policy.Quotas.from_settings(settings)
    )
    quota_policy.check_size(upload.size, quotas=quotas)
    quota_policy.check_content(upload.sniffed_type, declared=upload.content_type, quotas=quotas)
    quota_policy.check_total(await _usage_of(session, upload.tenant_id), quotas=quotas)


async def check_reference(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    content_type: str | None,
    settings: QuotaSettings,
) -> None:
    """Look at what can be known of an object that is in the bucket already: not its size.

    Raises:
        TypeNotAllowed: it is declared as something else than the tenant may send.
        QuotaExceeded: the tenant's uploads take more than they may as it is.
    """
    quotas = await quotas_of(
        session, tenant_id=tenant_id, defaults=quota_policy.Quotas.from_settings(settings)
    )
    quota_policy.check_declared(content_type, quotas=quotas)
    quota_policy.check_total(await _usage_of(session, tenant_id), quotas=quotas)


async def abandon_upload(
    database: Database,
    staging: Staging,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    purge: bool,
    now: datetime,
    unless_finalized: bool = False,
) -> UploadAbandoned:
    """Cancel an upload, before or after it was finalized; doing it again changes nothing.

    What a worker has under way is the worker's to clean up: it notices within
    moments, and removes the object too where there is one. Without a job the
    staged bytes go at once.

    Args:
        database: opens transactions.
        staging: where the bytes of uploads without a job lie.
        tenant_id: who asks.
        upload_id: what is to go.
        purge: also after it was stored; what was read from it goes as well.
        now: when this is.
        unless_finalized: leaves an upload alone that has a job.

    Raises:
        UploadNotFound: there is none, or none of this tenant.
        UploadAlreadySettled: it failed or expired, or it is stored, or finalized, and to be kept.
        StillBeingRead: it is cancelled, but a worker that reads it has not noticed yet.
    """
    async with database.tenant_lock(tenant_id) as session:
        upload, job_id = await _to_cancel(session, tenant_id=tenant_id, upload_id=upload_id)
        if unless_finalized and job_id is not None:
            raise UploadAlreadySettled(upload_id)
        if upload.status != UploadStatus.CANCELLED:
            await _cancel(session, upload, job_id=job_id, purge=purge, now=now)
        is_read = purge and not await _drop_document(session, upload_id)
    if is_read:
        await _drop_read_document(database, upload_id)
    if job_id is None:
        await staging.remove(upload_id, tenant_id=tenant_id)
    return UploadAbandoned(upload_id=upload_id, status=UploadStatus.CANCELLED, job_id=job_id)


async def _to_cancel(
    session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId
) -> tuple[Upload, JobId | None]:
    """Return an upload with its job; where it has none, it is locked, so that it gets none.

    Where it has one, it is not: a worker locks the job before the upload, and so does `_cancel`.
    """
    upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=upload_id)
    job_id = await queries.job_id_of(session, upload_id)
    if job_id is None:
        async with session.begin_nested() as locking:
            upload = await queries.upload_to_settle(
                session, tenant_id=tenant_id, upload_id=upload_id
            )
            job_id = await queries.job_id_of(session, upload_id)
            if job_id is not None:
                # It was finalized between the two looks. This gives the lock back.
                await locking.rollback()
    return upload, job_id


async def _admit(
    session: AsyncSession, upload: Upload, *, quotas: quota_policy.Quotas, slack: int
) -> None:
    """Add the upload, if it is within the tenant's quotas; otherwise the transaction has to end.

    Adding it locks the tenant's usage until the transaction ends, so what is
    read then counts every upload that was let in before.
    """
    session.add(upload)
    await session.flush()
    usage = await _usage_of(session, upload.tenant_id)
    quota_policy.check_usage(usage, quotas=quotas, slack=slack)


async def _usage_of(session: AsyncSession, tenant_id: TenantId) -> quota_policy.Usage:
    usage = await session.get(TenantUsage, tenant_id, populate_existing=True)
    return quota_policy.Usage(
        total_bytes=usage.bytes if usage else 0, open_uploads=usage.open_uploads if usage else 0
    )


async def _cancel(
    session: AsyncSession, upload: Upload, *, job_id: JobId | None, purge: bool, now: datetime
) -> None:
    """Move the job before its upload, as a worker does, so that the two never wait in a circle."""
    if job_id is not None and not await _cancel_job(session, job_id, purge=purge, now=now):
        if await queries.job_status_of(session, job_id) != JobStatus.CANCELLED:
            raise UploadAlreadySettled(upload.id)
        # The same request, sent twice at once, was here a moment ago.
        return
    moved = await session.execute(
        update(Upload)
        .where(
            Upload.id == upload.id,
            Upload.status.in_(PURGEABLE_UPLOADS if purge else CANCELLABLE_UPLOADS),
        )
        .values(status=UploadStatus.CANCELLED)
        .returning(Upload.id),
    )
    if moved.first() is None:
        raise UploadAlreadySettled(upload.id)
    await session.execute(delete(Chunk).where(Chunk.upload_id == upload.id))
    emit(
        session,
        UploadCancelled(upload_id=upload.id, job_id=job_id, filename=upload.filename),
        tenant_id=upload.tenant_id,
        source=SOURCE,
        now=now,
    )
    log.info("upload.cancelled", upload_id=str(upload.id), purge=purge)


async def _cancel_job(session: AsyncSession, job_id: JobId, *, purge: bool, now: datetime) -> bool:
    """Say whether the job was one to cancel; purged, its result and its error go as well."""
    cancel = update(Job).where(Job.id == job_id).values(status=JobStatus.CANCELLED, finished_at=now)
    if purge:
        cancel = cancel.where(Job.status != JobStatus.CANCELLED).values(
            result=None, error_code=None, error_detail=None, error_retryable=None
        )
    else:
        cancel = cancel.where(Job.status.in_(ACTIVE_JOBS), Job.stage == JobStage.TRANSFER)
    return (await session.execute(cancel.returning(Job.id))).first() is not None


async def _drop_document(session: AsyncSession, upload_id: UploadId) -> bool:
    """Delete what was read of an upload; False where a worker is just reading it.

    Never waits: the worker that reads a document writes to the job as well, and
    this transaction may hold the job.
    """
    there = select(Document.id).where(Document.upload_id == upload_id)
    free = (await session.scalars(there.with_for_update(skip_locked=True))).all()
    if free:
        # Pages, passages and entities go with it.
        await session.execute(delete(Document).where(Document.id.in_(free)))
        return True
    return await session.scalar(there) is None


async def _drop_read_document(database: Database, upload_id: UploadId) -> None:
    """Delete a document that a worker was reading, once it has let go.

    It is looked at again and again, not waited for in the database: a few
    purges that wait there would keep every connection from everybody else.

    Raises:
        StillBeingRead: it took too long.
    """
    retrying = AsyncRetrying(
        retry=retry_if_result(lambda is_gone: not is_gone),
        stop=stop_after_delay(READER_WAIT),
        wait=wait_exponential(multiplier=FIRST_PAUSE.total_seconds(), max=LONGEST_PAUSE),
    )

    async def drop() -> bool:
        async with database.transaction() as session:
            return await _drop_document(session, upload_id)

    try:
        await retrying(drop)
    except RetryError as error:
        raise StillBeingRead(upload_id) from error
