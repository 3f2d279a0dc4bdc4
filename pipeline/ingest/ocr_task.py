"""The end of a reading that left pages without text → recognised pages → `document.ingested`."""

import signal
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import ClassVar, Final

import structlog
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context, database_time
from pipeline.ingest import frames, originals, passwords, readers, record, writer
from pipeline.ingest.errors import PAGE_REASONS, DocumentCrashed, DocumentError
from pipeline.ingest.frames import DocumentRead, Opening, PageReading, ReadingFailed, Recognize
from pipeline.ingest.ocr import engines, languages, tesseract
from pipeline.ingest.ocr.engines import Choice, NoEngine
from pipeline.ingest.record import DocumentToRead, EventContext
from pipeline.ingest.sandbox.fork import (
    AnswerLimits,
    ChildDied,
    ChildLimits,
    ChildOutOfMemory,
    ChildOutputTooLarge,
    ChildTimedOut,
    TimeBudget,
)
from pipeline.messaging.event_task import MessageDelivery
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.ids import RevisionId
from schemas.lifecycle import PageStatus, StepStatus
from schemas.outcomes import Outcome
from schemas.settings import MIB
from schemas.steps import StepName
from schemas.tables.documents import Page, Revision

GRACE: Final = timedelta(seconds=5)
"""The child ends a page itself, except in a call of the engine that takes no limit."""

FRAME_MAX: Final = 16 * MIB

TOO_MANY_PAGES: Final = "More pages need OCR than are recognised of one document."
NO_TIME: Final = "Recognising the text of the earlier pages took the time allowed for the document."
GIVEN_UP: Final = "The pages before it made the text recognition end again and again."

log = structlog.stdlib.get_logger(__name__)


