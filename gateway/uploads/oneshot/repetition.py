"""Answers a form whose `Idempotency-Key` is already used."""

import msgspec

from gateway.context import Context
from gateway.db import SessionStatements
from gateway.http import idempotency
from gateway.http.idempotency import KeyedRequest, KeyForgotten
from gateway.uploads import passwords
from gateway.uploads.create import earlier_callback
from gateway.uploads.oneshot.form import FileHead, Form
from gateway.uploads.oneshot.splitter import ChunkSplitter
from gateway.uploads.oneshot.submission import Accepted, Submission, accept
from schemas.api.uploads import RequestedPipeline
from schemas.ids import UploadId
from schemas.key_ring import KeyRing
from schemas.lifecycle import Priority


class FormContent(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the client chose in a form; a repetition of the form has equal content."""

    filename: str
    content_type: str | None
    sha256: str
    callback_url: str | None
    priority: Priority | msgspec.UnsetType
    # Unset is not encoded: without metadata and password, the content equals that of earlier
    # versions.
    metadata: dict[str, str] | msgspec.UnsetType
    password: str | msgspec.UnsetType
    """Signed, see `passwords.signed`."""
    pipeline: RequestedPipeline


def keyed_request(
    form: Form, head: FileHead, file: ChunkSplitter, *, submission: Submission, keys: KeyRing
) -> KeyedRequest | None:
    """Bind the key to the content of the form, which is known only at its end."""
    return KeyedRequest.of(
        submission.idempotency_key,
        operation="submit_file",
        request=FormContent(
            filename=head.filename,
            content_type=head.content_type,
            sha256=file.sha256,
            callback_url=form.fields.callback_url,
            priority=form.fields.priority,
            metadata=form.fields.metadata or msgspec.UNSET,
            password=passwords.signed(form.fields.password, keys=keys),
            pipeline=form.fields.pipeline,
        ),
    )


async def is_repeated(context: Context, *, submission: Submission) -> bool:
    if submission.idempotency_key is None:
        return False
    return await idempotency.is_used(
        context.autocommit, submission.idempotency_key, tenant_id=submission.tenant_id
    )


async def answer_again(
    context: Context, form: Form, head: FileHead, *, submission: Submission
) -> Accepted:
    """Read a repeated form to its end, compare it with the first form, and store nothing.

    Raises:
        IdempotencyKeyReused: the form is not the one that the key is bound to.
        KeyForgotten: the key expired meanwhile.
    """
    file = ChunkSplitter(form.file(), chunk_bytes=1)
    await file.skip_rest()
    await form.rest()
    async with context.database.transaction() as session:
        upload_id = await idempotency.earlier_use(
            SessionStatements(session),
            keyed_request(form, head, file, submission=submission, keys=context.secret_keys),
            tenant_id=submission.tenant_id,
        )
        if upload_id is None:
            raise KeyForgotten
        callback = await earlier_callback(
            session, UploadId(upload_id), url=form.fields.callback_url
        )
        return await accept(
            session, UploadId(upload_id), tenant_id=submission.tenant_id, callback=callback
        )
