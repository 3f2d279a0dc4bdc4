"""Submits an object that is already in the bucket, by its key."""

from typing import Final
from uuid import uuid4

from sqlalchemy import func

from gateway.context import Context
from gateway.db import SessionStatements, transaction_time
from gateway.http import idempotency
from gateway.http.idempotency import KeyedRequest
from gateway.uploads import passwords, quotas
from gateway.uploads.create import earlier_callback, register_callback
from gateway.uploads.finalize import FinalizedUpload, add_job
from gateway.uploads.oneshot.submission import Accepted, Submission, accept
from schemas import object_keys
from schemas.api.submissions import SubmitReference
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import Priority, StagingKind, UploadStatus
from schemas.tables.uploads import Upload

KEY_BYTES_MAX: Final = 1024
"""Limit of S3 for the key of an object."""

FORBIDDEN_PARTS: Final = frozenset({"", ".", ".."})


class ReferenceRefused(DomainError):
    """The tenant may not submit the named object."""

    code = ErrorCode.REFERENCE_REFUSED


async def submit_reference(
    context: Context, reference: SubmitReference, *, submission: Submission
) -> Accepted:
    """Create an upload and its job for an object in the bucket.

    The worker checks whether the object exists, and measures it.

    Raises:
        ReferenceRefused: the key is outside the tenant's prefix or malformed.
        TypeNotAllowed, QuotaExceeded: the quotas forbid it.
        TooManyWaiting, SystemBusy: too many steps wait.
        IdempotencyKeyReused: the key is bound to another request.
        TargetRefused: the callback URL is not allowed.
    """
    tenant_id, settings = submission.tenant_id, context.settings
    name = name_in(reference.object_key, tenant_id=tenant_id)
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
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
        expires_at=func.now(),
    )
    keyed = KeyedRequest.of(
        submission.idempotency_key,
        operation="submit_reference",
        request=passwords.hashable(reference, keys=context.secret_keys),
    )
    async with context.database.tenant_lock(tenant_id) as session:
        statements = SessionStatements(session)
        upload_id = UploadId(
            await idempotency.first_use(
                statements, keyed, tenant_id=tenant_id, resource_id=upload.id
            )
        )
        if upload_id == upload.id:
            await quotas.check_reference(
                statements,
                tenant_id=tenant_id,
                content_type=reference.content_type,
                settings=settings,
            )
            session.add(upload)
            await session.flush()
            passwords.keep(
                session, reference.password, upload_id=upload.id, keys=context.secret_keys
            )
            await add_job(
                statements,
                FinalizedUpload(
                    id=upload.id,
                    tenant_id=tenant_id,
                    filename=upload.filename,
                    content_type=upload.content_type,
                    sniffed_type=None,
                    sha256=upload.sha256,
                    size=None,
                ),
                job_id=JobId(uuid4()),
                priority=reference.priority or Priority.INTERACTIVE,
                settings=settings,
                backlog=context.backlog,
                traceparent=submission.traceparent,
                now=await transaction_time(session),
            )
            callback = await register_callback(
                context, session, upload.id, tenant_id=tenant_id, url=reference.callback_url
            )
        else:
            callback = await earlier_callback(session, upload_id, url=reference.callback_url)
        return await accept(session, upload_id, tenant_id=tenant_id, callback=callback)


def name_in(object_key: str, *, tenant_id: TenantId) -> str:
    """Return the last part of the key of an object that the tenant may submit.

    Raises:
        ReferenceRefused: the tenant may not submit this object.
    """
    prefix = object_keys.incoming(tenant_id)
    if not object_key.startswith(prefix):
        raise ReferenceRefused(f"the object must be under {prefix}")
    parts = object_key.removeprefix(prefix).split("/")
    if not FORBIDDEN_PARTS.isdisjoint(parts):
        raise ReferenceRefused("the key has an empty part, or one that is '.' or '..'")
    if not object_key.isprintable() or len(object_key.encode()) > KEY_BYTES_MAX:
        raise ReferenceRefused(f"a key has at most {KEY_BYTES_MAX} bytes and no control characters")
    return parts[-1]
