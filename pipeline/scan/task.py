"""The task that scans a stored file: `upload.stored` → clamd → the steps that read, or quarantine."""

import logging
from functools import partial
from threading import Event
from typing import ClassVar, Final, assert_never

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.messaging.event_task import MessageDelivery
from pipeline.scan import record
from pipeline.scan.clamd import Clamd
from pipeline.scan.errors import FileUnscannable, MalwareFound, ScanFailed, ScannerAway
from pipeline.scan.record import FileToScan
from pipeline.scan.verdict import Clean, Infected, NoVerdict, ScannedInPart, Verdict
from pipeline.steps.call_pool import CallPool
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from pipeline.storage import range_reader
from pipeline.storage.port import ObjectRange
from schemas import queues
from schemas.errors import DomainError
from schemas.events.documents import ReprocessRequested
from schemas.events.envelope import Envelope
from schemas.lifecycle import ScanState, StepStatus
from schemas.object_keys import ObjectKey
from schemas.runtime.lasting_problem import LastingProblem
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)

scanner_away: Final = LastingProblem()
"""No file is scanned by this process."""


class ScanFile(StepTask[str]):
    """Scans the object of a document; nothing reads or serves the file before the scan has passed it."""

    name = "tasks.scan_file"
    home_queue: ClassVar[str] = queues.UPLOADS
    step: ClassVar[StepName] = StepName.SCAN

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> str:  # noqa: ARG002  # the event names the file
        return record.etag_of(session, record.file_of(event))

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: str,
        *,
        event: Envelope,
        delivery: MessageDelivery,
    ) -> None:
        file = record.file_of(event)
        heartbeat = Heartbeat(context, claimed)
        state = _state_of(context, heartbeat, file, etag=loaded)
        with context.transaction() as session:
            record.record_passed(
                session,
                heartbeat.claimed,
                file,
                state=state,
                will_be_read=_will_be_read(context, session, file),
                event=event,
                settings=context.settings,
                traceparent=delivery.traceparent,
            )
        log.info("scan.passed", document_id=str(file.document_id), state=state)

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        file = record.file_of(event)
        status = record.record_failed(
            session,
            file,
            error=error,
            event=event,
            settings=current_context().settings,
            traceparent=delivery.traceparent,
        )
        if isinstance(error, MalwareFound):
            log.warning(
                "scan.malware_found",
                document_id=str(file.document_id),
                signature=error.signature,
                sha256=file.sha256,
            )
        return status


def _state_of(context: Context, heartbeat: Heartbeat, file: FileToScan, *, etag: str) -> ScanState:
    """Return the state of a file that may be read.

    Raises:
        MalwareFound: it may not.
        FileUnscannable: it is not scanned as a whole, and none may pass without a scan.
        ScannerAway, ScanFailed: try again later.
    """
    settings = context.settings
    try:
        verdict = _verdict(context, heartbeat, file, etag=etag)
    except (ScannerAway, ScanFailed) as failure:
        if settings.malware_scan_required or not _has_waited(context, heartbeat.claimed):
            raise
        reason = str(failure)
    else:
        match verdict:
            case Clean():
                return ScanState.CLEAN
            case Infected(signature=signature):
                raise MalwareFound(signature)
            case ScannedInPart(limit=reason):
                if settings.malware_scan_required:
                    raise FileUnscannable(reason)
            case _:
                assert_never(verdict)
    log.warning("scan.passed_unscanned", document_id=str(file.document_id), reason=reason)
    return ScanState.UNSCANNED


def _verdict(
    context: Context, heartbeat: Heartbeat, file: FileToScan, *, etag: str
) -> Clean | Infected | ScannedInPart:
    try:
        verdict = _answer(context, heartbeat, file, etag=etag)
    except ScannerAway as away:
        level = logging.ERROR if scanner_away.met() else logging.WARNING
        log.log(level, "scan.scanner_away", reason=str(away))
        raise
    scanner_away.solved()
    if isinstance(verdict, NoVerdict):
        raise ScanFailed(verdict.reason)
    return verdict


def _answer(context: Context, heartbeat: Heartbeat, file: FileToScan, *, etag: str) -> Verdict:
    settings = context.settings
    if settings.scanner is None:
        # The setting of this worker is missing, or was removed: what was to be scanned still waits.
        raise ScannerAway("MALWARE_SCAN is not set")
    if file.size > settings.malware_scan_size_max:
        return ScannedInPart(
            limit=f"it has {file.size} bytes, and at most {settings.malware_scan_size_max} are scanned"
        )
    clamd = Clamd(settings.scanner, timeout=settings.malware_scan_timeout)
    source = ObjectRange(ObjectKey(file.object_key), offset=0, size_bytes=file.size, etag=etag)

    def scan(abandoned: Event) -> Verdict:
        blocks = range_reader.blocks(source, storage=context.storage, abandoned=abandoned)
        return clamd.scan(blocks, abandoned=abandoned)

    with CallPool[None](heartbeat=heartbeat.renew) as pool:
        return pool.run(partial(scan, pool.abandoned))


def _has_waited(context: Context, claimed: ClaimedStep) -> bool:
    with context.transaction() as session:
        return record.waited_longer_than(session, claimed, context.settings.malware_scan_wait_max)


def _will_be_read(context: Context, session: Session, file: FileToScan) -> bool:
    if not isinstance(file, ReprocessRequested):
        return file.will_be_read
    return not file.is_rescan or context.will_be_read(
        file.content_type,
        declared=record.declared_type_of(session, file),
        filename=file.filename,
    )
