"""Exports: files with the rows of a query."""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from schemas.api.filters import Metadata, Time, text
from schemas.api.jobs import JobError
from schemas.api.uploads import Sha256Hex
from schemas.ids import BatchId, DocumentId, ExportId, JobId, WebhookId
from schemas.lifecycle import ExportFormat, ExportKind, JobKind, JobStatus, Priority
from schemas.outcomes import Outcome
from schemas.steps import JobStage

COLUMNS_MAX = 50


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class ExportFilter(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Which rows an export has: those that all its filters select; without one, all of the tenant.

    Each kind has the filters of its list. Sentences and entities are selected by their documents.
    """

    status: Annotated[
        Annotated[str, text(32)] | None,
        _described("status of the document, the job or the delivery"),
    ] = None
    document_id: Annotated[DocumentId | None, _described("not for jobs and deliveries")] = None
    outcome: Annotated[Outcome | None, _described("of the document")] = None
    language: Annotated[
        Annotated[str, text(16)] | None, _described("of the document, such as `de`")
    ] = None
    content_type: Annotated[
        Annotated[str, text(255)] | None,
        _described("of the document; parameters are not compared"),
    ] = None
    sha256: Annotated[Sha256Hex | None, _described("of the document's file")] = None
    filename_prefix: Annotated[
        Annotated[str, text(1024)] | None, _described("begin of the name of the document's file")
    ] = None
    metadata: Annotated[
        Metadata | None, _described("names and values of the upload's metadata")
    ] = None
    label: Annotated[
        Annotated[str, text(64)] | None, _described("of entities, such as `PERSON`")
    ] = None
    kind: Annotated[JobKind | None, _described("of jobs")] = None
    stage: Annotated[JobStage | None, _described("of jobs")] = None
    priority: Annotated[Priority | None, _described("of jobs")] = None
    batch_id: Annotated[BatchId | None, _described("of jobs")] = None
    created_after: Annotated[Time | None, _described("of documents and jobs")] = None
    created_before: Annotated[Time | None, _described("of documents and jobs")] = None
    webhook_id: Annotated[WebhookId | None, _described("of deliveries")] = None
    event_type: Annotated[Annotated[str, text(100)] | None, _described("of deliveries")] = None
    since: Annotated[Time | None, _described("of deliveries: events of this time or later")] = None
    until: Annotated[Time | None, _described("of deliveries: events before this time")] = None


class CreateExport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asks for a file with the rows of a query."""

    kind: ExportKind
    format: ExportFormat = ExportFormat.CSV
    filter: ExportFilter = ExportFilter()
    columns: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=64)]],
        msgspec.Meta(
            max_length=COLUMNS_MAX,
            description="names of columns, in the order of the file; by default all of the kind",
        ),
    ] = []
    bom: Annotated[
        bool,
        _described(
            "whether a CSV file begins with a byte order mark, without which some spreadsheets do"
            " not read UTF-8"
        ),
    ] = False
    raw: Annotated[
        bool,
        _described(
            "whether the text in a CSV file stays as it is. By default, text that a spreadsheet"
            " would calculate, such as `=1+1`, gets an apostrophe in front"
        ),
    ] = False


class ExportView(msgspec.Struct, frozen=True, kw_only=True):
    """An export: its query, its progress and its file."""

    export_id: ExportId
    job_id: Annotated[JobId, _described("the job that makes the file; cancel it there")]
    kind: ExportKind
    format: ExportFormat
    filter: Annotated[dict[str, Any], _described("the filters that are set")]
    columns: list[str]
    bom: bool
    raw: bool
    status: JobStatus
    rows: Annotated[
        int, _described("written so far; once `completed`, those of the file, without its header")
    ]
    size: Annotated[int | None, _described("bytes of the file; null unless `completed`")]
    sha256: Annotated[str | None, _described("of the file, hex; null unless `completed`")]
    filename: Annotated[str, _described("the name that a download has")]
    error: JobError | None
    created_at: datetime
    finished_at: datetime | None
    expires_at: Annotated[
        datetime | None, _described("when the export is deleted; null until it has ended")
    ]
    status_url: str
    file_url: str
