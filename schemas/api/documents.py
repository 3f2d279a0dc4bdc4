"""Documents, their pages and entities."""

from datetime import datetime
from typing import Any

import msgspec

from schemas.api.jobs import JobError
from schemas.ids import DocumentId, JobId, UploadId
from schemas.lifecycle import DocumentStatus


class DocumentView(msgspec.Struct, frozen=True, kw_only=True):
    document_id: DocumentId
    upload_id: UploadId
    job_id: JobId
    status: DocumentStatus
    filename: str
    content_type: str
    size: int
    sha256: str
    page_count: int | None
    language: str | None
    truncated: bool
    metadata: dict[str, Any]
    error: JobError | None
    created_at: datetime
    ingested_at: datetime | None


class DocumentPage(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a page. If the page could not be read, `text` is empty and `error_code` is set."""

    document_id: DocumentId
    number: int
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
