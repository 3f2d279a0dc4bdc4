"""Events of an upload, from finalize until its bytes are one object."""

from typing import ClassVar, TypeAlias

import msgspec

from schemas.ids import DocumentId, JobId, UploadId


class _UploadEvent(msgspec.Struct, frozen=True, kw_only=True):
    upload_id: UploadId

    @property
    def subject(self) -> UploadId:
        return self.upload_id


class UploadFinalized(_UploadEvent, frozen=True, kw_only=True):
    """The client finalized the upload; every byte is durable in staging.

    `size` is None for an upload by reference: its object is in the bucket and was not measured yet.
    """

    TYPE: ClassVar[str] = "upload.finalized"

    job_id: JobId
    filename: str
    size: int | None = None


class StoredEvent(_UploadEvent, frozen=True, kw_only=True):
    """The upload's bytes are stored as one verified object."""

    TYPE: ClassVar[str] = "upload.stored"

    job_id: JobId
    document_id: DocumentId
    filename: str
    size: int
    sha256: str
    content_type: str
    object_key: str
    will_be_read: bool
    """Whether ingest follows; if not, this event is the last of its job."""


class UploadFailed(_UploadEvent, frozen=True, kw_only=True):
    """The upload failed for good: there is no object, and no attempt follows.

    `job_id` is None for an upload that expired before it was finalized.
    """

    TYPE: ClassVar[str] = "upload.failed"

    job_id: JobId | None = None
    filename: str
    code: str
    detail: str


class UploadCancelled(_UploadEvent, frozen=True, kw_only=True):
    """The client cancelled the upload; none of its bytes are kept."""

    TYPE: ClassVar[str] = "upload.cancelled"

    job_id: JobId | None = None
    filename: str


UploadEvent: TypeAlias = UploadFinalized | StoredEvent | UploadFailed | UploadCancelled
