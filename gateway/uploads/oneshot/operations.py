"""Taking a whole file in one request, or an object by its name.

A form's file goes the way of any upload: its bytes become acked chunks, and in
one transaction the upload gets the size it turned out to have, is finalized,
and the request's `Idempotency-Key` is bound to it. Whatever goes wrong before
that, nothing of it is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Final
from uuid import uuid4

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import Database
from gateway.http import idempotency
from gateway.http.idempotency import KeyedRequest, KeyForgotten
from gateway.jobs import operations as jobs
from gateway.jobs import queries as job_queries
from gateway.jobs.operations import CheckCompleteUpload
from gateway.staging import Staging
from gateway.uploads import chunking, queries
from gateway.uploads import operations as uploads
from gateway.uploads.oneshot import lease
from gateway.uploads.oneshot.form import FRAME_BYTES_MAX, FileHead, Form
from gateway.uploads.oneshot.splitter import Slices
from gateway.uploads.operations import RegisterCallback
from gateway.uploads.receive import Offer, ReceiveChunk
from schemas import object_keys
from schemas.api.jobs import JobView
from schemas.api.submissions import FormFields, SubmitReference
from schemas.api.uploads import CreateUpload, FinalizeUpload, UploadCreated
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.policy import quotas as quota_policy
from schemas.settings import QuotaSettings
from schemas.tables.uploads import Upload

log = structlog.stdlib.get_logger(__name__)

TRAILING_BYTES: Final = len("\r\n")
"""May end a form or not; until it has ended they are counted as the file's."""


KEY_BYTES_MAX: Final = 1024
"""Most bytes of an object's key in S3."""

NOT_A_PART: Final = frozenset({"", ".", ".."})


class LengthRequired(DomainError):
    """Without its length nothing can be reserved for the file."""

    code = ErrorCode.LENGTH_REQUIRED

    def __init__(self) -> None:
        super().__init__("send the form with a Content-Length")


class FileDamaged(DomainError):
    """The file does not have the digest its form names; nothing of it is kept."""

    code = ErrorCode.FILE_DIGEST_MISMATCH
    retryable = True

    def __init__(self, *, actual: str) -> None:
        super().__init__(f"what came has another sha256 than the form says: {actual}")


class ReferenceRefused(DomainError):
    """The named object is none that this tenant may hand over."""

    code = ErrorCode.REFERENCE_REFUSED


