"""Stored files are scanned by Debian's clamd before they are read."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from pipeline.context import Context, build_context, database_time, install_context
from pipeline.ingest.extractors import registry
from schemas.errors import ErrorCode
from schemas.events import envelope
from schemas.events.documents import DocumentFailed, DocumentScanned, ReprocessRequested
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent
from schemas.ids import JobId, RevisionId, TenantId
from schemas.lifecycle import (
    DocumentStatus,
    JobKind,
    JobStatus,
    Priority,
    RevisionState,
    ScanState,
    StepStatus,
)
from schemas.outcomes import Outcome
from schemas.runtime.jobs.errors import JobNotRetryable
from schemas.runtime.jobs.retry import retry_job
from schemas.settings import DatabaseSettings
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.documents import Document, Revision
from schemas.tables.events import EventRecord, emit
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.topology import ATTEMPT_HEADER, CRASH_LIMIT, RETRY_TIERS
from tests.factories.uploads import add_finalized_upload, add_tenant
from tests.fakes.scanners import closes, is_silent, listening, pong
from tests.fakes.storage import Call, FakeStorage, nothing
from tests.integration.pipeline.transfer_worker import TransferWorker, worker_settings
from tests.scanner import (
    EICAR,
    EICAR_SIGNATURE,
    MARKER,
    MARKER_SIGNATURE,
    STREAM_MAX,
    Scanner,
)

HARMLESS: Final = b"a harmless file"
READ: Final = "a.txt"
NOT_READ: Final = "file.bin"


class Killed(BaseException):
    """The worker dies."""


def url_of(address: tuple[str, int]) -> str:
    return f"clamd://{address[0]}:{address[1]}"


class ScanBench:
    """A worker of transfers and scans, and views of what it records."""

    def __init__(self, context: Context) -> None:
        self.worker = TransferWorker(context)
        self.context = context

    @property
    def storage(self) -> FakeStorage:
        assert isinstance(self.context.storage, FakeStorage)
        return self.context.storage

    def set(self, **settings: object) -> None:
        """Give the worker other settings."""
        self.context = replace(
            self.context, settings=self.context.settings.model_copy(update=settings)
        )
        self.worker.context = self.context
        install_context(self.context)

    def stored(
        self, content: bytes, *, filename: str = READ, tenant_id: TenantId | None = None
    ) -> Envelope:
        """Transfer an upload, by default of a new tenant; return the event `upload.stored`."""
        with self.context.transaction() as session:
            event = add_finalized_upload(
                session,
                tenant_id=tenant_id or add_tenant(session),
                staging_dir=self.context.settings.staging_dir,
                content=content,
                filename=filename,
                content_type="application/octet-stream" if filename == NOT_READ else None,
            )
        assert self.worker.deliver(event)
        return self.event_of(event, StoredEvent.TYPE)

    def event_of(self, event: Envelope, kind: str) -> Envelope:
        with Session(self.context.engine) as session:
            body = session.scalars(
                select(EventRecord.body).where(
                    EventRecord.job_id == event.job_id, EventRecord.type == kind
                )
            ).one()
        return envelope.decode(body)

    def document(self, event: Envelope) -> Document:
        with Session(self.context.engine) as session:
            return session.scalars(
                select(Document).where(Document.upload_id == event.upload_id)
            ).one()

    def steps(self, event: Envelope) -> dict[StepName, StepStatus]:
        with Session(self.context.engine) as session:
            rows = session.execute(
                select(Step.name, Step.status)
                .where(Step.job_id == event.job_id)
                .order_by(Step.ordinal)
            )
            return {row.name: row.status for row in rows}

    def queues(self, event: Envelope) -> list[str]:
        """Return the work queues to which the event was given."""
        with Session(self.context.engine) as session:
            queues = session.scalars(
                select(OutboxMessage.queue).where(
                    OutboxMessage.event_id == event.id, OutboxMessage.queue.is_not(None)
                )
            )
            return sorted(str(queue) for queue in queues)

    def last_retry(self) -> tuple[object, object]:
        """Return the tier and the counted attempts of the last retried message."""
        headers = self.worker.retried[-1]
        return headers["tier"], headers[ATTEMPT_HEADER]

    def reprocessing(self, event: Envelope, *, is_rescan: bool = False) -> Envelope:
        """Add a job that reads the document again, as the gateway does; return its event."""
        document = self.document(event)
        with self.context.transaction() as session:
            job = Job(
                id=JobId(uuid4()),
                tenant_id=document.tenant_id,
                kind=JobKind.REPROCESS,
                document_id=document.id,
                stage=JobStage.SCAN,
            )
            session.add(job)
            session.flush()
            event_id = emit(
                session,
                ReprocessRequested(
                    document_id=document.id,
                    upload_id=document.upload_id,
                    job_id=job.id,
                    filename=document.filename,
                    size=document.size,
                    sha256=document.sha256,
                    content_type=document.content_type,
                    object_key=document.object_key,
                    is_rescan=is_rescan,
                ),
                tenant_id=document.tenant_id,
                source="/test",
                now=database_time(session),
            )
            steps.add_step(
                session,
                StepName.SCAN,
                job_id=job.id,
                tenant_id=document.tenant_id,
                priority=Priority.INTERACTIVE,
                event_id=event_id,
            )
            session.flush()
            return envelope.decode(session.get_one(EventRecord, event_id).body)

    def publish_revision(self, event: Envelope) -> RevisionId:
        """Publish a reading of the document and complete its job, as the readers do."""
        document = self.document(event)
        with self.context.transaction() as session:
            revision = Revision(
                id=RevisionId(uuid4()),
                document_id=document.id,
                tenant_id=document.tenant_id,
                job_id=document.job_id,
                number=1,
                pipeline_version="1",
                state=RevisionState.PUBLISHED,
            )
            session.add(revision)
            session.flush()
            session.execute(
                update(Document)
                .where(Document.id == document.id)
                .values(
                    revision_id=revision.id,
                    status=DocumentStatus.INGESTED,
                    outcome=Outcome.COMPLETE,
                )
            )
            for name in (StepName.METADATA, StepName.INGEST):
                session.execute(
                    update(Step)
                    .where(Step.job_id == document.job_id, Step.name == name)
                    .values(status=StepStatus.COMPLETED)
                )
            return revision.id

    def retry(self, event: Envelope) -> None:
        with self.context.transaction() as session:
            job = session.get_one(Job, event.job_id)
            retry_job(
                session,
                job,
                actor="test",
                export_ttl=timedelta(days=1),
                settings=self.context.settings,
            )

    def assert_withheld(self, event: Envelope) -> None:
        """Nothing of the file may be read, and it still waits for its scan."""
        assert self.document(event).scan_state is ScanState.PENDING
        assert self.steps(event) == {
            StepName.TRANSFER: StepStatus.COMPLETED,
            StepName.SCAN: StepStatus.QUEUED,
        }
        assert self.queues(event) == ["uploads"]

    def assert_quarantined(self, event: Envelope, *, signature: str) -> None:
        document = self.document(event)
        assert (document.status, document.outcome, document.error_code) == (
            DocumentStatus.FAILED,
            Outcome.QUARANTINED,
            ErrorCode.MALWARE_FOUND,
        )
        assert (document.scan_state, document.scan_signature) == (ScanState.INFECTED, signature)
        assert document.error_detail is not None
        assert signature in document.error_detail
        assert document.revision_id is None
        job = self.worker.job(event)
        assert (job.status, job.error_code) == (JobStatus.FAILED, ErrorCode.MALWARE_FOUND)
        failed = self.event_of(event, DocumentFailed.TYPE).data
        assert isinstance(failed, DocumentFailed)
        assert (failed.code, failed.outcome) == (ErrorCode.MALWARE_FOUND, Outcome.QUARANTINED)
        assert signature in failed.detail
        assert self.queues(event) == ["uploads"]
        assert document.object_key in self.storage.objects


@pytest.fixture
def bench(database: DatabaseSettings, tmp_path: Path, scanner: Scanner) -> Iterator[ScanBench]:
    settings = worker_settings(
        database,
        staging_dir=tmp_path,
        malware_scan=scanner.url,
        malware_scan_timeout="20s",
        task_attempts=3,
    )
    context = replace(
        build_context(settings, will_be_read=registry.will_be_read), storage=FakeStorage()
    )
    yield ScanBench(context)
    context.engine.dispose()


def test_a_file_is_read_only_after_its_scan(bench: ScanBench) -> None:
    stored = bench.stored(HARMLESS)
    bench.assert_withheld(stored)
    assert isinstance(stored.data, StoredEvent)
    assert (stored.data.will_be_read, stored.data.malware_scan) == (True, ScanState.PENDING)

    assert bench.worker.deliver(stored)

    document = bench.document(stored)
    assert (document.status, document.scan_state) == (DocumentStatus.READING, ScanState.CLEAN)
    assert document.scanned_at is not None
    assert bench.steps(stored) == {
        StepName.TRANSFER: StepStatus.COMPLETED,
        StepName.SCAN: StepStatus.COMPLETED,
        StepName.METADATA: StepStatus.QUEUED,
        StepName.INGEST: StepStatus.QUEUED,
    }
    assert bench.queues(stored) == ["document_processing", "metadata_extraction", "uploads"]
    scanned = bench.event_of(stored, DocumentScanned.TYPE).data
    assert isinstance(scanned, DocumentScanned)
    assert scanned.malware_scan is ScanState.CLEAN


def test_a_duplicate_of_a_file_that_is_read_waits_for_its_own_scan(bench: ScanBench) -> None:
    first = bench.stored(HARMLESS)
    assert bench.worker.deliver(first)
    bench.publish_revision(first)

    again = bench.stored(HARMLESS, tenant_id=first.tenantid)

    bench.assert_withheld(again)


def test_a_file_that_is_not_read_ends_with_its_scan(bench: ScanBench) -> None:
    stored = bench.stored(HARMLESS, filename=NOT_READ)
    bench.assert_withheld(stored)

    assert bench.worker.deliver(stored)

    document = bench.document(stored)
    assert (document.status, document.scan_state) == (DocumentStatus.STORED, ScanState.CLEAN)
    assert bench.worker.job(stored).status is JobStatus.COMPLETED


@pytest.mark.parametrize("filename", [READ, NOT_READ])
@pytest.mark.parametrize(
    ("content", "signature"),
    [(EICAR, EICAR_SIGNATURE), (b"with " + MARKER, MARKER_SIGNATURE)],
    ids=["eicar", "marker"],
)
def test_a_file_with_malware_is_quarantined(
    bench: ScanBench, filename: str, content: bytes, signature: str
) -> None:
    stored = bench.stored(content, filename=filename)

    assert bench.worker.deliver(stored)
    assert bench.worker.deliver(stored), "delivered twice"

    bench.assert_quarantined(stored, signature=signature)


def test_a_quarantined_job_is_not_retried(bench: ScanBench) -> None:
    stored = bench.stored(EICAR)
    assert bench.worker.deliver(stored)

    with pytest.raises(JobNotRetryable, match="malware"):
        bench.retry(stored)

    bench.assert_quarantined(stored, signature=EICAR_SIGNATURE)


def test_a_scan_that_is_delivered_twice_has_one_effect(bench: ScanBench) -> None:
    stored = bench.stored(HARMLESS)

    assert bench.worker.deliver(stored)
    after = bench.steps(stored), bench.queues(stored)
    assert bench.worker.deliver(stored)

    assert (bench.steps(stored), bench.queues(stored)) == after
    assert isinstance(bench.event_of(stored, DocumentScanned.TYPE).data, DocumentScanned), "once"


def test_a_file_is_scanned_again_after_the_death_of_its_worker(bench: ScanBench) -> None:
    stored = bench.stored(EICAR)

    def die(call: Call) -> None:
        if call.name == "read":
            raise Killed

    bench.storage.before = die
    with pytest.raises(Killed):
        bench.worker.deliver(stored)
    bench.storage.before = nothing
    with bench.context.transaction() as session:
        session.execute(update(Step).values(lease_until=func.now()))
    assert bench.document(stored).scan_state is ScanState.PENDING

    assert bench.worker.deliver(stored, crashes=1)

    bench.assert_quarantined(stored, signature=EICAR_SIGNATURE)


def test_a_file_that_kills_its_workers_stays_withheld(bench: ScanBench) -> None:
    stored = bench.stored(HARMLESS)

    assert bench.worker.deliver(stored, crashes=CRASH_LIMIT)

    document = bench.document(stored)
    assert (document.status, document.scan_state, document.error_code) == (
        DocumentStatus.FAILED,
        ScanState.PENDING,
        ErrorCode.ATTEMPTS_EXHAUSTED,
    )
    assert bench.queues(stored) == ["uploads"]


def test_without_a_scanner_nothing_is_scanned(bench: ScanBench) -> None:
    bench.set(malware_scan=None)

    stored = bench.stored(EICAR)

    document = bench.document(stored)
    assert (document.status, document.scan_state) == (DocumentStatus.READING, ScanState.OFF)
    assert bench.steps(stored) == {
        StepName.TRANSFER: StepStatus.COMPLETED,
        StepName.METADATA: StepStatus.QUEUED,
        StepName.INGEST: StepStatus.QUEUED,
    }


def test_files_wait_while_the_scanner_is_away(bench: ScanBench, scanner: Scanner) -> None:
    stored = bench.stored(EICAR)
    scanner.halt()
    try:
        for waits in range(2 * len(RETRY_TIERS)):
            assert not bench.worker.deliver(stored, waits=waits)
            tier, attempts = bench.last_retry()
            assert attempts == 0, "a wait is not an attempt"
            assert tier == RETRY_TIERS[min(waits, len(RETRY_TIERS) - 1)]
            bench.assert_withheld(stored)
    finally:
        scanner.start()

    assert bench.worker.deliver(stored)

    bench.assert_quarantined(stored, signature=EICAR_SIGNATURE)


def test_a_file_waits_for_a_worker_with_a_scanner(bench: ScanBench, scanner: Scanner) -> None:
    stored = bench.stored(HARMLESS)
    bench.set(malware_scan=None)

    assert not bench.worker.deliver(stored)
    bench.assert_withheld(stored)

    bench.set(malware_scan=scanner.url)
    assert bench.worker.deliver(stored)
    assert bench.document(stored).scan_state is ScanState.CLEAN


def test_a_file_that_kills_its_scanner_ends_after_the_last_attempt(
    bench: ScanBench, scanner: Scanner
) -> None:
    stored = bench.stored(HARMLESS)
    with listening(pong, closes) as address:
        bench.set(malware_scan=url_of(address))
        assert not bench.worker.deliver(stored)
        assert bench.last_retry() == (RETRY_TIERS[0], 1)
        bench.assert_withheld(stored)
        assert bench.worker.deliver(stored, attempt=2)

    document = bench.document(stored)
    assert (document.status, document.error_code) == (DocumentStatus.FAILED, ErrorCode.SCAN_FAILED)
    assert document.scan_state is ScanState.PENDING, "still withheld"
    assert bench.worker.job(stored).status is JobStatus.FAILED

    bench.set(malware_scan=scanner.url)
    bench.retry(stored)
    assert bench.document(stored).status is DocumentStatus.READING
    assert bench.worker.deliver(stored)
    assert bench.document(stored).scan_state is ScanState.CLEAN
    assert bench.steps(stored)[StepName.INGEST] is StepStatus.QUEUED


@pytest.mark.parametrize("size", [STREAM_MAX + 1, 3 * STREAM_MAX + 1], ids=["clamd", "setting"])
def test_a_file_that_is_too_large_to_be_scanned_fails(bench: ScanBench, size: int) -> None:
    bench.set(malware_scan_size_max=3 * STREAM_MAX)
    stored = bench.stored(bytes(size))

    assert bench.worker.deliver(stored)

    document = bench.document(stored)
    assert (document.status, document.outcome, document.scan_state) == (
        DocumentStatus.FAILED,
        Outcome.UNSCANNABLE,
        ScanState.UNSCANNABLE,
    )
    assert bench.worker.job(stored).error_code == ErrorCode.DOCUMENT_UNSCANNABLE
    assert bench.queues(stored) == ["uploads"]


def test_a_file_that_is_too_large_to_be_scanned_passes_if_scans_are_not_required(
    bench: ScanBench,
) -> None:
    bench.set(malware_scan_required=False)
    stored = bench.stored(bytes(STREAM_MAX + 1))

    assert bench.worker.deliver(stored)

    document = bench.document(stored)
    assert (document.status, document.scan_state) == (DocumentStatus.READING, ScanState.UNSCANNED)
    assert document.scanned_at is None
    assert bench.steps(stored)[StepName.INGEST] is StepStatus.QUEUED


def test_a_file_passes_without_a_scanner_after_a_wait_if_scans_are_not_required(
    bench: ScanBench, scanner: Scanner
) -> None:
    stored = bench.stored(HARMLESS)
    bench.set(malware_scan_required=False, malware_scan_wait_max=timedelta(minutes=15))
    scanner.halt()
    try:
        assert not bench.worker.deliver(stored)
        bench.assert_withheld(stored)
        with bench.context.transaction() as session:
            step = session.get_one(Step, (stored.job_id, StepName.SCAN))
            assert step.started_at is not None
            step.started_at -= timedelta(minutes=16)
        assert bench.worker.deliver(stored)
    finally:
        scanner.start()

    assert bench.document(stored).scan_state is ScanState.UNSCANNED
    assert bench.steps(stored)[StepName.INGEST] is StepStatus.QUEUED


def test_a_cancelled_job_ends_its_scan(bench: ScanBench) -> None:
    stored = bench.stored(HARMLESS)

    def cancels(connection: socket.socket) -> None:
        connection.recv(16)
        with bench.context.transaction() as session:
            assert stored.job_id is not None
            session.execute(steps.cancel(stored.job_id))
        is_silent(connection)

    with listening(pong, cancels) as address:
        bench.set(malware_scan=url_of(address), malware_scan_timeout=timedelta(minutes=5))
        assert bench.worker.deliver(stored)

    assert bench.steps(stored)[StepName.SCAN] is StepStatus.CANCELLED
    assert bench.document(stored).scan_state is ScanState.PENDING


def test_malware_that_is_found_later_withdraws_what_was_read(
    bench: ScanBench, scanner: Scanner
) -> None:
    content = b"malware that is " + b"found later"
    stored = bench.stored(content)
    assert bench.worker.deliver(stored)
    revision_id = bench.publish_revision(stored)
    again = bench.reprocessing(stored)

    with scanner.signature("Waybill.Test.Later", content):
        assert bench.worker.deliver(again)

    document = bench.document(stored)
    assert (document.status, document.scan_state, document.scan_signature) == (
        DocumentStatus.FAILED,
        ScanState.INFECTED,
        "Waybill.Test.Later.UNOFFICIAL",
    )
    assert document.revision_id is None
    with Session(bench.context.engine) as session:
        assert session.get_one(Revision, revision_id).state is RevisionState.SUPERSEDED
    assert bench.steps(again) == {StepName.SCAN: StepStatus.FAILED}


@pytest.mark.parametrize(
    ("filename", "status"), [(READ, DocumentStatus.READING), (NOT_READ, DocumentStatus.STORED)]
)
def test_a_false_alarm_is_released_by_a_scan_that_an_operator_orders(
    bench: ScanBench, scanner: Scanner, filename: str, status: DocumentStatus
) -> None:
    content = b"a false " + b"alarm"
    stored = bench.stored(content, filename=filename)
    with scanner.signature("Waybill.Test.Alarm", content):
        assert bench.worker.deliver(stored)
        again = bench.reprocessing(stored, is_rescan=True)
        assert bench.worker.deliver(again), "still found"
    assert bench.document(stored).scan_state is ScanState.INFECTED
    assert bench.document(stored).error_code == ErrorCode.MALWARE_FOUND

    again = bench.reprocessing(stored, is_rescan=True)
    assert bench.worker.deliver(again)

    document = bench.document(stored)
    assert (document.status, document.scan_state) == (status, ScanState.CLEAN)
    assert (document.outcome, document.error_code, document.scan_signature) == (None, None, None)
    is_read = status is DocumentStatus.READING
    assert (StepName.INGEST in bench.steps(again)) is is_read


def test_a_reprocessing_that_cannot_be_scanned_changes_nothing_of_the_document(
    bench: ScanBench,
) -> None:
    stored = bench.stored(HARMLESS)
    assert bench.worker.deliver(stored)
    revision_id = bench.publish_revision(stored)
    bench.set(malware_scan_size_max=1)

    again = bench.reprocessing(stored)
    assert bench.worker.deliver(again)

    document = bench.document(stored)
    assert (document.status, document.scan_state, document.revision_id) == (
        DocumentStatus.INGESTED,
        ScanState.CLEAN,
        revision_id,
    )
    with Session(bench.context.engine) as session:
        step = session.get_one(Step, (again.job_id, StepName.SCAN))
    assert (step.status, step.error_code) == (StepStatus.FAILED, ErrorCode.DOCUMENT_UNSCANNABLE)
