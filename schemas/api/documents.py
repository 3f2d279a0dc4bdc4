"""What was stored, and what was read from it."""

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
    """`error_code` is set, and `text` empty, where this page could not be read."""

    document_id: DocumentId
    number: int
    text: str
    error_code: str | None


class DocumentEntity(msgspec.Struct, frozen=True, kw_only=True):
    """`start` and `end` count characters of the page's text."""

    page: int
    label: str
    text: str
    normal_form: str
    start: int
    end: int
