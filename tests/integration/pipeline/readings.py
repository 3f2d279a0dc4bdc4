"""A worker that reads a document, as a test drives it."""

from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.ingest import record, writer
from pipeline.ingest.after_publish import NOTHING, Following
from pipeline.ingest.extractors.extractor import (
    Attachment,
    DocumentMetadata,
    OutlineItem,
    Structure,
)
from pipeline.ingest.frames import DocumentRead, PageReading
from pipeline.ingest.outcome import Next
from pipeline.ingest.record import EndOfReading
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas.errors import DomainError
from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.envelope import Envelope, decode
from schemas.ids import RevisionId
from schemas.lifecycle import JobStatus, StepStatus
from schemas.outcomes import Outcome
from schemas.steps import StepName
from schemas.tables.base import Base
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from tests.factories.readings import BUDGET, SETTINGS, WaitingReading, a_page, status_of

VERSION = "test"
Row = TypeVar("Row", bound=Base)


class Reading:
    """A worker that reads a document, one committed transaction per call."""

    def __init__(
        self, session: Session, waiting: WaitingReading, *, name: StepName = StepName.INGEST
    ) -> None:
        self.session = session
        self.waiting = waiting
        self.claimed = waiting.claim(session, name)
        session.commit()
        self.revision_id = self.begin()

    def begin(self) -> RevisionId:
        revision_id = record.begin_revision(
            self.session,
            self.waiting.document,
            tenant_id=self.waiting.tenant_id,
            pipeline_version=VERSION,
        )
        self.session.commit()
        return revision_id

    def write(self, *pages: PageReading, total: int | None = None) -> None:
        record.lock_document(self.session, self.waiting.document)
        self.claimed = writer.write_pages(
            self.session,
            self.claimed,
            document=self.waiting.document,
            revision_id=self.revision_id,
            pages=pages,
            total=total or pages[-1].number,
            budget=BUDGET,
            settings=SETTINGS,
        )
        self.session.commit()

    def read_pages(self, *outcomes: Outcome) -> None:
        self.write(*(a_page(number, outcome=each) for number, each in enumerate(outcomes, 1)))

    def end(
        self,
        *,
        page_count: int | None = None,
        read: DocumentRead | None = None,
        has_more_pages: bool = False,
        is_ocr_available: bool = False,
        reused_from: RevisionId | None = None,
        following: Following = NOTHING,
    ) -> Next:
        record.lock_document(self.session, self.waiting.document, is_changed=True)
        goes_on = record.end_reading(
            self.session,
            self.claimed,
            self.waiting.document,
            self.revision_id,
            end=EndOfReading(
                page_count=page_count or self.claimed.done,
                read=read or DocumentRead(language="en", language_confidence=0.9),
                has_more_pages=has_more_pages,
                reused_from=reused_from,
            ),
            is_ocr_available=lambda: is_ocr_available,
            settings=SETTINGS,
            event_context=self.waiting.context(self.session),
            following=following,
        )
        self.session.commit()
        return goes_on

    def next_step(self, name: StepName) -> "Reading":
        return Reading(self.session, self.waiting, name=name)

    def recognise(self, *pages: PageReading) -> None:
        self.claimed = writer.write_recognised_pages(
            self.session,
            self.claimed,
            document=self.waiting.document,
            revision_id=self.revision_id,
            pages=pages,
            done=self.claimed.done + len(pages),
            budget=BUDGET,
            settings=SETTINGS,
        )
        self.session.commit()

    def end_recognition(self) -> None:
        record.end_recognition(
            self.session,
            self.claimed,
            self.waiting.document,
            self.revision_id,
            read=None,
            settings=SETTINGS,
            event_context=self.waiting.context(self.session),
        )
        self.session.commit()

    def give_up(self, error: DomainError, *, name: StepName = StepName.INGEST) -> StepStatus:
        lease.release_lease(self.session, self.claimed)
        status = record.record_failed(
            self.session,
            self.waiting.document,
            name=name,
            error=error,
            settings=SETTINGS,
            event_context=self.waiting.context(self.session),
        )
        self.session.commit()
        return status

    def describe(self) -> None:
        claimed = self.waiting.claim(self.session, StepName.METADATA)
        self.session.commit()
        self.record_structure(self.session, claimed)

    def record_structure(self, session: Session, claimed: ClaimedStep) -> None:
        record.record_structure(
            session,
            claimed,
            self.waiting.document,
            self.revision_id,
            structure=STRUCTURE,
            page_count=99,
            language="de",
            language_confidence=0.6,
            has_thumbnail=True,
            settings=SETTINGS,
        )
        session.commit()

    @property
    def document(self) -> Document:
        return self.fresh(Document, self.waiting.document.document_id)

    @property
    def revision(self) -> Revision:
        return self.fresh(Revision, self.revision_id)

    @property
    def job(self) -> Job:
        return self.fresh(Job, self.waiting.job_id)

    def job_status(self) -> JobStatus:
        return self.job.status

    def page(self, number: int) -> Page:
        return self.fresh(Page, (self.revision_id, number))

    def events(self) -> list[Envelope]:
        bodies = self.session.scalars(
            select(EventRecord.body)
            .where(
                EventRecord.job_id == self.waiting.job_id,
                EventRecord.type.in_((IngestedEvent.TYPE, DocumentFailed.TYPE)),
            )
            .order_by(EventRecord.id)
        )
        return [decode(body) for body in bodies]

    def ingested(self) -> IngestedEvent:
        (event,) = self.events()
        assert isinstance(event.data, IngestedEvent)
        return event.data

    def step(self, name: StepName) -> StepStatus | None:
        status = status_of(self.session, self.waiting.job_id, name)
        self.session.rollback()
        return status

    def fresh(self, table: type[Row], key: object) -> Row:
        self.session.expire_all()
        row = self.session.get_one(table, key)
        self.session.rollback()
        return row


STRUCTURE = Structure(
    metadata=DocumentMetadata(title="A title"),
    outline=(OutlineItem(title="One", level=0, page=1),),
    attachments=(Attachment(name="a.txt"),),
    page_labels=("i",),
    is_cut=True,
)