class FileMeaning(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a repeated form the same: everything the client chose."""

    filename: str
    content_type: str | None
    sha256: str
    callback_url: str | None


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What taking a file in needs."""

    database: Database
    staging: Staging
    register_callback: RegisterCallback
    check: CheckCompleteUpload
    terms: uploads.Terms
    form_lease: timedelta
    receive_chunk: ReceiveChunk
    clock: Callable[[], datetime]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who submits, and what their request says beside its body."""

    tenant_id: TenantId
    idempotency_key: str | None
    traceparent: str | None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    job: JobView
    filename: str
    callback_secret: str | None


async def submit_form(reception: Reception, form: Form, *, request: Request) -> Accepted:
    """Take the file of a form, as its bytes come in.

    Raises:
        FormRefused: the form is broken, or has not exactly one file.
        FileTooLarge, TypeNotAllowed, TooManyOpenUploads, QuotaExceeded: not for this tenant.
        FileDamaged: the bytes are not those the form's sha256 speaks of.
        IdempotencyKeyReused: the key is bound to another request.
        WebhookUrlRefused, StagingFull, BodyStalled, ClientDisconnected: as for any upload.
    """
    async with reception.database.transaction() as session:
        quotas = await uploads.quotas_of(
            session, tenant_id=request.tenant_id, defaults=reception.terms.quotas
        )
    # Before anything is read.
    quota_policy.check_size(form.length - FRAME_BYTES_MAX, quotas=quotas)
    head = await form.head()
    if await _is_repeated(reception, request):
        return await _answer_again(reception, form, head, request=request)
    upload = await _open(reception, head, fields=form.fields, request=request)
    structlog.contextvars.bind_contextvars(upload_id=str(upload.upload_id))
    try:
        async with lease.renewed(
            reception.database,
            upload.upload_id,
            lease=reception.form_lease,
            longest=reception.terms.lifetime,
            clock=reception.clock,
        ):
            file = await _receive(reception, form, upload, tenant_id=request.tenant_id)
            accepted = await _finalize(
                reception, upload, file, form=form, head=head, request=request
            )
    except BaseException:
        await _drop(reception, upload.upload_id, tenant_id=request.tenant_id)
        raise
    if accepted.job.upload_id != upload.upload_id:
        # The same request, sent twice at once, was finalized a moment ago.
        await _drop(reception, upload.upload_id, tenant_id=request.tenant_id)
    return accepted


async def submit_reference(
    session: AsyncSession,
    *,
    reference: SubmitReference,
    request: Request,
    register_callback: RegisterCallback,
    settings: QuotaSettings,
    now: datetime,
) -> Accepted:
    """Make an upload and its job of an object that somebody else put into the bucket.

    Whether it is there, and how large it is, the worker finds out.

    Raises:
        ReferenceRefused: the key is not one of this tenant's.
        TypeNotAllowed, QuotaExceeded: not for this tenant.
        IdempotencyKeyReused: the key is bound to another request.
        WebhookUrlRefused: nothing may be sent to the callback.
    """
    name = name_in(reference.object_key, tenant_id=request.tenant_id)
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=request.tenant_id,
        status=UploadStatus.FINALIZED,
        filename=reference.filename or name,
        content_type=reference.content_type,
        size=0,
        chunk_size=1,
        chunk_count=0,
        sha256=reference.sha256,
        staging=StagingKind.REFERENCE,
        source_key=reference.object_key,
        client_metadata=reference.metadata,
        expires_at=now,
    )
    keyed = KeyedRequest.of(
        request.idempotency_key, operation="submit_reference", request=reference
    )
    made_id = UploadId(
        await idempotency.first_use(
            session, keyed, tenant_id=request.tenant_id, resource_id=upload.id
        )
    )
    if made_id == upload.id:
        await uploads.check_reference(
            session,
            tenant_id=request.tenant_id,
            content_type=reference.content_type,
            settings=settings,
        )
        session.add(upload)
        await session.flush()
        jobs.make_job(
            session,
            upload,
            job_id=JobId(uuid4()),
            sha256=None,
            traceparent=request.traceparent,
            now=now,
        )
        await session.flush()
    return await _accepted(
        session,
        made_id,
        callback_url=reference.callback_url,
        register_callback=register_callback,
        request=request,
    )


def name_in(object_key: str, *, tenant_id: TenantId) -> str:
    """Return the last part of the key of an object that a tenant may name.

    Raises:
        ReferenceRefused: it may not name this one.
    """
    prefix = object_keys.incoming(tenant_id)
    if not object_key.startswith(prefix):
        raise ReferenceRefused(f"the object must lie under {prefix}")
    parts = object_key.removeprefix(prefix).split("/")
    if not NOT_A_PART.isdisjoint(parts):
        raise ReferenceRefused("the key has an empty part, or one that is '.' or '..'")
    if not object_key.isprintable() or len(object_key.encode()) > KEY_BYTES_MAX:
        raise ReferenceRefused(
            f"a key has at most {KEY_BYTES_MAX} bytes, and no control characters"
        )
    return parts[-1]


async def _is_repeated(reception: Reception, request: Request) -> bool:
    if request.idempotency_key is None:
        return False
    async with reception.database.transaction() as session:
        return await idempotency.is_used(
            session, request.idempotency_key, tenant_id=request.tenant_id
        )


async def _answer_again(
    reception: Reception, form: Form, head: FileHead, *, request: Request
) -> Accepted:
    """Read a form whose key is used already, to see that it is the same one; keep nothing of it."""
    file = Slices(form.file(), slice_bytes=1)
    await file.read_on()
    await form.rest()
    async with reception.database.transaction() as session:
        upload_id = await idempotency.earlier_use(
            session, _keyed(form, head, file, request=request), tenant_id=request.tenant_id
        )
        if upload_id is None:
            raise KeyForgotten
        return await _accepted(
            session,
            UploadId(upload_id),
            callback_url=form.fields.callback_url,
            register_callback=reception.register_callback,
            request=request,
        )


async def _open(
    reception: Reception, head: FileHead, *, fields: FormFields, request: Request
) -> UploadCreated:
    return await uploads.open_upload(
        reception.database,
        reception.staging,
        tenant_id=request.tenant_id,
        request=CreateUpload(
            filename=head.filename,
            size=head.size_max,
            content_type=head.content_type,
            callback_url=fields.callback_url,
        ),
        keyed=None,
        terms=replace(
            reception.terms, lifetime=min(reception.form_lease, reception.terms.lifetime)
        ),
        now=reception.clock(),
        register_callback=reception.register_callback,
        slack=min(TRAILING_BYTES, head.size_max),
    )


async def _receive(
    reception: Reception, form: Form, upload: UploadCreated, *, tenant_id: TenantId
) -> Slices:
    """Store the file in chunks; return what is known of it at its end."""
    file = Slices(form.file(), slice_bytes=upload.chunk_size)
    for index in count():
        if not await file.has_more():
            break
        if index == 1:
            await _check_type(reception, upload.upload_id, tenant_id=tenant_id)
        await reception.receive_chunk(
            tenant_id=tenant_id,
            offer=Offer(
                upload_id=upload.upload_id,
                index=index,
                declared_size=None,
                expected=(),
                may_end_early=True,
            ),
            body=file.next_slice(),
        )
    await form.rest()
    expected = form.fields.sha256
    if expected is not None and expected != file.sha256:
        raise FileDamaged(actual=file.sha256)
    return file


async def _check_type(reception: Reception, upload_id: UploadId, *, tenant_id: TenantId) -> None:
    """Look at what the first chunk shows, before the others are read for nothing."""
    async with reception.database.transaction() as session:
        upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=upload_id)
        quotas = await uploads.quotas_of(
            session, tenant_id=tenant_id, defaults=reception.terms.quotas
        )
    quota_policy.check_content(upload.sniffed_type, declared=upload.content_type, quotas=quotas)


async def _finalize(
    reception: Reception,
    upload: UploadCreated,
    file: Slices,
    *,
    form: Form,
    head: FileHead,
    request: Request,
) -> Accepted:
    async with reception.database.tenant_lock(request.tenant_id) as session:
        upload_id = UploadId(
            await idempotency.first_use(
                session,
                _keyed(form, head, file, request=request),
                tenant_id=request.tenant_id,
                resource_id=upload.upload_id,
            )
        )
        if upload_id == upload.upload_id:
            await _set_size(session, upload_id, size=file.size, tenant_id=request.tenant_id)
            await jobs.finalize(
                session,
                tenant_id=request.tenant_id,
                request=FinalizeUpload(upload_id=upload_id, sha256=file.sha256),
                keyed=None,
                check=reception.check,
                traceparent=request.traceparent,
                now=reception.clock(),
            )
        return await _accepted(
            session,
            upload_id,
            callback_url=form.fields.callback_url,
            register_callback=reception.register_callback,
            request=request,
        )


async def _set_size(
    session: AsyncSession, upload_id: UploadId, *, size: int, tenant_id: TenantId
) -> None:
    """Give the upload the size its file turned out to have; until now it had the most it could."""
    row = await queries.upload_to_settle(session, tenant_id=tenant_id, upload_id=upload_id)
    row.size = size
    row.chunk_count = chunking.Plan(size=size, chunk_size=row.chunk_size).chunk_count
    await session.flush()


def _keyed(form: Form, head: FileHead, file: Slices, *, request: Request) -> KeyedRequest | None:
    """Bind the key to the file itself: a form can be known to be the same only at its end."""
    return KeyedRequest.of(
        request.idempotency_key,
        operation="submit_file",
        request=FileMeaning(
            filename=head.filename,
            content_type=head.content_type,
            sha256=file.sha256,
            callback_url=form.fields.callback_url,
        ),
    )


async def _accepted(
    session: AsyncSession,
    upload_id: UploadId,
    *,
    callback_url: str | None,
    register_callback: RegisterCallback,
    request: Request,
) -> Accepted:
    upload = await queries.upload_of(session, tenant_id=request.tenant_id, upload_id=upload_id)
    job = await job_queries.job_of_upload(session, tenant_id=request.tenant_id, upload_id=upload_id)
    secret = None
    if callback_url is not None:
        secret = await register_callback(
            session, tenant_id=request.tenant_id, upload_id=upload_id, url=callback_url
        )
    return Accepted(job=job, filename=upload.filename, callback_secret=secret)


async def _drop(reception: Reception, upload_id: UploadId, *, tenant_id: TenantId) -> None:
    """Cancel an upload whose form did not come to a good end.

    Where only the answer to its COMMIT was lost, it is finalized and stays: its
    `Idempotency-Key` is bound to it, and the client that tries again gets its job.
    """
    try:
        await uploads.abandon_upload(
            reception.database,
            reception.staging,
            tenant_id=tenant_id,
            upload_id=upload_id,
            purge=False,
            now=reception.clock(),
            unless_finalized=True,
        )
    except (DomainError, SQLAlchemyError, OSError) as error:
        # The request's own failure goes before; the sweep takes what is left here.
        log.warning("submission.left_behind", upload_id=str(upload_id), error=type(error).__name__)
