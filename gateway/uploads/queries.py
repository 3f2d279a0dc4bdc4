"""Reads uploads and their chunks, and records a chunk.

The statements of the chunk path are plain SQL, each a whole transaction in one
round trip: they are half of the cost of a small chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import SessionStatements, Statements
from gateway.job_watch import Snapshot
from gateway.jobs import queries as job_queries
from gateway.settings import API_PREFIX
from gateway.staging import StagedUpload
from gateway.uploads.errors import NotFinalized
from gateway.uploads.new_upload import NewUpload
from gateway.uploads.shown_callback import ShownCallback
from schemas.api.uploads import ChunkEntry, UploadCreated, UploadManifest
from schemas.ids import TenantId, UploadId, WebhookId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.policy.open_uploads import UploadNotFound
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload

STAGED: Final[LiteralString] = """
    SELECT size, chunk_size, staging FROM uploads
    WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
"""

STATUS: Final[LiteralString] = """
    SELECT status FROM uploads WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
"""

LOCK_UPLOAD: Final[LiteralString] = """
    SELECT id, tenant_id, status, filename, content_type, size, chunk_count, sha256, sniffed_type,
           staging, expires_at, now() AS now
    FROM uploads WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
    FOR UPDATE
"""

CHUNKS: Final[LiteralString] = """
    SELECT index, size, sha256, crc32c FROM chunks WHERE upload_id = %(upload_id)s ORDER BY index
"""

JOB_ID: Final[LiteralString] = "SELECT id FROM jobs WHERE upload_id = %(upload_id)s"

CHUNK_STATE: Final[LiteralString] = """
    SELECT uploads.status, uploads.expires_at, now() AS read_at, chunks.sha256
    FROM uploads LEFT JOIN chunks ON chunks.upload_id = uploads.id AND chunks.index = %(index)s
    WHERE uploads.id = %(upload_id)s AND uploads.tenant_id = %(tenant_id)s
"""

# The lock keeps the upload from being finalized or cancelled until the row is committed.
# The lock is shared, so that chunks of one upload do not wait for each other.
RECORD_CHUNK: Final[LiteralString] = """
    INSERT INTO chunks (upload_id, index, size, sha256, crc32c)
    SELECT id, %(index)s, %(size)s, %(sha256)s, %(crc32c)s FROM uploads
    WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
      AND status = 'open' AND expires_at > now()
    FOR SHARE
    ON CONFLICT DO NOTHING
    RETURNING index
"""

# The first chunk also sets the sniffed type, so this statement takes the stronger lock at once: two
# requests that upgraded a shared lock would deadlock.
RECORD_FIRST_CHUNK: Final[LiteralString] = """
    WITH recorded AS (
        INSERT INTO chunks (upload_id, index, size, sha256, crc32c)
        SELECT id, %(index)s, %(size)s, %(sha256)s, %(crc32c)s FROM uploads
        WHERE id = %(upload_id)s AND tenant_id = %(tenant_id)s
          AND status = 'open' AND expires_at > now()
        FOR NO KEY UPDATE
        ON CONFLICT DO NOTHING
        RETURNING upload_id, index
    )
    UPDATE uploads SET sniffed_type = %(sniffed_type)s
    FROM recorded WHERE uploads.id = recorded.upload_id
    RETURNING recorded.index
