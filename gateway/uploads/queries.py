"""Reading uploads and their chunks."""

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.settings import API_PREFIX
from gateway.uploads.chunking import Plan
from schemas.api.uploads import ChunkEntry, UploadCreated, UploadManifest
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import UploadStatus
from schemas.tables.jobs import Job
from schemas.tables.uploads import Chunk, Upload


class UploadNotFound(DomainError):
    """There is no such upload, or it is another tenant's."""

    code = ErrorCode.UPLOAD_NOT_FOUND

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"there is no upload {upload_id}")


async def upload_of(session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId) -> Upload:
    """Return a tenant's upload.

    Raises:
        UploadNotFound: there is none, or none of this tenant.
    """
    return _found(await session.scalar(_by_id(tenant_id=tenant_id, upload_id=upload_id)), upload_id)


async def upload_to_extend(
    session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId
) -> Upload:
    """Return a tenant's upload as it is now, and keep others from finalizing or cancelling it.

    Chunks of one upload do not wait for each other: the row lock is shared.

    Raises:
        UploadNotFound: there is none, or none of this tenant.
    """
    query = _by_id(tenant_id=tenant_id, upload_id=upload_id).with_for_update(read=True)
    return _found(await session.scalar(query), upload_id)


async def upload_to_settle(
    session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId
) -> Upload:
    """Return a tenant's upload as it is now, locked against everybody else.

    Raises:
        UploadNotFound: there is none, or none of this tenant.
    """
    query = _by_id(tenant_id=tenant_id, upload_id=upload_id).with_for_update()
    return _found(await session.scalar(query), upload_id)


async def stored_sha256(session: AsyncSession, upload_id: UploadId, *, index: int) -> bytes | None:
    """Return the digest of a stored chunk, or None where it is not stored."""
    return await session.scalar(
        select(Chunk.sha256).where(Chunk.upload_id == upload_id, Chunk.index == index)
    )


async def job_id_of(session: AsyncSession, upload_id: UploadId) -> JobId | None:
    return await session.scalar(select(Job.id).where(Job.upload_id == upload_id))


async def job_status_of(session: AsyncSession, job_id: JobId) -> str | None:
    return await session.scalar(select(Job.status).where(Job.id == job_id))


async def manifest_of(session: AsyncSession, upload: Upload) -> UploadManifest:
    rows = await session.execute(
        select(Chunk.index, Chunk.size, Chunk.sha256)
        .where(Chunk.upload_id == upload.id)
        .order_by(Chunk.index),
    )
    chunks = [
        ChunkEntry(index=index, size=size, sha256=sha256.hex()) for index, size, sha256 in rows
    ]
    return UploadManifest(
        upload_id=upload.id,
        status=UploadStatus(upload.status),
        filename=upload.filename,
        content_type=upload.content_type,
        size=upload.size,
        chunk_size=upload.chunk_size,
        chunk_count=upload.chunk_count,
        received_bytes=sum(chunk.size for chunk in chunks),
        sha256=upload.sha256,
        metadata=upload.client_metadata,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        chunks=chunks,
    )


def plan_of(upload: Upload) -> Plan:
    return Plan(size=upload.size, chunk_size=upload.chunk_size)


def show_created(upload: Upload, *, callback_secret: str | None) -> UploadCreated:
    uploads = f"{API_PREFIX}/uploads/{upload.id}"
    return UploadCreated(
        upload_id=upload.id,
        status=UploadStatus(upload.status),
        filename=upload.filename,
        size=upload.size,
        chunk_size=upload.chunk_size,
        chunk_count=upload.chunk_count,
        expires_at=upload.expires_at,
        chunk_url_template=f"{uploads}/chunks/{{index}}",
        finalize_url=f"{API_PREFIX}/upload",
        status_url=f"{uploads}/status",
        callback_secret=callback_secret,
    )


def _by_id(*, tenant_id: TenantId, upload_id: UploadId) -> Select[Upload]:
    return (
        select(Upload)
        .where(Upload.id == upload_id, Upload.tenant_id == tenant_id)
        # Read again under a lock, the row shows what it is now.
        .execution_options(populate_existing=True)
    )


def _found(upload: Upload | None, upload_id: UploadId) -> Upload:
    if upload is None:
        raise UploadNotFound(upload_id)
    return upload
