"""What happened to an upload on its way to the object store."""

from typing import ClassVar

import msgspec

from schemas.ids import DocumentId, JobId, UploadId


class UploadFinalized(msgspec.Struct, frozen=True, kw_only=True):
    """A client declared its upload complete; every byte is durable in staging.

    `size` is None where the client named an object that is in the bucket already.
    """

    TYPE: ClassVar[str] = "upload.finalized"

    upload_id: UploadId
    job_id: JobId
    filename: str
    size: int | None = None


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One verified object holds the upload's bytes; nothing of it is staged any more."""

    TYPE: ClassVar[str] = "upload.stored"

    upload_id: UploadId
    job_id: JobId
    document_id: DocumentId
    filename: str
    size: int
    sha256: str
    content_type: str
    object_key: str
    will_be_read: bool
    """Whether the document goes on to ingest; otherwise this event is the last of its job."""


class UploadFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The upload did not become an object and will not be tried again.

    Without a `job_id` it was never finalized: its time ran out.
    """

    TYPE: ClassVar[str] = "upload.failed"

    upload_id: UploadId
    job_id: JobId | None = None
    filename: str
    code: str
    detail: str


class UploadCancelled(msgspec.Struct, frozen=True, kw_only=True):
    """The client abandoned the upload; nothing of it is kept."""

    TYPE: ClassVar[str] = "upload.cancelled"

    upload_id: UploadId
    job_id: JobId | None = None
    filename: str
