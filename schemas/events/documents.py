"""Events of a stored document."""

from typing import ClassVar, TypeAlias

import msgspec

from schemas.ids import DocumentId, JobId, UploadId


class _DocumentEvent(msgspec.Struct, frozen=True, kw_only=True):
    document_id: DocumentId

    @property
    def subject(self) -> DocumentId:
        return self.document_id


class IngestedEvent(_DocumentEvent, frozen=True, kw_only=True):
    """Text, passages and entities of the document can be fetched."""

    TYPE: ClassVar[str] = "document.ingested"

    upload_id: UploadId
    job_id: JobId
    filename: str
    sha256: str
    pages: int
    passages: int
    entities: int
    language: str | None = None
    truncated: bool = False
    """Whether a limit cut the text short; the text before the limit is kept."""


class DocumentFailed(_DocumentEvent, frozen=True, kw_only=True):
    """The object is stored, but its content could not be read."""

    TYPE: ClassVar[str] = "document.failed"

    upload_id: UploadId
    job_id: JobId
    filename: str
    code: str
    detail: str


DocumentEvent: TypeAlias = IngestedEvent | DocumentFailed
