"""Documents, their pages and entities."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from schemas.api.jobs import JobError
from schemas.api.uploads import RequestedPassword, RequestedPipeline, RequestedPriority
from schemas.ids import DocumentId, JobId, UploadId
from schemas.lifecycle import (
    DocumentStatus,
    PageStatus,
    PassageKind,
    ScanState,
    SearchState,
    TablesState,
)
from schemas.outcomes import Outcome, Reason
from schemas.spans import SpanKind


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


Offset = Annotated[int, _described("in characters of the page's text")]


class MalwareScan(msgspec.Struct, frozen=True, kw_only=True):
    """The malware scan of a stored file."""

    state: Annotated[
        ScanState,
        _described(
            "`off` for a file that was stored while scans were not set up; a file in the states `pending`, `infected` and `unscannable` is neither read nor served"
        ),
    ]
    signature: Annotated[str | None, _described("the name of what was found")]
    scanned_at: Annotated[datetime | None, _described("end of the last whole scan")]


class DocumentView(msgspec.Struct, frozen=True, kw_only=True):
    """A stored file, and the reading of it that is shown.

    While the first reading runs, page count, language, title and metadata are shown as soon as they
    are known.
    """

    document_id: DocumentId
    upload_id: UploadId
    job_id: Annotated[JobId, _described("the job that stored the file")]
    status: DocumentStatus
    outcome: Annotated[Outcome | None, _described("what the reading came to; null before")]
    reasons: Annotated[list[Reason], _described("which pages are missing or incomplete, and why")]
    revision: Annotated[
        int | None, _described("number of the reading that is shown; null before the first")
    ]
    filename: str
    content_type: str
    size: int
    sha256: str
    page_count: Annotated[
        int | None, _described("of the file, with pages beyond a limit; null until it is known")
    ]
    pages_read: Annotated[int, _described("read without OCR, also those without text")]
    pages_ocr: Annotated[int, _described("read by OCR")]
    pages_failed: int
    pages_needs_ocr: Annotated[int, _described("pictures of text that OCR has not read")]
    pages_no_text: Annotated[int, _described("read, and without text")]
    language: Annotated[str | None, _described("ISO 639-1; null if it is not clear")]
    language_confidence: Annotated[float | None, _described("0 to 1")]
    title: str | None
    key_phrases: list[str]
    truncated: Annotated[bool, _described("whether a limit cut the text short")]
    warnings: Annotated[int, _described("defects of the file that were repaired or skipped")]
    metadata: Annotated[dict[str, Any], _described("what the document says about itself")]
    malware_scan: MalwareScan
    tables: Annotated[
        TablesState | None,
        _described(
            "how far the search for tables and figures is; null before the end of the reading, and"
            " for a format without tables"
        ),
    ]
    tables_reasons: Annotated[
        list[Reason], _described("the pages some or all of whose tables are missing, and why")
    ]
    table_count: Annotated[int, _described("tables found so far")]
    figure_count: Annotated[int, _described("figures found so far")]
    search: Annotated[
        SearchState | None,
        _described(
            "`words`: search finds the pages by their words alone; `complete`: by their meaning too;"
            " `pending`: by their words until the vectors are made; `failed`: they could not be made."
            " Null before the pages are shown, and for a document of an earlier version that search"
            " does not find yet"
        ),
    ]
    error: JobError | None
    created_at: datetime
    ingested_at: datetime | None


class TextRange(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a page's text: its first character, and the one after its last."""

    start: Offset
    end: Offset


class PageSpan(TextRange, frozen=True, kw_only=True):
    """A marked part of a page's text."""

    kind: SpanKind


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A place on a page as displayed, in 1/72 inch from its upper left corner."""

    left: int
    top: int
    right: int
    bottom: int


class PageLine(TextRange, frozen=True, kw_only=True):
    """A line whose place on the page is known."""

    box: Box


class DocumentPage(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a page. If the page could not be read, `text` is empty and `error_code` is set."""

    document_id: DocumentId
    number: int
    label: Annotated[str | None, _described("the number printed on the page, such as `iv`")]
    status: PageStatus
    outcome: Outcome
    reason: Annotated[str, _described("a sentence about an outcome other than `complete`")]
    text: str
    error_code: str | None
    engine: Annotated[str, _described("what read the page, such as `pdfium`; may be empty")]
    engine_version: str
    engine_reason: Annotated[
        str, _described("why this engine and not the default one; empty for the default")
    ]
    confidence: Annotated[float | None, _described("of OCR, 0 to 1; null for other text")]
    language: str | None
    language_confidence: float | None
    width_points: float | None
    height_points: float | None
    spans: Annotated[list[PageSpan], _described("running headers, form values, annotations")]
    sentences: Annotated[
        list[TextRange] | msgspec.UnsetType, _described("only with `include=sentences`")
    ] = msgspec.UNSET
    lines: Annotated[
        list[PageLine] | msgspec.UnsetType, _described("only with `include=lines`")
    ] = msgspec.UNSET


class DocumentEntity(msgspec.Struct, frozen=True, kw_only=True):
    """A named entity; `start` and `end` are character offsets in the page's text."""

    page: int
    label: str
    text: str
    normal_form: str
    start: int
    end: int
    box: Annotated[
        Box | None, _described("around the lines with the entity; null if their place is unknown")
    ]


class DocumentPassage(TextRange, frozen=True, kw_only=True):
    """Some neighbouring sentences of a page, or some rows of a table: what search finds."""

    page: int
    ordinal: Annotated[
        int, _described("orders the passages of a page; those of tables have the highest")
    ]
    kind: PassageKind
    table: Annotated[
        int | None, _described("number of the table in `…/tables/{number}`; null for text")
    ]
    text: str
    language: Annotated[str | None, _described("of the page, ISO 639-1; null if it is not clear")]
    tokens: Annotated[int, _described("estimated")]


class OutlineEntry(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    level: Annotated[int, _described("from 0")]
    page: Annotated[int | None, _described("null if the entry leads to no page")] = None


class DocumentOutline(msgspec.Struct, frozen=True, kw_only=True):
    document_id: DocumentId
    items: Annotated[
        list[OutlineEntry] | None, _described("in the order of the document; null until it is read")
    ]
    is_cut: Annotated[bool, _described("whether entries are left out")]


class DocumentAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file inside the document; its bytes are not kept apart."""

    name: str
    size_bytes: int | None = None
    media_type: str | None = None
    description: str | None = None


class DocumentAttachments(msgspec.Struct, frozen=True, kw_only=True):
    document_id: DocumentId
    items: Annotated[list[DocumentAttachment] | None, _described("null until they are read")]
    is_cut: Annotated[bool, _described("whether entries are left out")]


class ReprocessDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reads a document again; a request without a body suffices."""

    priority: RequestedPriority = msgspec.UNSET
    password: RequestedPassword = msgspec.UNSET
    pipeline: Annotated[
        RequestedPipeline, _described("for this reading; by default that of the upload")
    ] = msgspec.UNSET
