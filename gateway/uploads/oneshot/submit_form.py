"""Submits a whole file in a form.

The file is stored like every upload: its bytes become acknowledged chunks. One
transaction then sets the size of the upload, finalizes it, and binds the
`Idempotency-Key` to it. After a failure nothing of the file is kept.
"""

from itertools import count
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.db import SessionStatements
from gateway.http import idempotency, request_log
from gateway.uploads import chunking, passwords, queries
from gateway.uploads.cancel import cancel_upload
from gateway.uploads.create import create_upload, earlier_callback, register_callback
from gateway.uploads.finalize import finalize_upload
from gateway.uploads.oneshot import lease
from gateway.uploads.oneshot.form import FRAME_BYTES_MAX, FileHead, Form
from gateway.uploads.oneshot.repetition import answer_again, is_repeated, keyed_request
from gateway.uploads.oneshot.splitter import ChunkSplitter
from gateway.uploads.oneshot.submission import Accepted, Submission, accept
from gateway.uploads.quotas import quotas_of
from gateway.uploads.receive import IncomingChunk, receive_chunk
from gateway.uploads.shown_callback import NO_CALLBACK, ShownCallback
from schemas.api.uploads import CreateUpload, FinalizeUpload, UploadCreated, stored_pipeline
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId, UploadId

log = structlog.stdlib.get_logger(__name__)

CLOSING_BYTES: Final = len("\r\n")
"""An optional line break after the form; until it arrives it is counted as part of the file."""


class FileDamaged(DomainError):
    """The received file has another sha256 than the form states; nothing of the file is kept."""

    code = ErrorCode.FILE_DIGEST_MISMATCH
    retryable = True

    def __init__(self, *, actual: str) -> None:
        super().__init__(f"the file has the sha256 {actual}, not the one in the form")


async def submit_form(context: Context, form: Form, *, submission: Submission) -> Accepted:
    """Store the file of a form while it arrives, and finalize its upload.

    Raises:
        FormRefused: the form is malformed, or does not have exactly one file.
        FileTooLarge, TypeNotAllowed, TooManyOpenUploads, QuotaExceeded, StagedBytesExceeded: the
            quotas forbid it.
        FileDamaged: the file has another sha256 than the form states.
        BodyDigestMismatch: the form has another digest than its request states.
        TooManyWaiting, SystemBusy: too many steps wait.
        IdempotencyKeyReused: the key is bound to another request.
        TargetRefused, StagingFull, BodyTooSlow, ClientDisconnected: as for every upload.
    """
    tenant_id = submission.tenant_id
    quotas = await quotas_of(context.autocommit, tenant_id=tenant_id, settings=context.settings)
    # Before the first byte is read.
    quotas.check_size(form.length - FRAME_BYTES_MAX)
    head = await form.head()
    if await is_repeated(context, submission=submission):
        return await answer_again(context, form, head, submission=submission)
    await context.backlog.check(context.autocommit, tenant_id=tenant_id)
    upload = await _create(context, form, head, tenant_id=tenant_id)
    request_log.bind(upload_id=upload.upload_id)
    try:
        async with lease.renewed(context, upload.upload_id):
            file = await _receive(context, form, upload, tenant_id=tenant_id)
            accepted = await _finalize(
                context, upload, file, form=form, head=head, submission=submission
            )
    except BaseException:
        await _clean_up(context, upload.upload_id, tenant_id=tenant_id)
        raise
    if accepted.upload_id != upload.upload_id:
        # A concurrent repetition of this request was finalized before this request.
        await _clean_up(context, upload.upload_id, tenant_id=tenant_id)
    return accepted


async def _create(
    context: Context, form: Form, head: FileHead, *, tenant_id: TenantId
) -> UploadCreated:
    return await create_upload(
        context,
        tenant_id=tenant_id,
        request=CreateUpload(
            filename=head.filename,
            size=head.size_max,
            content_type=head.content_type,
            callback_url=form.fields.callback_url,
            metadata=form.fields.metadata,
            pipeline=form.fields.pipeline,
        ),
        keyed=None,
        lifetime=min(context.settings.form_lease, context.settings.upload_ttl),
        uncertain_bytes=min(CLOSING_BYTES, head.size_max),
    )


