"""Uploads that their client never completed."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy.orm import Session

from schemas.ids import UploadId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.tables.uploads import Chunk, Upload
from tests.factories.uploads import add_tenant

CHUNKS = 2


def add_abandoned_upload(
    session: Session,
    *,
    staging: StagingKind = StagingKind.DIRECTORY,
    expires_in: timedelta = -timedelta(minutes=1),
    status: UploadStatus = UploadStatus.OPEN,
) -> Upload:
    """Add an upload without its last chunk; the caller stages the bytes."""
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=add_tenant(session),
        status=status,
        staging=staging,
        filename="half.bin",
        size=12,
        chunk_size=4,
        chunk_count=CHUNKS + 1,
        expires_at=datetime.now(UTC) + expires_in,
    )
    session.add(upload)
    session.flush()
    session.add_all(
        Chunk(upload_id=upload.id, index=index, size=4, sha256=bytes(32)) for index in range(CHUNKS)
    )
    session.flush()
    session.expunge(upload)
    return upload
