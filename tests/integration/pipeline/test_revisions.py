"""A document is read into a revision, which one transaction publishes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, create_engine, delete, func, select, text, update
from sqlalchemy.orm import Session

from pipeline.ingest import record, writer
from pipeline.ingest.errors import DocumentCorrupt, DocumentDuplicate, DocumentError
from pipeline.ingest.frames import DocumentRead, PageReading
from pipeline.ingest.outcome import Next
from pipeline.ingest.record import DocumentGone, EndOfReading
from pipeline.steps import lease
from pipeline.steps.errors import LeaseLost, StepCancelled
from schemas.errors import ErrorCode
from schemas.events.documents import DocumentFailed
from schemas.ids import RevisionId, TenantId
from schemas.lifecycle import (
    DocumentStatus,
    JobStatus,
    PageStatus,
    RevisionState,
    StepStatus,
)
from schemas.outcomes import Outcome
from schemas.settings import DatabaseSettings
from schemas.spans import SPAN_KINDS, SpanKind
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.documents import Document, Entity, Page, Revision
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant
from tests.factories.readings import (
    BUDGET,
    SENTENCE,
    SETTINGS,
    a_page,
    add_reprocessing,
    add_stored,
)
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.readings import STRUCTURE, VERSION, Reading


@pytest.fixture
def engine(database: DatabaseSettings) -> Iterator[Engine]:
    engine = create_engine(database.database_url.get_secret_value())
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture
def tenant_id(session: Session) -> TenantId:
    return add_tenant(session)


@pytest.fixture
def reading(session: Session, tenant_id: TenantId) -> Reading:
    return Reading(session, add_stored(session, tenant_id=tenant_id))


def rows(session: Session, table: type[Page | Entity | Revision]) -> int:
    count = session.scalar(select(func.count()).select_from(table)) or 0
    session.rollback()
    return count


def test_pages_are_unseen_until_their_revision_is_published(reading: Reading) -> None:
    reading.read_pages(Outcome.COMPLETE, Outcome.NO_TEXT)
    assert (reading.document.status, reading.document.revision_id) == (DocumentStatus.READING, None)
    assert reading.revision.state is RevisionState.WRITING

    assert reading.end() is Next.PUBLISH

    document, revision = reading.document, reading.revision
    assert (document.status, document.outcome) == (DocumentStatus.INGESTED, Outcome.COMPLETE)
    assert document.revision_id == revision.id
    assert (revision.state, revision.number) == (RevisionState.PUBLISHED, 1)
    assert (revision.page_count, revision.pages_read, revision.pages_no_text) == (2, 2, 1)
    assert (revision.passages, revision.entities, revision.truncated) == (1, 1, False)
    assert (revision.language, revision.reasons) == ("en", [])
    event = reading.ingested()
    assert (event.pages, event.pages_read, event.passages, event.entities) == (2, 2, 1, 1)
    assert (event.outcome, event.revision, event.is_superseded) == (Outcome.COMPLETE, 1, False)
    result = reading.job.result
    assert result is not None
    assert (result["outcome"], result["pages"], result["sha256"]) == ("complete", 2, "ab" * 32)


def test_a_page_keeps_its_offsets_and_its_place(reading: Reading) -> None:
    reading.write(a_page(1))
    page = reading.page(1)
    assert (page.status, page.outcome, page.text) == (PageStatus.READ, Outcome.COMPLETE, SENTENCE)
    assert (page.sentences, page.lines) == ([0, 26], [0, 26, 72, 90, 300, 102])
    assert page.spans == [SPAN_KINDS.index(SpanKind.FOOTER), 9, 25]
    assert (page.language, page.language_confidence) == ("en", 0.5)
    assert (page.engine, page.engine_version, page.confidence) == ("pdfium", "5.15", None)


def test_the_job_is_completed_only_with_its_metadata(reading: Reading) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    assert reading.job_status() is JobStatus.PROCESSING
    reading.describe()
    assert reading.job_status() is JobStatus.COMPLETED


def test_metadata_does_not_replace_what_the_whole_reading_found(reading: Reading) -> None:
    reading.describe()
    described = reading.revision
    assert (described.title, described.page_count, described.language) == ("A title", 99, "de")
    assert described.outline == [{"title": "One", "level": 0, "page": 1}]
    assert (described.page_labels, described.has_thumbnail) == (["i"], True)
    assert described.structure_is_cut
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    assert (reading.revision.title, reading.revision.page_count) == ("A title", 1)
    assert reading.revision.language == "en"


def test_late_metadata_does_not_replace_what_the_whole_reading_found(reading: Reading) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    reading.describe()
    assert (reading.revision.title, reading.revision.page_count) == ("A title", 1)
    assert reading.revision.language == "en"


def test_late_metadata_adds_no_language_to_a_document_that_has_none(reading: Reading) -> None:
    reading.read_pages(Outcome.NO_TEXT)
    reading.end(read=DocumentRead())
    reading.describe()
    assert (reading.revision.language, reading.revision.language_confidence) == (None, None)


def test_the_ends_of_a_reading_and_of_its_metadata_do_not_deadlock(
    reading: Reading, engine: Engine
) -> None:
    waiting, claimed = reading.waiting, reading.claimed
    metadata = waiting.claim(reading.session, StepName.METADATA)
    reading.session.commit()
    with Session(engine) as ending, Session(engine) as other, ThreadPoolExecutor(1) as pool:
        record.lock_document(ending, waiting.document, is_changed=True)
        claimed = writer.write_pages(
            ending,
            claimed,
            document=waiting.document,
            revision_id=reading.revision_id,
            pages=[a_page(1)],
            total=1,
            budget=BUDGET,
            settings=SETTINGS,
        )
        described = pool.submit(reading.record_structure, other, metadata)
        while not described.done() and not _is_someone_blocked(engine):
            wait([described], timeout=0.05)
        record.end_reading(
            ending,
            claimed,
            waiting.document,
            reading.revision_id,
            end=EndOfReading(page_count=1, read=DocumentRead(language="en")),
            is_ocr_available=lambda: False,
            settings=SETTINGS,
            event_context=waiting.context(ending),
        )
        ending.commit()
        described.result(timeout=10)
    assert reading.job.status is JobStatus.COMPLETED
    assert reading.revision.title == "A title"


def _is_someone_blocked(engine: Engine) -> bool:
    with engine.connect() as connection:
        blocked = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.scalar(blocked))


def test_a_failure_of_the_metadata_does_not_fail_the_job(reading: Reading) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    for _ in range(2):
        status = record.record_structure_failed(
            reading.session,
            reading.waiting.document,
            error=DocumentCorrupt(),
            settings=SETTINGS,
        )
        reading.session.commit()
        assert status is StepStatus.COMPLETED
    step = reading.fresh(Step, (reading.waiting.job_id, StepName.METADATA))
    assert (step.status, step.error_code) == (StepStatus.COMPLETED, "document_corrupt")
    assert reading.job.status is JobStatus.COMPLETED
    assert reading.revision.document_metadata is None


def test_a_next_worker_goes_on_after_the_last_written_page(
    reading: Reading, session: Session
) -> None:
    reading.write(a_page(1), a_page(2), total=3)
    lease.release_lease(session, reading.claimed)
    session.commit()

    successor = Reading(session, reading.waiting)

    assert (successor.claimed.done, successor.revision_id) == (2, reading.revision_id)
    successor.write(a_page(3))
    successor.end()
    assert successor.revision.pages_read == 3
    assert rows(session, Revision) == 1


def test_a_worker_that_lost_its_lease_writes_no_page(reading: Reading, session: Session) -> None:
    session.execute(update(Step).values(lease_until=func.now() - timedelta(seconds=1)))
    session.commit()
    successor = reading.waiting.claim(session, StepName.INGEST, owner="two")
    session.commit()
    with pytest.raises(LeaseLost):
        reading.write(a_page(1))
    session.rollback()
    assert rows(session, Page) == 0
    reading.claimed = successor
    reading.write(a_page(1))
    assert rows(session, Page) == 1


def test_two_steps_of_a_job_that_begin_at_once_write_one_revision(
    engine: Engine, session: Session, tenant_id: TenantId
) -> None:
    waiting = add_stored(session, tenant_id=tenant_id)
    session.commit()

    def begin(_: int) -> RevisionId:
        with Session(engine) as own, own.begin():
            return record.begin_revision(
                own,
                waiting.document,
                tenant_id=tenant_id,
                pipeline_version=VERSION,
            )

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(begin, range(8)))) == 1


@pytest.mark.parametrize(
    ("outcomes", "outcome", "status"),
    [
        ([Outcome.COMPLETE, Outcome.CORRUPT], Outcome.PARTIAL, DocumentStatus.PARTIAL),
        ([Outcome.COMPLETE, Outcome.NEEDS_OCR], Outcome.PARTIAL, DocumentStatus.PARTIAL),
        ([Outcome.NEEDS_OCR], Outcome.NEEDS_OCR, DocumentStatus.PARTIAL),
        ([Outcome.NO_TEXT], Outcome.NO_TEXT, DocumentStatus.INGESTED),
    ],
)
def test_a_completed_job_says_what_is_missing(
    outcomes: Sequence[Outcome], outcome: Outcome, status: DocumentStatus, reading: Reading
) -> None:
    reading.describe()
    reading.read_pages(*outcomes)
    reading.end()
    assert (reading.document.status, reading.document.outcome) == (status, outcome)
    assert (reading.document.error_code, reading.job.status) == (None, JobStatus.COMPLETED)
    missing = [each for each in outcomes if each not in {Outcome.COMPLETE, Outcome.NO_TEXT}]
    event, result = reading.ingested(), reading.job.result
    assert [reason.outcome for reason in event.reasons] == missing
    assert result is not None
    assert [reason["outcome"] for reason in result["reasons"]] == missing
    assert [reason["outcome"] for reason in reading.revision.reasons] == missing
    assert event.pages_failed == outcomes.count(Outcome.CORRUPT)
    assert event.pages_needs_ocr == outcomes.count(Outcome.NEEDS_OCR)


def test_a_document_that_is_cut_says_so(reading: Reading) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end(
        page_count=9,
        read=DocumentRead(cut=Outcome.LIMIT_PAGES, cut_reason="Only one page is read."),
    )
    assert reading.document.status is DocumentStatus.PARTIAL
    (reason,) = reading.ingested().reasons
    assert (reason.outcome, reason.pages) == (Outcome.LIMIT_PAGES, ((2, 9),))
    assert reading.revision.truncated
    assert reading.revision.language == "en"  # of its pages


def test_a_document_without_a_readable_page_fails_with_the_outcome_of_its_pages(
    reading: Reading, session: Session
) -> None:
    reading.read_pages(Outcome.TIMEOUT_PAGE, Outcome.TIMEOUT_PAGE)
    with pytest.raises(DocumentError) as raised:
        reading.end()
    session.rollback()
    for _ in range(2):
        assert reading.give_up(raised.value) is StepStatus.FAILED
    document, (event,) = reading.document, reading.events()
    assert (document.status, document.outcome) == (DocumentStatus.FAILED, Outcome.TIMEOUT_PAGE)
    assert (document.error_code, document.revision_id) == ("document_timeout", None)
    assert isinstance(event.data, DocumentFailed)
    assert (event.data.code, event.data.outcome) == ("document_timeout", Outcome.TIMEOUT_PAGE)
    assert reading.job.status is JobStatus.FAILED


def test_pages_beyond_the_share_of_time_are_read_by_another_step(
    reading: Reading, session: Session
) -> None:
    reading.describe()
    reading.write(a_page(1), a_page(2), total=4)
    assert reading.end(page_count=4, has_more_pages=True) is Next.READ_THE_REST
    assert reading.step(StepName.INGEST) is StepStatus.COMPLETED
    assert (reading.job.status, reading.events()) == (JobStatus.PROCESSING, [])
    assert reading.document.revision_id is None
    message = session.scalars(select(OutboxMessage).order_by(OutboxMessage.id.desc())).first()
    assert message is not None
    assert (message.queue, message.event_id) == ("batch_processing", reading.waiting.event_id)
    session.rollback()

    rest = reading.next_step(StepName.INGEST_REST)
    assert (rest.claimed.done, rest.claimed.total, rest.claimed.is_first) == (2, 4, True)
    assert rest.revision_id == reading.revision_id
    rest.write(a_page(3), a_page(4))
    assert rest.end() is Next.PUBLISH
    assert (reading.revision.pages_read, reading.job.status) == (4, JobStatus.COMPLETED)


def test_pages_with_text_are_readable_before_ocr_ends(reading: Reading) -> None:
    reading.describe()
    reading.read_pages(Outcome.COMPLETE, Outcome.NEEDS_OCR, Outcome.NEEDS_OCR)
    assert reading.end(is_ocr_available=True) is Next.RECOGNISE
    document = reading.document
    assert (document.status, document.revision_id) == (DocumentStatus.READING, reading.revision_id)
    assert (reading.revision.state, reading.events()) == (RevisionState.WRITING, [])

    ocr = reading.next_step(StepName.OCR)
    assert ocr.claimed.total == 2
    assert record.pages_to_recognise(ocr.session, ocr.claimed, ocr.revision_id) == [2, 3]
    ocr.recognise(replace_page(a_page(2), confidence=0.8))
    assert record.pages_to_recognise(ocr.session, ocr.claimed, ocr.revision_id) == [3]
    ocr.recognise(a_page(3, outcome=Outcome.NEEDS_OCR))
    ocr.end_recognition()

    assert (reading.page(2).status, reading.page(2).text) == (PageStatus.OCR, SENTENCE)
    assert (reading.page(3).status, reading.page(3).text) == (PageStatus.NEEDS_OCR, "")
    document, revision = reading.document, reading.revision
    assert (document.status, document.outcome) == (DocumentStatus.PARTIAL, Outcome.PARTIAL)
    assert (revision.pages_read, revision.pages_ocr, revision.pages_needs_ocr) == (1, 1, 1)
    assert revision.entities == 2
    event = reading.ingested()
    assert (event.pages_ocr, event.pages_needs_ocr) == (1, 1)
    assert reading.job.status is JobStatus.COMPLETED


def test_ocr_without_a_result_leaves_the_text_that_a_page_has(reading: Reading) -> None:
    outcomes = Outcome.NEEDS_OCR, Outcome.TIMEOUT_PAGE, Outcome.NO_TEXT
    little = [
        msgspec.structs.replace(a_page(number), outcome=Outcome.NEEDS_OCR, reason="Little text.")
        for number in range(1, len(outcomes) + 1)
    ]
    reading.write(*little)
    reading.end(is_ocr_available=True)
    ocr = reading.next_step(StepName.OCR)
    for number, each in enumerate(outcomes, start=1):
        ocr.recognise(a_page(number, outcome=each))
    ocr.end_recognition()

    pages = [reading.page(page.number) for page in little]
    assert [page.text for page in pages] == [SENTENCE] * 3
    assert [page.lines for page in pages] == [[0, 26, 72, 90, 300, 102]] * 3
    assert [(page.status, page.outcome) for page in pages] == [
        (PageStatus.NEEDS_OCR, Outcome.NEEDS_OCR),
        (PageStatus.NEEDS_OCR, Outcome.TIMEOUT_PAGE),
        (PageStatus.READ, Outcome.COMPLETE),
    ]
    assert reading.revision.entities == 3


def test_a_next_ocr_worker_does_not_try_a_page_again(reading: Reading, session: Session) -> None:
    reading.read_pages(Outcome.NEEDS_OCR, Outcome.NEEDS_OCR)
    reading.end(is_ocr_available=True)
    ocr = reading.next_step(StepName.OCR)
    ocr.recognise(a_page(1, outcome=Outcome.NEEDS_OCR))
    lease.release_lease(session, ocr.claimed)
    session.commit()
    successor = reading.next_step(StepName.OCR)
    assert record.pages_to_recognise(session, successor.claimed, ocr.revision_id) == [2]


def test_a_cut_is_still_known_after_ocr(reading: Reading) -> None:
    reading.read_pages(Outcome.NEEDS_OCR)
    reading.end(
        page_count=5,
        read=DocumentRead(cut=Outcome.LIMIT_PAGES, cut_reason="Only one page is read."),
        is_ocr_available=True,
    )
    ocr = reading.next_step(StepName.OCR)
    ocr.recognise(replace_page(a_page(1), confidence=0.9))
    ocr.end_recognition()
    (reason,) = reading.ingested().reasons
    assert (reason.outcome, reason.pages) == (Outcome.LIMIT_PAGES, ((2, 5),))


def test_a_failure_of_ocr_publishes_the_pages_that_were_read(reading: Reading) -> None:
    reading.describe()
    reading.read_pages(Outcome.COMPLETE, Outcome.NEEDS_OCR)
    reading.end(is_ocr_available=True)
    ocr = reading.next_step(StepName.OCR)
    for _ in range(2):
        assert ocr.give_up(DocumentCorrupt(), name=StepName.OCR) is StepStatus.COMPLETED
    assert (reading.document.status, reading.job.status) == (
        DocumentStatus.PARTIAL,
        JobStatus.COMPLETED,
    )
    assert reading.ingested().pages_needs_ocr == 1


def test_a_newer_revision_replaces_the_published_one(reading: Reading, session: Session) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    again = Reading(session, add_reprocessing(session, reading.waiting))
    assert again.revision.number == 2
    again.read_pages(Outcome.COMPLETE, Outcome.CORRUPT)
    assert reading.document.revision_id == reading.revision_id
    again.end()
    document = reading.document
    assert (document.revision_id, document.status) == (again.revision_id, DocumentStatus.PARTIAL)
    assert reading.revision.state is RevisionState.SUPERSEDED
    assert (again.ingested().revision, again.ingested().is_superseded) == (2, False)
    result = again.job.result
    assert result is not None
    assert result["document_id"] == str(document.id)


def test_a_revision_that_ends_after_a_newer_one_does_not_replace_it(
    reading: Reading, session: Session
) -> None:
    reading.describe()
    reading.read_pages(Outcome.NEEDS_OCR)
    reading.end(is_ocr_available=True)
    newer = Reading(session, add_reprocessing(session, reading.waiting))
    newer.read_pages(Outcome.COMPLETE)
    newer.end()
    ocr = reading.next_step(StepName.OCR)
    ocr.recognise(replace_page(a_page(1), confidence=0.9))
    ocr.end_recognition()

    document = reading.document
    assert (document.revision_id, document.outcome) == (newer.revision_id, Outcome.COMPLETE)
    assert newer.revision.state is RevisionState.PUBLISHED
    assert reading.revision.state is RevisionState.SUPERSEDED
    assert reading.job.status is JobStatus.COMPLETED
    event = reading.ingested()
    assert (event.revision, event.is_superseded) == (1, True)


def test_a_failed_reprocessing_keeps_the_published_revision(
    reading: Reading, session: Session
) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    again = Reading(session, add_reprocessing(session, reading.waiting))
    again.write(a_page(1))
    again.give_up(DocumentCorrupt())
    document = reading.document
    assert (document.status, document.error_code) == (DocumentStatus.INGESTED, None)
    assert document.revision_id == reading.revision_id
    assert again.job.status is JobStatus.FAILED


def test_a_failed_document_that_is_read_again_shows_no_earlier_outcome(
    reading: Reading, session: Session
) -> None:
    reading.give_up(DocumentCorrupt())
    again = Reading(session, add_reprocessing(session, reading.waiting))
    again.read_pages(Outcome.COMPLETE, Outcome.NEEDS_OCR)
    assert again.end(is_ocr_available=True) is Next.RECOGNISE
    document = reading.document
    assert (document.status, document.outcome) == (DocumentStatus.READING, None)


def test_a_document_whose_type_is_not_read_stays_stored_if_it_cannot_be_read_on_request(
    reading: Reading, session: Session
) -> None:
    session.execute(update(Document).values(status=DocumentStatus.STORED))
    session.commit()
    again = Reading(session, add_reprocessing(session, reading.waiting))
    again.give_up(DocumentCorrupt())
    document = reading.document
    assert (document.status, document.error_code) == (DocumentStatus.STORED, None)
    assert again.job.status is JobStatus.FAILED

    third = Reading(session, add_reprocessing(session, reading.waiting))
    third.read_pages(Outcome.COMPLETE)
    third.end()
    assert reading.document.status is DocumentStatus.INGESTED


def test_a_reprocessing_of_a_failed_document_can_succeed(
    reading: Reading, session: Session
) -> None:
    reading.give_up(DocumentCorrupt())
    assert reading.document.status is DocumentStatus.FAILED
    again = Reading(session, add_reprocessing(session, reading.waiting))
    again.read_pages(Outcome.COMPLETE)
    again.end()
    document = reading.document
    assert (document.status, document.error_code) == (DocumentStatus.INGESTED, None)
    assert (document.outcome, document.revision_id) == (Outcome.COMPLETE, again.revision_id)


def purge(reading: Reading) -> None:
    """Cancel the job and delete the document, as a purge of the upload does."""
    reading.session.execute(steps.cancel(reading.waiting.job_id))
    reading.session.execute(
        delete(Document).where(Document.id == reading.waiting.document.document_id)
    )
    reading.session.commit()


def record_structure_of(reading: Reading) -> None:
    record.record_structure(
        reading.session,
        reading.claimed,
        reading.waiting.document,
        reading.revision_id,
        structure=STRUCTURE,
        page_count=1,
        language=None,
        language_confidence=None,
        has_thumbnail=False,
        settings=SETTINGS,
    )


STEPS_OF_A_READING: list[tuple[str, Callable[[Reading], object]]] = [
    ("begin", Reading.begin),
    ("write", lambda reading: reading.write(a_page(2))),
    ("end", lambda reading: reading.end()),
    ("record the structure", record_structure_of),
]


@pytest.mark.parametrize(
    "act", [act for _, act in STEPS_OF_A_READING], ids=[name for name, _ in STEPS_OF_A_READING]
)
def test_a_purge_stops_a_reading_and_leaves_no_row(
    act: Callable[[Reading], object], reading: Reading, session: Session
) -> None:
    reading.write(a_page(1))
    purge(reading)
    with pytest.raises(StepCancelled):
        act(reading)
    session.rollback()
    assert [rows(session, table) for table in (Revision, Page, Entity)] == [0, 0, 0]
    assert reading.events() == []


@pytest.mark.parametrize(
    "act", [act for _, act in STEPS_OF_A_READING], ids=[name for name, _ in STEPS_OF_A_READING]
)
def test_a_deleted_document_fails_the_job_that_reads_it(
    act: Callable[[Reading], object], reading: Reading, session: Session
) -> None:
    session.execute(delete(Document))
    session.commit()
    with pytest.raises(DocumentGone) as raised:
        act(reading)
    session.rollback()
    assert reading.give_up(raised.value) is StepStatus.FAILED
    (event,) = reading.events()
    assert isinstance(event.data, DocumentFailed)
    assert (event.data.code, reading.job.status) == ("document_not_found", JobStatus.FAILED)


def test_only_the_purge_of_an_upload_deletes_its_document(
    reading: Reading, session: Session
) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    again = Reading(session, add_reprocessing(session, reading.waiting))
    session.execute(steps.cancel(again.waiting.job_id))
    record.delete_purged(session, again.waiting.document)
    session.commit()
    assert again.job.status is JobStatus.CANCELLED
    assert reading.document.revision_id == reading.revision_id


def test_a_purge_does_not_wait_for_a_transaction_that_writes_pages(
    reading: Reading, engine: Engine
) -> None:
    """The purge has cancelled the steps, which the writer changes last: a wait would be a deadlock."""
    record.lock_document(reading.session, reading.waiting.document)
    free = select(Document.id).with_for_update(skip_locked=True)
    with Session(engine) as purging:
        assert purging.scalar(free) is None
    reading.session.rollback()
    with Session(engine) as purging:
        assert purging.scalar(free) is not None


def replace_page(page: PageReading, *, confidence: float) -> PageReading:
    return msgspec.structs.replace(page, confidence=confidence)


@pytest.fixture
def original(reading: Reading) -> Reading:
    """A published document of two pages."""
    reading.read_pages(Outcome.COMPLETE, Outcome.NO_TEXT)
    reading.end(read=DocumentRead(language="en", language_confidence=0.9, key_phrases=("desk",)))
    return reading


def duplicate_of(reading: Reading, *, version: str = VERSION) -> record.Duplicate | None:
    found = record.find_duplicate(
        reading.session,
        reading.waiting.document,
        tenant_id=reading.waiting.tenant_id,
        pipeline_version=version,
    )
    reading.session.rollback()
    return found


def copy(reading: Reading, duplicate: record.Duplicate) -> None:
    reading.claimed = writer.copy_pages(
        reading.session,
        reading.claimed,
        document=reading.waiting.document,
        revision_id=reading.revision_id,
        duplicate=duplicate,
        total=duplicate.page_count,
        settings=SETTINGS,
    )
    reading.session.commit()


def test_the_reading_of_the_same_bytes_is_copied(
    original: Reading, session: Session, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COPIED_PAGES_MAX", 1)
    reading = Reading(session, add_stored(session, tenant_id=tenant_id))
    duplicate = duplicate_of(reading)
    assert duplicate is not None
    assert duplicate.document_id == original.waiting.document.document_id
    for done in (1, 2):
        copy(reading, duplicate)
        assert reading.claimed.done == done
    reading.end(
        page_count=duplicate.page_count,
        read=duplicate.read,
        reused_from=duplicate.revision_id,
    )
    revision = reading.revision
    assert (revision.reused_from, revision.outcome) == (original.revision_id, Outcome.COMPLETE)
    assert (revision.pages_read, revision.passages, revision.entities) == (2, 1, 1)
    assert (revision.language, revision.key_phrases) == ("en", ["desk"])
    copied, source = reading.page(1), original.page(1)
    columns = [column.name for column in Page.__table__.columns if column.name != "revision_id"]
    assert [getattr(copied, name) for name in columns] == [
        getattr(source, name) for name in columns
    ]
    assert reading.ingested().document_id == reading.document.id


def test_a_copy_of_a_duplicate_that_is_deleted_can_go_on_by_reading(
    original: Reading, session: Session, tenant_id: TenantId
) -> None:
    reading = Reading(session, add_stored(session, tenant_id=tenant_id))
    duplicate = duplicate_of(reading)
    assert duplicate is not None
    purge(original)
    copy(reading, duplicate)
    assert reading.claimed.done == 0
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    assert reading.document.status is DocumentStatus.INGESTED


def test_a_duplicate_that_is_replaced_meanwhile_is_not_copied(
    original: Reading, session: Session
) -> None:
    """The sweep deletes the entities of a replaced revision before its pages."""
    twin = Reading(session, add_stored(session, tenant_id=original.waiting.tenant_id))
    duplicate = duplicate_of(twin)
    assert duplicate is not None
    session.execute(
        update(Revision)
        .where(Revision.id == duplicate.revision_id)
        .values(state=RevisionState.SUPERSEDED)
    )
    session.execute(delete(Entity).where(Entity.revision_id == duplicate.revision_id))
    session.commit()
    copy(twin, duplicate)
    assert twin.claimed.done == 0


@pytest.mark.usefixtures("original")
def test_only_a_whole_reading_of_the_tenant_by_the_same_version_is_a_duplicate(
    session: Session, tenant_id: TenantId
) -> None:
    same = Reading(session, add_stored(session, tenant_id=tenant_id))
    assert duplicate_of(same) is not None
    assert duplicate_of(same, version="other") is None
    assert (
        duplicate_of(Reading(session, add_stored(session, tenant_id=add_tenant(session)))) is None
    )
    other = add_stored(session, tenant_id=tenant_id, sha256="cd" * 32)
    assert duplicate_of(Reading(session, other)) is None
    assert duplicate_of(Reading(session, add_reprocessing(session, same.waiting))) is None
    session.execute(update(Revision).values(outcome=Outcome.PARTIAL))
    session.commit()
    assert duplicate_of(same) is None


def test_the_same_bytes_under_a_name_of_another_format_are_no_duplicate(
    original: Reading, session: Session
) -> None:
    unknown = "application/octet-stream"
    session.execute(update(Document).values(content_type=unknown, filename="a.txt"))

    def named(filename: str) -> Reading:
        waiting = add_stored(session, tenant_id=original.waiting.tenant_id, filename=filename)
        document = msgspec.structs.replace(waiting.document, content_type=unknown)
        return Reading(session, replace(waiting, document=document))

    assert duplicate_of(named("b.md")) is not None
    assert duplicate_of(named("b.html")) is None


def test_a_tenant_may_refuse_the_bytes_of_an_earlier_document(
    original: Reading, session: Session, tenant_id: TenantId
) -> None:
    session.execute(update(Tenant).where(Tenant.id == tenant_id).values(refuses_duplicates=True))
    session.commit()
    again = Reading(session, add_stored(session, tenant_id=tenant_id))
    with pytest.raises(DocumentDuplicate) as raised:
        duplicate_of(again)
    assert str(original.document.id) in str(raised.value)
    again.give_up(raised.value)
    assert (again.document.status, again.document.outcome) == (
        DocumentStatus.FAILED,
        Outcome.DUPLICATE,
    )
    assert again.document.error_code == ErrorCode.DOCUMENT_DUPLICATE


def test_only_an_earlier_document_that_can_be_read_is_a_refused_duplicate(
    original: Reading, session: Session, tenant_id: TenantId
) -> None:
    session.execute(update(Tenant).where(Tenant.id == tenant_id).values(refuses_duplicates=True))
    session.commit()
    later = Reading(session, add_stored(session, tenant_id=tenant_id))
    # The earlier one is not refused because of the later one.
    duplicate_of(original)
    assert duplicate_of(Reading(session, add_reprocessing(session, original.waiting))) is None
    session.execute(
        update(Document)
        .where(Document.id == original.document.id)
        .values(status=DocumentStatus.FAILED)
    )
    session.commit()
    duplicate_of(later)


def summary_of(reading: Reading) -> dict[str, Any]:
    result = reading.job.result
    assert result is not None
    summary: dict[str, Any] = result["summary"]
    return summary


@pytest.mark.parametrize("is_described_first", [True, False])
def test_the_result_of_a_job_has_a_summary(reading: Reading, *, is_described_first: bool) -> None:
    if is_described_first:
        reading.describe()
    reading.read_pages(Outcome.NO_TEXT, Outcome.COMPLETE, Outcome.CORRUPT)
    reading.end()
    if not is_described_first:
        assert summary_of(reading)["title"] is None
        reading.describe()

    summary = summary_of(reading)
    (missing,) = summary.pop("missing")
    assert missing.startswith("Page 3: ")
    assert summary == {
        "title": "A title",
        "language": "en",
        "first_lines": [SENTENCE],
        "pages": 3,
        "sentences": 1,
        "entities": 1,
    }


def test_the_deletion_of_a_document_takes_its_summaries_back(
    reading: Reading, session: Session
) -> None:
    reading.read_pages(Outcome.COMPLETE)
    reading.end()
    again = Reading(session, add_reprocessing(session, reading.waiting))
    again.read_pages(Outcome.COMPLETE)
    again.end()
    assert summary_of(again)["first_lines"] == [SENTENCE]

    session.execute(delete(Document).where(Document.id == reading.waiting.document.document_id))
    session.commit()

    for each in (reading, again):
        assert each.job.result is not None
        assert "summary" not in each.job.result
        assert each.job.result["pages"] == 1
