"""Reading uploads and their chunks, and putting a chunk on record.

What every chunk needs is written as plain statements, each a transaction of
its own in one round trip: they are half of what a small chunk costs.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import AutocommitConnection
from gateway.settings import API_PREFIX
from gateway.staging import StagedUpload
from gateway.uploads.chunking import Plan
from schemas.api.uploads import ChunkEntry, UploadCreated, UploadManifest
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobStatus, StagingKind
from schemas.tables.jobs import Job
from schemas.tables.uploads import Chunk, Upload

STAGED: Final[LiteralString] = """
    SELECT size, chunk_size, staging FROM uploads
    WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
"""

CHUNK: Final[LiteralString] = """
    SELECT uploads.status, uploads.expires_at, chunks.sha256
    FROM uploads LEFT JOIN chunks ON chunks.upload_id = uploads.id AND chunks.index = %(index)s
    WHERE uploads.id = %(upload_id)s AND uploads.tenant_id = %(tenant_id)s
"""

# The lock keeps others from finalizing or cancelling the upload until the row is committed.
# It is shared, so that chunks of one upload do not wait for each other.
RECORD_CHUNK: Final[LiteralString] = """
    INSERT INTO chunks (upload_id, index, size, sha256, crc32c)
    SELECT id, %(index)s, %(size)s, %(sha256)s, %(crc32c)s FROM uploads
    WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
      AND status = 'open' AND expires_at > %(now)s
    FOR SHARE
    ON CONFLICT DO NOTHING
    RETURNING index
"""

# The first chunk also tells the type. It takes the lock for that from the start: two
# requests that both had the shared one and wanted more would wait for each other for ever.
RECORD_FIRST_CHUNK: Final[LiteralString] = """
    WITH recorded AS (
        INSERT INTO chunks (upload_id, index, size, sha256, crc32c)
        SELECT id, %(index)s, %(size)s, %(sha256)s, %(crc32c)s FROM uploads
        WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
          AND status = 'open' AND expires_at > %(now)s
        FOR NO KEY UPDATE
        ON CONFLICT DO NOTHING
        RETURNING upload_id, index
    )
    UPDATE uploads SET sniffed_type = %(sniffed_type)s
    FROM recorded WHERE uploads.id = recorded.upload_id
    RETURNING recorded.index
"""


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


async def upload_to_settle(
    session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId
) -> Upload:
    """Return a tenant's upload as it is now, locked against everybody else.

    Raises:
        UploadNotFound: there is none, or none of this tenant.
    """
    query = _by_id(tenant_id=tenant_id, upload_id=upload_id).with_for_update()
    return _found(await session.scalar(query), upload_id)


async def staged_upload(
    statements: AutocommitConnection, *, tenant_id: TenantId, upload_id: UploadId
) -> StagedUpload:
    """Return what never changes of a tenant's upload.

    Raises:
        UploadNotFound: there is none, or none of this tenant.
    """
    found = await statements.first_row(STAGED, {"tenant_id": tenant_id, "upload_id": upload_id})
    if found is None:
        raise UploadNotFound(upload_id)
    return StagedUpload(
        id=upload_id,
        tenant_id=tenant_id,
        size=found.size,
        chunk_size=found.chunk_size,
        kind=StagingKind(found.staging),
    )


@dataclass(frozen=True, kw_only=True)
class Look:
    """An upload and one of its chunks, as both were at one moment."""

    status: str
    expires_at: datetime
    stored: bytes | None
    """The sha256 of the chunk, where it is on record."""


async def look_at_chunk(
    statements: AutocommitConnection, upload: StagedUpload, *, index: int
) -> Look:
    """Return how things stand with a chunk.

    Raises:
        UploadNotFound: the upload is there no more.
    """
    values = {"tenant_id": upload.tenant_id, "upload_id": upload.id, "index": index}
    found = await statements.first_row(CHUNK, values)
    if found is None:
        raise UploadNotFound(upload.id)
    return Look(status=found.status, expires_at=found.expires_at, stored=found.sha256)


async def record_chunk(
    statements: AutocommitConnection,
    upload: StagedUpload,
    *,
    index: int,
    size: int,
    sha256: bytes,
    crc32c: bytes,
    sniffed_type: str | None,
    now: datetime,
) -> bool:
    """Put a chunk on record while its upload is open; say whether this call did.

    It did not where the upload is no longer open, or the chunk is on record already.
    """
    values = {
        "tenant_id": upload.tenant_id,
        "upload_id": upload.id,
        "index": index,
        "size": size,
        "sha256": sha256,
        "crc32c": crc32c,
        "now": now,
    }
    if index == 0:
        recorded = await statements.first_row(
            RECORD_FIRST_CHUNK, values | {"sniffed_type": sniffed_type}
        )
    else:
        recorded = await statements.first_row(RECORD_CHUNK, values)
    return recorded is not None


async def job_id_of(session: AsyncSession, upload_id: UploadId) -> JobId | None:
    return await session.scalar(select(Job.id).where(Job.upload_id == upload_id))


async def job_status_of(session: AsyncSession, job_id: JobId) -> JobStatus | None:
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
        status=upload.status,
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
        status=upload.status,
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
