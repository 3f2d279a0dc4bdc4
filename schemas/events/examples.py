"""One valid example of every event: for the catalogue, test deliveries and the documentation."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final
from uuid import UUID

from schemas.errors import ErrorCode
from schemas.events.batches import (
    BatchCancelled,
    BatchCancelRequested,
    BatchCompleted,
    BatchFailed,
    BatchReceived,
)
from schemas.events.documents import (
    DocumentFailed,
    DocumentScanned,
    IndexRequested,
    IngestedEvent,
    RenderRequested,
    ReprocessRequested,
    TablesRequested,
)
from schemas.events.endpoints import EndpointDisabled, Ping, ReplayRequested
from schemas.events.envelope import Envelope, Event
from schemas.events.exports import ExportCompleted, ExportFailed, ExportRequested
from schemas.events.jobs import JobActionRequested
from schemas.events.uploads import StoredEvent, UploadCancelled, UploadFailed, UploadFinalized
from schemas.ids import (
    BatchId,
    DocumentId,
    EventId,
    ExportId,
    JobId,
    RevisionId,
    TenantId,
    UploadId,
    WebhookId,
)
from schemas.lifecycle import (
    DeliveryStatus,
    ExportFormat,
    ExportKind,
    JobAction,
    JobKind,
    ScanState,
)
from schemas.object_keys import original, page_image
from schemas.outcomes import MEANINGS, Outcome, Reason

TENANT_ID: Final = TenantId(UUID("b3f0c2a4-6ad5-4e8e-9d6c-3f0d6b6f0a04"))

_UPLOAD_ID: Final = UploadId(UUID("0c0a7f5e-52f1-4c1b-8a57-5d2f4e9b7a01"))
_JOB_ID: Final = JobId(UUID("7d1f9b30-1c7e-4b0e-9f4e-0a6c3d8e2b02"))
_DOCUMENT_ID: Final = DocumentId(UUID("e4a85c11-90b3-4f7d-b2a6-6c1e7f3d5a03"))
_REVISION_ID: Final = RevisionId(UUID("01a1fe16-2c41-7d05-8e3a-b7c9d1f20e06"))
_ENDPOINT_ID: Final = WebhookId(UUID("5a9e6d72-3b48-4d0f-a1c9-8e2b4f6d7c05"))
_EXPORT_ID: Final = ExportId(UUID("c7e1b4d8-92f5-4a3e-8c60-1d7f5b9a2e07"))
_BATCH_ID: Final = BatchId(UUID("01a1ff02-6e30-7a41-9b58-2c4d6e8f0a08"))
_SHA256: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_FILENAME: Final = "invoice.pdf"
_CONTENT_TYPE: Final = "application/pdf"
_SIZE: Final = 123_456
_START: Final = datetime(2026, 11, 20, 12, 30, 15, 250_000, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class _Example:
    after: timedelta
    source: str
    event: Event


_EXAMPLES: Final = (
    _Example(
        after=timedelta(0),
        source="/waybill/gateway",
        event=UploadFinalized(upload_id=_UPLOAD_ID, job_id=_JOB_ID, filename=_FILENAME, size=_SIZE),
    ),
    _Example(
        after=timedelta(seconds=2),
        source="/waybill/pipeline/transfer",
        event=StoredEvent(
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            document_id=_DOCUMENT_ID,
            filename=_FILENAME,
            size=_SIZE,
            sha256=_SHA256,
            content_type=_CONTENT_TYPE,
            object_key=original(TENANT_ID, _UPLOAD_ID),
            will_be_read=True,
        ),
    ),
    _Example(
        after=timedelta(seconds=3),
        source="/waybill/pipeline/transfer",
        event=UploadFailed(
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            code=ErrorCode.STAGING_CORRUPT,
            detail="chunk 3 was altered",
        ),
    ),
    _Example(
        after=timedelta(seconds=4),
        source="/waybill/gateway",
        event=UploadCancelled(upload_id=_UPLOAD_ID, filename=_FILENAME),
    ),
    _Example(
        after=timedelta(seconds=5),
        source="/waybill/pipeline/scan",
        event=DocumentScanned(
            document_id=_DOCUMENT_ID,
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            malware_scan=ScanState.CLEAN,
        ),
    ),
    _Example(
        after=timedelta(seconds=6),
        source="/waybill/pipeline/ingest",
        event=IngestedEvent(
            document_id=_DOCUMENT_ID,
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            sha256=_SHA256,
            pages=9,
            passages=41,
            entities=7,
            language="en",
            language_confidence=0.98,
            outcome=Outcome.PARTIAL,
            reasons=(
                Reason(
                    outcome=Outcome.NEEDS_OCR,
                    pages=((4, 4),),
                    page_count=1,
                    reason="The page is a picture of text, or its text has no known characters.",
                ),
                Reason(
                    outcome=Outcome.TIMEOUT_PAGE,
                    pages=((7, 7),),
                    page_count=1,
                    reason="The page could not be read in the time allowed for one page.",
                ),
            ),
            pages_read=6,
            pages_ocr=1,
            pages_failed=1,
            pages_needs_ocr=1,
        ),
    ),
    _Example(
        after=timedelta(seconds=7),
        source="/waybill/pipeline/ingest",
        event=DocumentFailed(
            document_id=_DOCUMENT_ID,
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            code=ErrorCode.DOCUMENT_ENCRYPTED,
            detail=MEANINGS[Outcome.ENCRYPTED].sentence,
            outcome=Outcome.ENCRYPTED,
        ),
    ),
    _Example(
        after=timedelta(seconds=8),
        source="/waybill/pipeline/ingest",
        event=TablesRequested(
            document_id=_DOCUMENT_ID,
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            size=_SIZE,
            sha256=_SHA256,
            content_type=_CONTENT_TYPE,
            object_key=original(TENANT_ID, _UPLOAD_ID),
        ),
    ),
    _Example(
        after=timedelta(days=1),
        source="/waybill/gateway",
        event=ReprocessRequested(
            document_id=_DOCUMENT_ID,
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            size=_SIZE,
            sha256=_SHA256,
            content_type=_CONTENT_TYPE,
            object_key=original(TENANT_ID, _UPLOAD_ID),
        ),
    ),
    _Example(
        after=timedelta(days=2),
        source="/waybill/gateway",
        event=RenderRequested(
            document_id=_DOCUMENT_ID,
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            size=_SIZE,
            sha256=_SHA256,
            content_type=_CONTENT_TYPE,
            object_key=original(TENANT_ID, _UPLOAD_ID),
            page=3,
            image_key=page_image(_UPLOAD_ID, _REVISION_ID, number=3),
        ),
    ),
    _Example(
        after=timedelta(seconds=6, milliseconds=500),
        source="/waybill/pipeline/ingest",
        event=IndexRequested(
            document_id=_DOCUMENT_ID,
            upload_id=_UPLOAD_ID,
            job_id=_JOB_ID,
            filename=_FILENAME,
            size=_SIZE,
            sha256=_SHA256,
            content_type=_CONTENT_TYPE,
            object_key=original(TENANT_ID, _UPLOAD_ID),
        ),
    ),
    _Example(
        after=timedelta(days=5, seconds=1),
        source="/waybill/notifier",
        event=EndpointDisabled(
            endpoint_id=_ENDPOINT_ID,
            url="https://receiver.example/hooks/waybill",
            description="invoices of the accounting system",
            reason="failing",
            failing_since=_START,
            disabled_at=_START + timedelta(days=5, seconds=1),
            deliveries_kept=1204,
        ),
    ),
    _Example(
        after=timedelta(days=8),
        source="/waybill/gateway",
        event=ExportRequested(export_id=_EXPORT_ID, job_id=_JOB_ID),
    ),
    _Example(
        after=timedelta(days=8, seconds=4),
        source="/waybill/pipeline/export",
        event=ExportCompleted(
            export_id=_EXPORT_ID,
            job_id=_JOB_ID,
            kind=ExportKind.DOCUMENTS,
            format=ExportFormat.CSV,
            rows=18_204,
            size=4_718_592,
            sha256=_SHA256,
            expires_at=_START + timedelta(days=15, seconds=4),
        ),
    ),
    _Example(
        after=timedelta(days=8, seconds=5),
        source="/waybill/pipeline/export",
        event=ExportFailed(
            export_id=_EXPORT_ID,
            job_id=_JOB_ID,
            kind=ExportKind.SENTENCES,
            format=ExportFormat.JSONL,
            code=ErrorCode.EXPORT_TOO_LARGE,
            detail="the file would have more than 10737418240 bytes",
        ),
    ),
    _Example(
        after=timedelta(days=9),
        source="/waybill/gateway",
        event=BatchReceived(batch_id=_BATCH_ID, job_id=_JOB_ID),
    ),
    _Example(
        after=timedelta(days=9, hours=1),
        source="/waybill/gateway",
        event=BatchCancelRequested(batch_id=_BATCH_ID, job_id=_JOB_ID),
    ),
    _Example(
        after=timedelta(days=9, hours=3),
        source="/waybill/pipeline/batch",
        event=BatchCompleted(
            batch_id=_BATCH_ID,
            job_id=_JOB_ID,
            lines=10_000,
            rejected=2,
            completed=9_991,
            failed=7,
            cancelled=0,
        ),
    ),
    _Example(
        after=timedelta(days=9, hours=1, seconds=4),
        source="/waybill/pipeline/batch",
        event=BatchCancelled(
            batch_id=_BATCH_ID,
            job_id=_JOB_ID,
            lines=10_000,
            rejected=2,
            completed=4_120,
            failed=3,
            cancelled=5_875,
        ),
    ),
    _Example(
        after=timedelta(days=9, hours=2),
        source="/waybill/pipeline/batch",
        event=BatchFailed(
            batch_id=_BATCH_ID,
            job_id=_JOB_ID,
            lines=10_000,
            rejected=2,
            completed=4_120,
            failed=3,
            cancelled=0,
            code=ErrorCode.INTERNAL,
            detail="an internal error, 20 times in a row",
        ),
    ),
    _Example(
        after=timedelta(days=10),
        source="/waybill/gateway",
        event=JobActionRequested(
            job_id=_JOB_ID,
            action=JobAction.RETRY,
            filter='{"stage":"ingest"}',
            kinds=(JobKind.UPLOAD, JobKind.REPROCESS),
            created_before=_START + timedelta(days=10),
        ),
    ),
    _Example(
        after=timedelta(days=6),
        source="/waybill/gateway",
        event=Ping(endpoint_id=_ENDPOINT_ID),
    ),
    _Example(
        after=timedelta(days=7),
        source="/waybill/gateway",
        event=ReplayRequested(
            endpoint_id=_ENDPOINT_ID,
            job_id=_JOB_ID,
            since=_START,
            until=_START + timedelta(days=5),
            statuses=(DeliveryStatus.EXHAUSTED, DeliveryStatus.DISCARDED),
        ),
    ),
)

_BY_TYPE: Final[Mapping[str, _Example]] = MappingProxyType(
    {example.event.TYPE: example for example in _EXAMPLES}
)


def example_of(event_type: str) -> Event:
    """Return the example of an event.

    Raises:
        KeyError: no event has this type.
    """
    return _BY_TYPE[event_type].event


def example_envelope(event_type: str) -> Envelope:
    """Return the example of an event in its envelope, as a receiver gets it.

    Raises:
        KeyError: no event has this type.
    """
    example = _BY_TYPE[event_type]
    time = _START + example.after
    return Envelope(
        id=_event_id(time),
        source=example.source,
        subject=str(example.event.subject),
        time=time,
        tenantid=TENANT_ID,
        data=example.event,
    )


def _event_id(time: datetime) -> EventId:
    """Return a UUIDv7 with constant random bits: the documentation does not change by itself."""
    milliseconds = int(time.timestamp() * 1000)
    return EventId(UUID(int=milliseconds << 80 | 0x7C3E << 64 | 0x9B1D4F60A2E85C07))