"""


@dataclass(frozen=True, kw_only=True)
class StoredChunk:
    """A recorded chunk; rows written by older versions have no crc32c."""

    index: int
    size: int
    sha256: bytes
    crc32c: bytes | None


@dataclass(frozen=True, kw_only=True)
class ChunkState:
    """The state of an upload and one of its chunks, read together.

    Attributes:
        read_at: the database's time of the read, which decides whether the upload has expired.
        stored_sha256: sha256 of the chunk; None if the chunk is not recorded.
    """

    status: str
    expires_at: datetime
    read_at: datetime
    stored_sha256: bytes | None


async def upload_of(session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId) -> Upload:
    """Return a tenant's upload.

    Raises:
        UploadNotFound: the tenant has no such upload.
    """
    return await _one(session, _by_id(tenant_id=tenant_id, upload_id=upload_id), upload_id)


async def upload_to_settle(
    session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId
) -> Upload:
    """Return a tenant's upload in its current state, locked until the transaction ends.

    The lock is that of `LOCK_OF_UPLOAD`.

    Raises:
        UploadNotFound: the tenant has no such upload.
    """
    query = _by_id(tenant_id=tenant_id, upload_id=upload_id).with_for_update(key_share=True)
    return await _one(session, query, upload_id)


async def staged_upload(
    connection: Statements, *, tenant_id: TenantId, upload_id: UploadId
) -> StagedUpload:
    """Return the facts of a tenant's upload that never change.

    Raises:
        UploadNotFound: the tenant has no such upload.
    """
    found = await connection.first_row(STAGED, {"tenant_id": tenant_id, "upload_id": upload_id})
    if found is None:
        raise UploadNotFound(upload_id)
    return StagedUpload(
        id=upload_id,
        tenant_id=tenant_id,
        size=found.size,
        chunk_size=found.chunk_size,
        kind=StagingKind(found.staging),
    )


async def chunk_state(connection: Statements, upload: StagedUpload, *, index: int) -> ChunkState:
    """Return the state of an upload and one of its chunks.

    Raises:
        UploadNotFound: the upload is deleted.
    """
    values = {"tenant_id": upload.tenant_id, "upload_id": upload.id, "index": index}
    found = await connection.first_row(CHUNK_STATE, values)
    if found is None:
        raise UploadNotFound(upload.id)
    return ChunkState(
        status=found.status,
        expires_at=found.expires_at,
        read_at=found.read_at,
        stored_sha256=found.sha256,
    )


async def record_chunk(
    connection: Statements,
    upload: StagedUpload,
    chunk: StoredChunk,
    *,
    sniffed_type: str | None,
) -> bool:
    """Record a chunk; False if its upload is not open, has expired, or has the chunk already.

    Args:
        connection: runs the statement.
        upload: the upload of the chunk.
        chunk: the chunk to record.
        sniffed_type: media type found in the first bytes; kept only for the first chunk.
    """
    values = {
        "tenant_id": upload.tenant_id,
        "upload_id": upload.id,
        "index": chunk.index,
        "size": chunk.size,
        "sha256": chunk.sha256,
        "crc32c": chunk.crc32c,
    }
    if chunk.index == 0:
        recorded = await connection.first_row(
            RECORD_FIRST_CHUNK, values | {"sniffed_type": sniffed_type}
        )
    else:
        recorded = await connection.first_row(RECORD_CHUNK, values)
    return recorded is not None


async def stored_chunks(statements: Statements, upload_id: UploadId) -> list[StoredChunk]:
    """Return the chunks of an upload that are on record, in order."""
    return chunks_of(await statements.rows(CHUNKS, {"upload_id": upload_id}))


def chunks_of(rows: Sequence[Any]) -> list[StoredChunk]:
    """Return the chunks that the rows of `CHUNKS` describe."""
    return [
        StoredChunk(index=row.index, size=row.size, sha256=row.sha256, crc32c=row.crc32c)
        for row in rows
    ]


async def job_row_of(session: AsyncSession, upload_id: UploadId) -> Job | None:
    return await session.scalar(select(Job).where(Job.upload_id == upload_id))


async def job_of_upload(
    statements: Statements, *, tenant_id: TenantId, upload_id: UploadId
) -> Snapshot:
    """Return the job of a finalized upload.

    Raises:
        UploadNotFound: the tenant has no such upload.
        NotFinalized: the upload has no job.
    """
    values = {"tenant_id": tenant_id, "upload_id": upload_id}
    job = await job_queries.job_of_upload(statements, tenant_id=tenant_id, upload_id=upload_id)
    if job is None:
        upload = await statements.first_row(STATUS, values)
        if upload is None:
            raise UploadNotFound(upload_id)
        raise NotFinalized(upload_id, status=upload.status)
    return job


async def manifest_of(
    session: AsyncSession, upload: Upload, *, callback: WebhookId | None
) -> UploadManifest:
    chunks = [
        ChunkEntry(index=chunk.index, size=chunk.size, sha256=chunk.sha256.hex())
        for chunk in await stored_chunks(SessionStatements(session), upload.id)
    ]
    return UploadManifest(
        upload_id=upload.id,
        status=upload.status,
        filename=upload.filename,
        content_type=upload.content_type,
        size=upload.size,
        chunk_size=upload.chunk_size,
        chunk_count=upload.chunk_count,
        # The chunks of a stored upload are deleted with its job.
        received_bytes=upload.size
        if upload.status is UploadStatus.STORED
        else sum(chunk.size for chunk in chunks),
        sha256=upload.sha256,
        metadata=upload.client_metadata,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        callback_webhook_id=callback,
        chunks=chunks,
    )


def show_created(
    upload: Upload | NewUpload,
    *,
    status: UploadStatus,
    expires_at: datetime,
    callback: ShownCallback,
) -> UploadCreated:
    uploads = f"{API_PREFIX}/uploads/{upload.id}"
    return UploadCreated(
        upload_id=upload.id,
        status=status,
        filename=upload.filename,
        size=upload.size,
        chunk_size=upload.chunk_size,
        chunk_count=upload.chunk_count,
        expires_at=expires_at,
        chunk_url_template=f"{uploads}/chunks/{{index}}",
        finalize_url=f"{API_PREFIX}/upload",
        status_url=f"{uploads}/status",
        callback_secret=callback.secret,
        callback_webhook_id=callback.webhook_id,
    )


def _by_id(*, tenant_id: TenantId, upload_id: UploadId) -> Select[Upload]:
    return (
        select(Upload)
        .where(Upload.id == upload_id, Upload.tenant_id == tenant_id)
        # A row that is read again under a lock replaces the row in the session.
        .execution_options(populate_existing=True)
    )


async def _one(session: AsyncSession, query: Select[Upload], upload_id: UploadId) -> Upload:
    upload = await session.scalar(query)
    if upload is None:
        raise UploadNotFound(upload_id)
    return upload
