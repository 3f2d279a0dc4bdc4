"""The end of a reading that left pages without text → recognised pages → `document.ingested`."""

from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from typing import ClassVar, Final

import structlog
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.ingest import (
    document_time,
    originals,
    passage_rows,
    passwords,
    readers,
    record,
    writer,
)
from pipeline.ingest.after_publish import Following
from pipeline.ingest.applied_event import EventContext
from pipeline.ingest.document_time import Slice, SliceOver
from pipeline.ingest.frames import DocumentRead, Opening, PageReading, Recognize
from pipeline.ingest.ocr import engines, languages, tesseract
from pipeline.ingest.ocr.engines import Choice, NoEngine
from pipeline.ingest.ocr_reading import DocumentRecognition, LeftPages
from pipeline.ingest.record import DocumentToRead
from pipeline.messaging.event_task import MessageDelivery
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.ids import RevisionId
from schemas.lifecycle import PageStatus, StepStatus
from schemas.steps import StepName
from schemas.tables.documents import Page, Revision

TOO_MANY_PAGES: Final = "More pages need OCR than are recognised of one document."

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
            record.lock_document(session, document)  # with the document, the revision would be gone
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
                event_context=EventContext.now_in(session, event, traceparent=delivery.traceparent),
                following=Following.from_settings(context.settings),
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
            event_context=EventContext.now_in(session, event, traceparent=delivery.traceparent),
            following=Following.from_settings(current_context().settings),
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            with context.transaction() as session:
                record.delete_purged(session, record.document_of(event))


class Recognition:
    """The step that recognises the pages of a document, and writes each page at once.

    Attributes:
        heartbeat: of the step; `heartbeat.claimed` has its progress.
        read: language and key phrases of the pages; None if not all were recognised at once.
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

    def run(
        self, pages: Sequence[int], opening: Opening, *, choice: Choice, language: str | None
    ) -> None:
        """Recognise pages until the last one or a limit; the pages left say why.

        Raises:
            DocumentError: the document does not open.
            DocumentCrashed: the child was killed from outside.
            StepCancelled, LeaseLost: see `lease.renew`.
            SliceOver: the next delivery goes on after the last page.
        """
        used_before = document_time.used_before(self.heartbeat.claimed)
        is_first = self.heartbeat.claimed.done == 0
        slice_ = Slice(self._settings)
        room = max(0, self._settings.ocr_pages_max - self.heartbeat.claimed.done)

        def note_time() -> None:
            used = used_before + recognition.used
            self.heartbeat.claimed = document_time.noted(self.heartbeat.claimed, used=used)

        def while_waiting() -> None:
            note_time()
            self.heartbeat.beat()

        recognition = DocumentRecognition(
            self._request(
                pages[:room],
                opening,
                choice,
                language=language,
                time_left=self._settings.ocr_timeout - used_before,
            ),
            reader=readers.of_this_process(self._settings),
            tenant_id=self.heartbeat.claimed.tenant_id,
            deaths_max=self._settings.quarantine_after,
            while_waiting=while_waiting,
        )
        with closing(recognition.run()) as results:
            for result in results:
                note_time()
                self._write(result)
                if slice_.is_over:
                    raise SliceOver
        if beyond := tuple(pages[room:]):
            self._write(LeftPages(numbers=beyond, reason=TOO_MANY_PAGES))
        elif is_first:
            self.read = recognition.read

    def _request(
        self,
        pages: Sequence[int],
        opening: Opening,
        choice: Choice,
        *,
        language: str | None,
        time_left: timedelta,
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
            time_left=time_left,
        )

    def _write(self, result: PageReading | LeftPages) -> None:
        claimed = self.heartbeat.claimed
        with self._context.transaction() as session:
            if isinstance(result, LeftPages):
                claimed = writer.leave_unrecognised(
                    session,
                    claimed,
                    document=self._document,
                    revision_id=self._revision_id,
                    numbers=result.numbers,
                    outcome=result.outcome,
                    reason=result.reason,
                    settings=self._settings,
                )
            else:
                claimed = writer.write_recognised_pages(
                    session,
                    claimed,
                    document=self._document,
                    revision_id=self._revision_id,
                    pages=(result,),
                    done=claimed.done + 1,
                    budget=passage_rows.budget_of(self._settings),
                    settings=self._settings,
                )
        self.heartbeat.claimed = claimed
        self.heartbeat.done = claimed.done


def _is_all_recognised(session: Session, revision_id: RevisionId) -> bool:
    """Return whether no page has text that was not recognised: the text of the others is unread."""
    has_text = exists().where(
        Page.revision_id == revision_id, Page.status == PageStatus.READ, Page.text != ""
    )
    return not session.scalar(select(has_text))
