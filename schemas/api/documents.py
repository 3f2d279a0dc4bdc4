"""Documents, their pages and entities."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from schemas.api.jobs import JobError
from schemas.ids import DocumentId, JobId, UploadId
from schemas.lifecycle import DocumentStatus, PageStatus
from schemas.outcomes import Outcome, Reason


class DocumentView(msgspec.Struct, frozen=True, kw_only=True):
    document_id: DocumentId
    upload_id: UploadId
    job_id: JobId
    status: DocumentStatus
    outcome: Annotated[
        Outcome | None, msgspec.Meta(description="what the reading came to; null before")
    ]
    reasons: Annotated[
        list[Reason], msgspec.Meta(description="which pages are missing or incomplete, and why")
    ]
    revision: Annotated[
        int | None,
        msgspec.Meta(description="number of the reading that is shown; null before the first"),
    ]
    filename: str
    content_type: str
    size: int
    sha256: str
    page_count: int | None
    language: str | None
    language_confidence: float | None
    truncated: bool
    metadata: dict[str, Any]
    error: JobError | None
    created_at: datetime
    ingested_at: datetime | None


class DocumentPage(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a page. If the page could not be read, `text` is empty and `error_code` is set."""

    document_id: DocumentId
    number: int
    status: PageStatus
    outcome: Outcome
    reason: Annotated[
        str, msgspec.Meta(description="a sentence about an outcome other than `complete`")
    ]
    text: str
    error_code: str | None


class DocumentEntity(msgspec.Struct, frozen=True, kw_only=True):
    """A named entity; `start` and `end` are character offsets in the page's text."""

    page: int
    label: str
    text: str
    normal_form: str
    start: int
    end: int
