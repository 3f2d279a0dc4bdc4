"""Events of a stored document."""

from typing import ClassVar, TypeAlias

import msgspec

from schemas.ids import DocumentId, JobId, UploadId
from schemas.outcomes import Outcome, Reason


class _DocumentEvent(msgspec.Struct, frozen=True, kw_only=True):
    document_id: DocumentId

    @property
    def subject(self) -> DocumentId:
        return self.document_id


class ReprocessRequested(_DocumentEvent, frozen=True, kw_only=True):
    """A stored document is to be read again; only starts the steps of a job."""

    TYPE: ClassVar[str] = "document.reprocess_requested"

    upload_id: UploadId
    job_id: JobId
    filename: str
    size: int
    sha256: str
    content_type: str
    object_key: str


class IngestedEvent(_DocumentEvent, frozen=True, kw_only=True):
    """Text and entities of the document can be fetched; `outcome` says whether all of them.

    The fields with a default are missing in events of earlier versions.
    """

    TYPE: ClassVar[str] = "document.ingested"

    upload_id: UploadId
    job_id: JobId
    filename: str
    sha256: str
    pages: int
    """Pages of the document, including those beyond a limit."""
    passages: int
    """Sentences."""
    entities: int
    language: str | None = None
    language_confidence: float | None = None
    truncated: bool = False
    """Whether a limit cut the text short; the text before the limit is kept."""
    revision: int = 1
    is_superseded: bool = False
    """Whether a newer revision was published before this one; the document shows the newer one."""
    outcome: Outcome = Outcome.COMPLETE
    reasons: tuple[Reason, ...] = ()
    """Which pages are missing or incomplete, and why."""
    pages_read: int | None = None
    """Pages whose text was read, without OCR; includes pages without text."""
    pages_ocr: int = 0
    pages_failed: int = 0
    pages_needs_ocr: int = 0


class DocumentFailed(_DocumentEvent, frozen=True, kw_only=True):
    """The object is stored, but its content could not be read."""

    TYPE: ClassVar[str] = "document.failed"

    upload_id: UploadId
    job_id: JobId
    filename: str
    code: str
    detail: str
    outcome: Outcome | None = None
    """None if a fault of the system ended the job, not the document."""


DocumentEvent: TypeAlias = ReprocessRequested | IngestedEvent | DocumentFailed
