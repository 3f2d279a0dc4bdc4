"""Decides about a line of a batch: the upload that it becomes, or the error that ends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from schemas.api.batches import BatchLine
from schemas.api.uploads import METADATA_COUNT_MAX, stored_pipeline
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId, UploadId
from schemas.policy import open_uploads
from schemas.policy.open_uploads import UploadNotFound
from schemas.policy.quotas import Quotas, Usage
from schemas.policy.references import name_in


class TooMuchMetadata(DomainError):
    """The metadata of the line and of its batch are more than one upload may have."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, count: int) -> None:
        super().__init__(
            f"the line has {count} metadata with those of the batch, {METADATA_COUNT_MAX} are allowed"
        )


@dataclass(frozen=True, kw_only=True)
class OpenUpload:
    """An upload that a line names, locked until the transaction ends."""

    id: UploadId
    status: str
    filename: str
    content_type: str | None
    sniffed_type: str | None
    size: int
    chunk_count: int
    sha256: str | None
    expires_at: datetime
    stored: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An object of the bucket that becomes an upload."""

    object_key: str
    filename: str
    content_type: str | None
    sha256: str | None
    metadata: dict[str, str]
    pipeline: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Finalized:
    """An upload that is finalized now."""

    upload: OpenUpload
    sha256: str | None


Decision: TypeAlias = Reference | Finalized | DomainError


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """The tenant of a batch: what it may submit, and what it uses."""

    id: TenantId
    quotas: Quotas
    usage: Usage


def decide(
    line: BatchLine,
    *,
    tenant: Tenant,
    uploads: Mapping[UploadId, OpenUpload],
    metadata: Mapping[str, str],
    now: datetime,
) -> Decision:
    """Return what a line becomes, by the rules of `POST /upload-async` and of finalize.

    Args:
        line: the line.
        tenant: its owner.
        uploads: the uploads of the tenant that are still to be finalized, by id.
        metadata: those of the batch; the values of the line win.
        now: the database's time.
    """
    try:
        if line.upload_id is not None:
            return _finalized(line, line.upload_id, tenant=tenant, uploads=uploads, now=now)
        return _reference(line, tenant=tenant, metadata=metadata)
    except DomainError as error:
        return error


def _reference(line: BatchLine, *, tenant: Tenant, metadata: Mapping[str, str]) -> Reference:
    object_key = line.object_key or ""
    name = name_in(object_key, tenant_id=tenant.id)
    merged = {**metadata, **line.metadata}
    if len(merged) > METADATA_COUNT_MAX:
        raise TooMuchMetadata(len(merged))
    tenant.quotas.check_declared(line.content_type)
    # The worker that measures the object checks its size.
    tenant.quotas.check_total(tenant.usage)
    return Reference(
        object_key=object_key,
        filename=line.filename or name,
        content_type=line.content_type,
        sha256=line.sha256,
        metadata=merged,
        pipeline=stored_pipeline(line.pipeline),
    )


def _finalized(
    line: BatchLine,
    upload_id: UploadId,
    *,
    tenant: Tenant,
    uploads: Mapping[UploadId, OpenUpload],
    now: datetime,
) -> Finalized:
    upload = uploads.get(upload_id)
    if upload is None:
        raise UploadNotFound(upload_id)
    open_uploads.check_digest(upload_id, declared=upload.sha256, again=line.sha256)
    open_uploads.check_open(upload_id, status=upload.status, expires_at=upload.expires_at, now=now)
    open_uploads.check_all_stored(upload_id, stored=upload.stored, chunk_count=upload.chunk_count)
    tenant.quotas.check_size(upload.size)
    tenant.quotas.check_content(upload.sniffed_type, declared=upload.content_type)
    tenant.quotas.check_total(tenant.usage)
    return Finalized(upload=upload, sha256=upload.sha256 or line.sha256)