async def _receive(
    context: Context, form: Form, upload: UploadCreated, *, tenant_id: TenantId
) -> ChunkSplitter:
    """Store the file in chunks; return the splitter, which has the file's size and sha256."""
    file = ChunkSplitter(form.file(), chunk_bytes=upload.chunk_size)
    for index in count():
        if not await file.has_more():
            break
        if index == 1:
            await _check_type(context, upload.upload_id, tenant_id=tenant_id)
        await receive_chunk(
            context,
            tenant_id=tenant_id,
            chunk=IncomingChunk(
                upload_id=upload.upload_id,
                index=index,
                declared_size=None,
                expected=(),
                may_end_early=True,
            ),
            body=file.next_chunk(),
        )
    await form.rest()
    expected = form.fields.sha256
    if expected is not None and expected != file.sha256:
        raise FileDamaged(actual=file.sha256)
    return file


async def _check_type(context: Context, upload_id: UploadId, *, tenant_id: TenantId) -> None:
    """Check the type of the first chunk; a refused file is not read further."""
    async with context.database.transaction() as session:
        upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=upload_id)
    quotas = await quotas_of(context.autocommit, tenant_id=tenant_id, settings=context.settings)
    quotas.check_content(upload.sniffed_type, declared=upload.content_type)


async def _finalize(
    context: Context,
    received: UploadCreated,
    file: ChunkSplitter,
    *,
    form: Form,
    head: FileHead,
    submission: Submission,
) -> Accepted:
    tenant_id = submission.tenant_id
    async with context.database.tenant_lock(tenant_id) as session:
        statements = SessionStatements(session)
        upload_id = UploadId(
            await idempotency.first_use(
                statements,
                keyed_request(form, head, file, submission=submission, keys=context.secret_keys),
                tenant_id=tenant_id,
                resource_id=received.upload_id,
            )
        )
        callback_url = form.fields.callback_url
        if upload_id == received.upload_id:
            await _complete(session, upload_id, file=file, form=form, tenant_id=tenant_id)
            passwords.keep(
                session, form.fields.password, upload_id=upload_id, keys=context.secret_keys
            )
            await finalize_upload(
                statements,
                tenant_id=tenant_id,
                request=FinalizeUpload(
                    upload_id=upload_id, sha256=file.sha256, priority=form.fields.priority
                ),
                keyed=None,
                settings=context.settings,
                # Checked before the file was read: a refusal now would waste the transmission.
                backlog=None,
                traceparent=submission.traceparent,
            )
            callback = ShownCallback(
                webhook_id=received.callback_webhook_id, secret=received.callback_secret
            )
            if callback == NO_CALLBACK:
                # The field, if the form has it, followed the file.
                callback = await register_callback(
                    context, session, upload_id, tenant_id=tenant_id, url=callback_url
                )
        else:
            callback = await earlier_callback(session, upload_id, url=callback_url)
        return await accept(session, upload_id, tenant_id=tenant_id, callback=callback)


async def _complete(
    session: AsyncSession,
    upload_id: UploadId,
    *,
    file: ChunkSplitter,
    form: Form,
    tenant_id: TenantId,
) -> None:
    """Replace the upload's size, which was an upper limit, and add the fields after the file."""
    row = await queries.upload_to_settle(session, tenant_id=tenant_id, upload_id=upload_id)
    row.size = file.size
    row.chunk_count = chunking.Plan(size=file.size, chunk_size=row.chunk_size).chunk_count
    row.client_metadata = form.fields.metadata
    row.pipeline = stored_pipeline(form.fields.pipeline)
    await session.flush()


async def _clean_up(context: Context, upload_id: UploadId, *, tenant_id: TenantId) -> None:
    """Cancel the upload of a form that was not accepted.

    If only the answer to its COMMIT was lost, the upload is finalized and stays: the
    client that retries with the same `Idempotency-Key` gets its job.
    """
    try:
        await cancel_upload(
            context, tenant_id=tenant_id, upload_id=upload_id, purge=False, unless_finalized=True
        )
    except (DomainError, SQLAlchemyError, OSError) as error:
        # The request is answered with its own error; a sweep cleans up.
        log.warning(
            "submission.not_cleaned_up", upload_id=str(upload_id), error=type(error).__name__
        )