class RecognizePages(StepTask[None]):
    """Recognises the pages that need OCR, and publishes the revision."""

    name = "tasks.recognize_pages"
    home_queue: ClassVar[str] = queues.OCR_PROCESSING
    step: ClassVar[StepName] = StepName.OCR

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> None:
        """Read nothing: the event says all."""

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: None,  # noqa: ARG002  # the event says all
        *,
        event: Envelope,
        delivery: MessageDelivery,
    ) -> None:
        document = record.document_of(event)
        with context.transaction() as session:
            revision = session.execute(
                select(Revision.id, Revision.language).where(Revision.job_id == document.job_id)
            ).one()
            pages = record.pages_to_recognise(session, claimed, revision.id)
            password = passwords.password_of(session, document.upload_id, context.settings.key_ring)
        recognition = Recognition(context, claimed, document=document, revision_id=revision.id)
        try:
            choice = engines.choose(context.settings)
        except NoEngine as lack:
            # It had one when the step was added; the pages stay as they are.
            log.warning("ocr.no_engine", reason=str(lack))
        else:
            with originals.downloaded(
                context, document, heartbeat=recognition.heartbeat.renew
            ) as file:
                opening = originals.opening_of(
                    document, file, password=password, settings=context.settings
                )
                recognition.run(pages, opening, choice=choice, language=revision.language)
        with context.transaction() as session:
            record.end_recognition(
                session,
                recognition.heartbeat.claimed,
                document,
                revision.id,
                read=recognition.read if _is_all_recognised(session, revision.id) else None,
                settings=context.settings,
                event_context=_event_context(session, event, delivery),
            )
        log.info("ocr.document_recognised", document_id=str(document.document_id), pages=len(pages))

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        return record.record_failed(
            session,
            record.document_of(event),
            name=self.step,
            error=error,
            settings=current_context().settings,
            event_context=_event_context(session, event, delivery),
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            with context.transaction() as session:
                record.delete_purged(session, record.document_of(event))


class Recognition:
    """Recognises the pages of a document in children, and writes each page at once.

    Attributes:
        heartbeat: of the step; `heartbeat.claimed` has its progress.
        read: language and key phrases of the pages; None if one child has not recognised all.
    """

    def __init__(
        self,
        context: Context,
        claimed: ClaimedStep,
        *,
        document: DocumentToRead,
        revision_id: RevisionId,
    ) -> None:
        self.heartbeat = Heartbeat(context, claimed)
        self.read: DocumentRead | None = None
        self._context = context
        self._settings = context.settings
        self._document = document
        self._revision_id = revision_id
        self._is_first = claimed.done == 0
        self._deadline = monotonic() + context.settings.ocr_timeout.total_seconds()

    def run(
        self, pages: Sequence[int], opening: Opening, *, choice: Choice, language: str | None
    ) -> None:
        """Recognise pages until the last one or a limit; the pages left say why.

        Raises:
            DocumentError: the document does not open.
            DocumentCrashed: the child was killed from outside.
            StepCancelled, LeaseLost: see `lease.renew`.
        """
        room = max(0, self._settings.ocr_pages_max - self.heartbeat.claimed.done)
        left = deque(pages[:room])
        deaths = 0
        while left:
            before = len(left)
            failed = self._answer(left, self._request(left, opening, choice, language=language))
            if failed is None:
                if left:
                    self._leave(tuple(left), outcome=Outcome.NEEDS_OCR, reason=NO_TIME)
                break
            deaths = deaths + 1 if len(left) == before else 1
            self._is_first = False
            self._leave((left.popleft(),), outcome=failed, reason=PAGE_REASONS[failed])
            if left and deaths == self._settings.quarantine_after:
                self._leave(tuple(left), outcome=Outcome.NEEDS_OCR, reason=GIVEN_UP)
                break
        if beyond := pages[room:]:
            self._leave(beyond, outcome=Outcome.NEEDS_OCR, reason=TOO_MANY_PAGES)

    def _answer(self, left: "deque[int]", request: Recognize) -> Outcome | None:
        """Write the pages that a child recognises, and take them from `left`.

        Returns:
            What the first page of `left` did to the child; None if the child has sent all pages, or
            the time for the document is over.
        """
        limits = request.opening.limits
        try:
            with readers.of_this_process(self._settings).answer(
                frames.encode(request),
                tenant_id=self.heartbeat.claimed.tenant_id,
                child_limits=ChildLimits(memory_bytes=limits.memory_bytes),
                limits=AnswerLimits(
                    wait=request.time_left,
                    cpu=request.time_left,
                    frame_cpu=request.page_timeout + GRACE,
                    frame_bytes=FRAME_MAX,
                    output_bytes=FRAME_MAX * len(request.pages),
                ),
                while_waiting=self.heartbeat.beat,
            ) as answer:
                for frame in answer:
                    match frames.decode(frame):
                        case PageReading() as page:
                            self._write(page)
                            left.popleft()
                        case DocumentRead() as read:
                            self.read = read if self._is_first else None
                        case ReadingFailed(outcome=outcome, reason=reason):
                            raise DocumentError(reason, outcome=outcome)
        except ChildTimedOut as timeout:
            return Outcome.TIMEOUT_PAGE if timeout.exhausted is TimeBudget.FRAME_CPU else None
        except (ChildOutOfMemory, ChildOutputTooLarge):
            return Outcome.OUT_OF_MEMORY
        except ChildDied as death:
            log.warning(
                "ocr.child_died",
                page=left[0] if left else None,
                signal_number=death.signal_number,
                exit_status=death.exit_status,
                child_traceback=death.traceback,
            )
            if death.signal_number == signal.SIGKILL:
                # An operator, or the kernel when memory is short: the page may be innocent.
                raise DocumentCrashed(
                    signal_number=death.signal_number, exit_status=death.exit_status
                ) from None
            return Outcome.CRASHED
        return None

    def _request(
        self, pages: "deque[int]", opening: Opening, choice: Choice, *, language: str | None
    ) -> Recognize:
        settings = self._settings
        own = languages.of_document(language, installed=tesseract.installed(settings.tessdata_dir))
        return Recognize(
            opening=opening,
            pages=tuple(pages),
            engine=choice.name,
            data=str(settings.tessdata_dir),
            languages=own or choice.languages,
            is_language_known=bool(own),
            dpi=settings.ocr_dpi,
            pixels_max=settings.ocr_pixels_max,
            page_timeout=settings.ocr_page_timeout,
            confidence_min=settings.ocr_confidence_min,
            time_left=timedelta(seconds=max(self._deadline - monotonic(), 0)),
        )

    def _write(self, page: PageReading) -> None:
        with self._context.transaction() as session:
            self._advance(
                writer.write_recognised_pages(
                    session,
                    self.heartbeat.claimed,
                    document=self._document,
                    revision_id=self._revision_id,
                    pages=(page,),
                    done=self.heartbeat.claimed.done + 1,
                    settings=self._settings,
                )
            )

    def _leave(self, numbers: Sequence[int], *, outcome: Outcome, reason: str) -> None:
        with self._context.transaction() as session:
            self._advance(
                writer.leave_unrecognised(
                    session,
                    self.heartbeat.claimed,
                    document=self._document,
                    revision_id=self._revision_id,
                    numbers=numbers,
                    outcome=outcome,
                    reason=reason,
                    settings=self._settings,
                )
            )

    def _advance(self, claimed: ClaimedStep) -> None:
        self.heartbeat.claimed = claimed
        self.heartbeat.done = claimed.done


def _is_all_recognised(session: Session, revision_id: RevisionId) -> bool:
    """Return whether no page has text that was not recognised: the text of the others is unread."""
    has_text = exists().where(
        Page.revision_id == revision_id, Page.status == PageStatus.READ, Page.text != ""
    )
    return not session.scalar(select(has_text))


def _event_context(session: Session, event: Envelope, delivery: MessageDelivery) -> EventContext:
    """Return the event with the time of its recording, not of the start of the recognition."""
    return EventContext(
        event_id=event.id,
        tenant_id=event.tenantid,
        now=database_time(session),
        traceparent=delivery.traceparent,
    )
