"""What the two kinds of submission share: the head of the request, and the answer."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import SessionStatements
from gateway.uploads import queries
from gateway.uploads.shown_callback import ShownCallback
from schemas.api.jobs import JobView
from schemas.ids import TenantId, UploadId


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The tenant that submits, and the headers of its request."""

    tenant_id: TenantId
    idempotency_key: str | None
    traceparent: str | None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    job: JobView
    upload_id: UploadId
    filename: str
    callback: ShownCallback


async def accept(
    session: AsyncSession,
    upload_id: UploadId,
    *,
    tenant_id: TenantId,
    callback: ShownCallback,
) -> Accepted:
    """Return the answer to the submission of a finalized upload."""
    upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=upload_id)
    job = await queries.job_of_upload(
        SessionStatements(session), tenant_id=tenant_id, upload_id=upload_id
    )
    return Accepted(
        job=job.job,
        upload_id=upload.id,
        filename=upload.filename,
        callback=callback,
    )
