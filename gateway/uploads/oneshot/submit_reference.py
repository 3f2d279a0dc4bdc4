"""Submits an object that is already in the bucket, by its key."""

from uuid import uuid4

from gateway.context import Context
from gateway.db import SessionStatements, transaction_time
from gateway.http import idempotency
from gateway.http.idempotency import KeyedRequest
from gateway.uploads import passwords, quotas
from gateway.uploads.create import earlier_callback, register_callback
from gateway.uploads.finalize import FinalizedUpload, add_job
from gateway.uploads.oneshot.submission import Accepted, Submission, accept
from schemas.api.submissions import SubmitReference
from schemas.api.uploads import stored_pipeline
from schemas.ids import JobId, UploadId
from schemas.lifecycle import Priority
from schemas.policy.references import name_in
from schemas.tables.uploads import a_reference


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
    upload = a_reference(
        UploadId(uuid4()),
        tenant_id=tenant_id,
        object_key=reference.object_key,
        filename=reference.filename or name,
        content_type=reference.content_type,
        sha256=reference.sha256,
        metadata=reference.metadata,
        pipeline=stored_pipeline(reference.pipeline),
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
