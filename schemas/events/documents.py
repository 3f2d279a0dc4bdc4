"""What happened to a stored document when it was read."""

from typing import ClassVar

import msgspec

from schemas.ids import DocumentId, JobId, UploadId


class IngestedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Text, passages and entities of a document are ready to be fetched."""

    TYPE: ClassVar[str] = "document.ingested"

    document_id: DocumentId
    upload_id: UploadId
    job_id: JobId
    filename: str
    sha256: str
    pages: int
    passages: int
    entities: int
    language: str | None = None
    truncated: bool = False
    """Whether a limit cut the text short; what was read before it is kept."""


class DocumentFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The object is stored, but its content could not be read."""

    TYPE: ClassVar[str] = "document.failed"

    document_id: DocumentId
    upload_id: UploadId
    job_id: JobId
    filename: str
    code: str
    detail: str
