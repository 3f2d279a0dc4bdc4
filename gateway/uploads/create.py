"""Creating an upload within its tenant's quotas."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.db import SessionStatements, Statements
from gateway.http import idempotency
from gateway.uploads import chunking, passwords, queries
from gateway.uploads.new_upload import NewUpload
from gateway.uploads.quotas import quotas_of, reserve
from gateway.uploads.shown_callback import NO_CALLBACK, ShownCallback
from gateway.webhooks import create as webhooks
from gateway.webhooks.queries import callback_of
from schemas.api.uploads import CreateUpload, UploadCreated, stored_pipeline
from schemas.errors import DomainError
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import UploadStatus
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)


async def create_upload(
    context: Context,
    *,
    tenant_id: TenantId,
    request: CreateUpload,
    keyed: idempotency.KeyedRequest | None,
    lifetime: timedelta,
    uncertain_bytes: int = 0,
) -> UploadCreated:
    """Create an upload, or return the upload that an earlier request with the key created.

    The size is reserved from the tenant's quota at once: of concurrent requests
    only those that fit together are admitted.

    Args:
        context: the context of the process.
        tenant_id: owner of the upload.
        request: the file as the client declares it.
        keyed: the request's `Idempotency-Key`.
        lifetime: time until the upload expires.
        uncertain_bytes: part of the size that may turn out not to belong to the file.

    Raises:
        FileTooLarge, TypeNotAllowed, TooManyOpenUploads, QuotaExceeded, StagedBytesExceeded: the
            quotas forbid it.
        StagingFull: the staging disk has no room.
        IdempotencyKeyReused: the key is bound to another request.
        TargetRefused: the callback URL is not allowed.
    """
    settings, callback_url = context.settings, request.callback_url
    upload = _new_upload(context, tenant_id=tenant_id, request=request)
    if keyed is not None:
        earlier = await _created_before(
            context, keyed, tenant_id=tenant_id, callback_url=callback_url
        )
        if earlier is not None:
            return earlier
    allowed = await quotas_of(context.autocommit, tenant_id=tenant_id, settings=settings)
    # Before the file is created: a file of this size may not even fit on the disk.
    allowed.check_size(upload.size - uncertain_bytes)
    allowed = allowed.on_disk(await context.staging.disk_bytes())
    allowed.check_staged_size(upload.size - uncertain_bytes)
    allowed.check_declared(upload.content_type)
    # Before the statement that admits the upload: the tenant's other creates wait for that
    # statement, and would wait for the disk too.
    await context.staging.primary.create(upload.id, tenant_id=tenant_id, size_bytes=upload.size)
    admit = partial(
        reserve, upload=upload, lifetime=lifetime, quotas=allowed, uncertain_bytes=uncertain_bytes
    )
    try:
        if keyed is None and callback_url is None and not request.password:
            async with context.autocommit.turn(tenant_id):
                expires_at = await admit(context.autocommit)
            created = queries.show_created(
                upload,
                status=UploadStatus.OPEN,
                expires_at=expires_at,
                callback=NO_CALLBACK,
            )
        else:
            created = await _create_in_transaction(
                context, upload, keyed=keyed, admit=admit, request=request
            )
    except DomainError:
        # After any other error the transaction may be committed; a sweep deletes a file
        # without a row.
        await context.staging.remove(upload.id, tenant_id=tenant_id)
        raise
    if created.upload_id == upload.id:
        log.info("upload.opened", upload_id=str(upload.id), size_bytes=upload.size)
        # The first chunk comes next, and mostly to this process.
        context.staging.uploads.add(upload.staged)
    else:
        await context.staging.remove(upload.id, tenant_id=tenant_id)
    return created


async def register_callback(
    context: Context,
    session: AsyncSession,
    upload_id: UploadId,
    *,
    tenant_id: TenantId,
    url: str | None,
) -> ShownCallback:
    """Register the callback of a new upload, whose row is in the database.

    Raises:
        TargetRefused: the callback URL is not allowed.
    """
    if url is None:
        return NO_CALLBACK
    callback = await webhooks.register_callback(
        context, session, upload_id, tenant_id=tenant_id, url=url
    )
    return ShownCallback(webhook_id=callback.webhook_id, secret=callback.secret)


async def earlier_callback(
    session: AsyncSession, upload_id: UploadId, *, url: str | None
) -> ShownCallback:
    """Return the callback in the answer to a repeated request: its secret was shown before."""
    if url is None:
        return NO_CALLBACK
    return ShownCallback(webhook_id=await callback_of(session, upload_id), secret=None)


async def _create_in_transaction(
    context: Context,
    upload: NewUpload,
    *,
    keyed: idempotency.KeyedRequest | None,
    admit: Callable[[Statements], Awaitable[datetime]],
    request: CreateUpload,
) -> UploadCreated:
    """Add an upload with its key, callback and password, or return that of an earlier request."""
    tenant_id, callback_url = upload.tenant_id, request.callback_url
    async with context.database.tenant_lock(tenant_id) as session:
        statements = SessionStatements(session)
        bound_to = await idempotency.first_use(
            statements, keyed, tenant_id=tenant_id, resource_id=upload.id
        )
        if bound_to != upload.id:
            earlier = await queries.upload_of(
                session, tenant_id=tenant_id, upload_id=UploadId(bound_to)
            )
            callback = await earlier_callback(session, earlier.id, url=callback_url)
            return _show_earlier(earlier, callback)
        expires_at = await admit(statements)
        passwords.keep(session, request.password, upload_id=upload.id, keys=context.secret_keys)
        callback = await register_callback(
            context, session, upload.id, tenant_id=tenant_id, url=callback_url
        )
    return queries.show_created(
        upload, status=UploadStatus.OPEN, expires_at=expires_at, callback=callback
    )


async def _created_before(
    context: Context,
    keyed: idempotency.KeyedRequest,
    *,
    tenant_id: TenantId,
    callback_url: str | None,
) -> UploadCreated | None:
    """Return the answer of an earlier request with the key; None if the key is unused."""
    async with context.database.transaction() as session:
        earlier_id = await idempotency.earlier_use(
            SessionStatements(session), keyed, tenant_id=tenant_id
        )
        if earlier_id is None:
            return None
        # In this transaction: before the next transaction the key may expire.
        earlier = await queries.upload_of(
            session, tenant_id=tenant_id, upload_id=UploadId(earlier_id)
        )
        callback = await earlier_callback(session, earlier.id, url=callback_url)
    return _show_earlier(earlier, callback)


def _show_earlier(earlier: Upload, callback: ShownCallback) -> UploadCreated:
    return queries.show_created(
        earlier, status=earlier.status, expires_at=earlier.expires_at, callback=callback
    )


def _new_upload(context: Context, *, tenant_id: TenantId, request: CreateUpload) -> NewUpload:
    plan = chunking.plan(request.size, requested_size=request.chunk_size, settings=context.settings)
    return NewUpload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
        filename=request.filename,
        content_type=request.content_type,
        size=request.size,
        chunk_size=plan.chunk_size,
        chunk_count=plan.chunk_count,
        sha256=request.sha256,
        staging=context.staging.primary.kind,
        client_metadata=request.metadata,
        pipeline=stored_pipeline(request.pipeline),
    )
