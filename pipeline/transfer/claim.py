"""A claimed transfer: the step, and everything about its upload that the worker needs."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.steps.lease import ClaimedStep
from pipeline.transfer.checks import Chunk
from pipeline.transfer.resume import Checkpoint
from schemas import object_keys
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.object_keys import ObjectKey
from schemas.tables import uploads as rows
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload


class UnknownUpload(DomainError):
    """The event names an upload that its job does not have."""

    code = ErrorCode.UPLOAD_NOT_FOUND

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"the job has no upload {upload_id}")


@dataclass(frozen=True, kw_only=True)
class ClaimedTransfer:
    """An upload that only this worker may send until the lease of its step expires."""

    step: ClaimedStep
    upload_id: UploadId
    staging: StagingKind
    source_key: ObjectKey | None
    """The object to copy, if `staging` is a reference."""
    filename: str
    declared_content_type: str | None
    declared_sha256: str | None
    size: int
    chunk_size: int
    chunks: tuple[Chunk, ...]
    object_key: ObjectKey
    multipart_id: str | None
    """Recorded before the first part is sent, so that the next worker finds the parts."""
    checkpoint: Checkpoint | None
    """Recorded by an earlier delivery; belongs to `multipart_id`."""
    bytes_done: int
    """Bytes that earlier deliveries stored."""

    @property
    def tenant_id(self) -> TenantId:
        return self.step.tenant_id

    @property
    def job_id(self) -> JobId:
        return self.step.job_id


def load(session: Session, claimed: ClaimedStep, *, upload_id: UploadId) -> ClaimedTransfer:
    """Return the upload of a claimed step.

    Raises:
        UnknownUpload: the job has no such upload.
    """
    upload = session.scalar(
        select(Upload)
        .join(Job, Job.upload_id == Upload.id)
        .where(Upload.id == upload_id, Job.id == claimed.job_id)
    )
    if upload is None:
        raise UnknownUpload(upload_id)
    multipart_id, checkpoint = decode_checkpoint(claimed.checkpoint)
    return ClaimedTransfer(
        step=claimed,
        upload_id=upload_id,
        staging=upload.staging,
        source_key=ObjectKey(upload.source_key) if upload.source_key is not None else None,
        filename=upload.filename,
        declared_content_type=upload.content_type,
        declared_sha256=upload.sha256,
        size=upload.size,
        chunk_size=upload.chunk_size,
        chunks=_chunks(session, upload_id),
        object_key=object_keys.original(upload.tenant_id, upload_id),
        multipart_id=multipart_id,
        checkpoint=checkpoint,
        bytes_done=claimed.done,
    )


def encode_checkpoint(
    multipart_id: str | None, checkpoint: Checkpoint | None
) -> dict[str, Any] | None:
    """Return the checkpoint of the step; None if there is nothing to resume."""
    recorded: dict[str, Any] = {}
    if multipart_id is not None:
        recorded["multipart_id"] = multipart_id
    if checkpoint is not None:
        recorded["digested_bytes"] = checkpoint.digested_bytes
        recorded["digest_state"] = base64.b64encode(checkpoint.state).decode()
    return recorded or None


def decode_checkpoint(recorded: Mapping[str, Any] | None) -> tuple[str | None, Checkpoint | None]:
    """Return the multipart upload and the digest state; a damaged state counts as absent."""
    if recorded is None:
        return None, None
    try:
        state = base64.b64decode(recorded["digest_state"], validate=True)
        checkpoint = Checkpoint(int(recorded["digested_bytes"]), state)
    except (KeyError, TypeError, ValueError, binascii.Error):
        checkpoint = None
    return recorded.get("multipart_id"), checkpoint


def _chunks(session: Session, upload_id: UploadId) -> tuple[Chunk, ...]:
    found = session.execute(
        select(rows.Chunk.index, rows.Chunk.size, rows.Chunk.sha256, rows.Chunk.crc32c)
        .where(rows.Chunk.upload_id == upload_id)
        .order_by(rows.Chunk.index),
    )
    return tuple(
        Chunk(index=index, size_bytes=size, sha256=sha256, crc32c=crc32c)
        for index, size, sha256, crc32c in found
    )
