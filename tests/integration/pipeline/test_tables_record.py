"""Tables and figures are written once, with their passages, after the revision is published."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session

from pipeline.enrich.passages import Budget
from pipeline.ingest import tables_record
from pipeline.ingest.after_publish import Following
from pipeline.ingest.errors import DocumentCorrupt
from pipeline.ingest.frames import PageReading
from pipeline.ingest.record import RevisionReplaced
from pipeline.ingest.whole_tables import Settled, UnsearchedPages
from pipeline.steps import lease
from pipeline.steps.errors import LeaseLost, StepCancelled
from schemas.events.documents import TablesRequested
from schemas.events.envelope import decode
from schemas.ids import TenantId
from schemas.lifecycle import (
    JobStatus,
    PassageKind,
    RevisionState,
    StepStatus,
    TablesState,
)
from schemas.outcomes import Outcome
from schemas.runtime.jobs.cancel import cancel_job
from schemas.runtime.jobs.retry import retry_job
from schemas.settings import DatabaseSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.documents import DocumentTable, Figure, Revision
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.passages import Passage
from schemas.tables.uploads import Upload
from tests.factories.readings import SETTINGS, a_page, add_reprocessing, add_stored
from tests.factories.tables import a_figure, a_table
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.readings import Reading
from tests.integration.pipeline.test_revisions import copy, duplicate_of

FINDS_TABLES = Following(finds_tables=True)
BUDGET = Budget(tokens=50, overlap=0)
ROW = ("Hamburg", "Coffee", "1200")


@pytest.fixture
def session(database: DatabaseSettings) -> Iterator[Session]:
    engine = create_engine(database.database_url.get_secret_value())
    with Session(engine, expire_on_commit=False) as session:
        yield session
    engine.dispose()


@pytest.fixture
def tenant_id(session: Session) -> TenantId:
    return add_tenant(session)


class Search:
    """A worker of the step `tables`, one committed transaction per call."""

    def __init__(self, reading: Reading, *, owner: str = "one") -> None:
        self.session = reading.session
        self.reading = reading
        self.claimed = reading.waiting.claim(self.session, StepName.TABLES, owner=owner)
        self.work = tables_record.begin(self.session, self.document)
        self.session.commit()

    @property
    def document(self) -> TablesRequested:
        body = self.session.scalars(
            select(EventRecord.body).where(
                EventRecord.job_id == self.reading.waiting.job_id,
                EventRecord.type == TablesRequested.TYPE,
            )
        ).one()
        event = decode(body).data
        assert isinstance(event, TablesRequested)
        return event

    def write(self, found: Settled) -> None:
        self.claimed, self.work = tables_record.write(
            self.session,
            self.claimed,
            self.document,
            self.work,
            found=found,
            total=9,
            budget=BUDGET,
            settings=SETTINGS,
        )
        self.session.commit()

    def end(self) -> None:
        tables_record.end(
            self.session,
            self.claimed,
            self.document,
            self.work,
            following=FINDS_TABLES,
            settings=SETTINGS,
            event_context=self.reading.waiting.context(self.session),
        )
        self.session.commit()

    def copied(self) -> Settled | None:
        found = tables_record.next_to_copy(self.session, self.work, done=self.claimed.done)
        self.session.commit()
        return found


def read(session: Session, tenant_id: TenantId, **columns: Any) -> Reading:  # noqa: ANN401  # columns of the upload
    """Read a document of three pages, and publish it."""
    waiting = add_stored(session, tenant_id=tenant_id)
    if columns:
        session.execute(
            update(Upload).where(Upload.id == waiting.document.upload_id).values(columns)
        )
    reading = Reading(session, waiting)
    reading.read_pages(*[Outcome.COMPLETE] * 3)
    reading.end(following=FINDS_TABLES)
    return reading


def searched(session: Session, tenant_id: TenantId) -> Search:
    """Return a worker that has found two tables and a figure."""
    search = Search(read(session, tenant_id))
    search.write(found(a_table(ROW), a_table(ROW, page=3), figures=1, last_page=3))
    return search


def found(*tables: Any, figures: int = 0, last_page: int = 1) -> Settled:  # noqa: ANN401  # `TableFound`
    return Settled(tables=tables, figures=[a_figure() for _ in range(figures)], last_page=last_page)


def rows(session: Session, table: type[Any], reading: Reading) -> Sequence[Any]:
    session.expire_all()
    key = table.number if hasattr(table, "number") else table.ordinal
    return session.scalars(
        select(table).where(table.revision_id == reading.revision_id).order_by(key)
    ).all()


def table_passages(session: Session, reading: Reading) -> list[Passage]:
    return [each for each in rows(session, Passage, reading) if each.kind is PassageKind.TABLE]


def state(reading: Reading) -> TablesState | None:
    return reading.revision.tables_state


def test_the_publication_adds_the_step(session: Session, tenant_id: TenantId) -> None:
    reading = read(session, tenant_id)

    assert reading.step(StepName.TABLES) is StepStatus.QUEUED
    assert state(reading) is TablesState.PENDING
    assert reading.ingested().revision == 1


@pytest.mark.parametrize("pipeline", [{"tables": True}, {}, None])
def test_tables_are_found_unless_the_upload_says_otherwise(
    session: Session,
    tenant_id: TenantId,
    pipeline: dict[str, bool] | None,
) -> None:
    assert state(read(session, tenant_id, pipeline=pipeline)) is TablesState.PENDING


def test_an_upload_switches_the_search_off(session: Session, tenant_id: TenantId) -> None:
    reading = read(session, tenant_id, pipeline={"tables": False})

    assert state(reading) is TablesState.OFF
    assert reading.step(StepName.TABLES) is None


def test_a_format_without_tables_has_no_such_step(session: Session, tenant_id: TenantId) -> None:
    waiting = add_stored(session, tenant_id=tenant_id, filename="a.txt")
    plain = replace(
        waiting,
        document=waiting.document.__class__(
            **{**_fields(waiting.document), "content_type": "text/plain"}
        ),
    )
    reading = Reading(session, plain)
    reading.read_pages(Outcome.COMPLETE)
    reading.end(following=FINDS_TABLES)

    assert state(reading) is None
    assert reading.step(StepName.TABLES) is None


def _fields(event: Any) -> dict[str, Any]:  # noqa: ANN401  # a struct
    return {name: getattr(event, name) for name in event.__struct_fields__}


@pytest.mark.parametrize(
    ("asked", "expected"), [(True, TablesState.PENDING), (False, TablesState.OFF)]
)
def test_a_reprocessing_may_choose_again(
    session: Session,
    tenant_id: TenantId,
    *,
    asked: bool,
    expected: TablesState,
) -> None:
    first = read(session, tenant_id, pipeline={"tables": not asked})
    again = add_reprocessing(session, first.waiting)
    chosen = again.document.__class__(**{**_fields(again.document), "tables": asked})
    second = Reading(session, replace(again, document=chosen))
    second.read_pages(Outcome.COMPLETE)
    second.end(following=FINDS_TABLES)

    assert state(second) is expected


def test_tables_figures_and_passages_are_written_with_the_progress(
    session: Session,
    tenant_id: TenantId,
) -> None:
    search = searched(session, tenant_id)
    search.end()

    reading = search.reading
    assert [table.number for table in rows(session, DocumentTable, reading)] == [1, 2]
    assert [figure.number for figure in rows(session, Figure, reading)] == [1]
    assert [(each.page, each.text) for each in table_passages(session, reading)] == [
        (1, "Port | Cargo | Weight\nHamburg | Coffee | 1200"),
        (3, "Port | Cargo | Weight\nHamburg | Coffee | 1200"),
    ]
    revision = reading.revision
    assert (revision.tables_state, revision.table_count, revision.figure_count) == (
        TablesState.COMPLETE,
        2,
        1,
    )
    assert reading.job.result is not None
    assert (reading.job.result["tables"], reading.job.result["figures"]) == (2, 1)


def test_numbers_continue_over_several_writes(session: Session, tenant_id: TenantId) -> None:
    search = Search(read(session, tenant_id))
    for page in (1, 2, 3):
        search.write(found(a_table(ROW, page=page), figures=1, last_page=page))

    assert [(each.number, each.page) for each in rows(session, DocumentTable, search.reading)] == [
        (1, 1),
        (2, 2),
        (3, 3),
    ]


def test_a_worker_that_lost_its_lease_writes_nothing(
    session: Session,
    tenant_id: TenantId,
) -> None:
    search = Search(read(session, tenant_id))
    lease.release_lease(session, search.claimed)
    session.commit()
    other = Search(search.reading, owner="two")
    other.write(found(a_table(ROW)))

    with pytest.raises(LeaseLost):
        search.write(found(a_table(ROW)))
    session.rollback()

    assert len(rows(session, DocumentTable, search.reading)) == 1
    assert len(table_passages(session, search.reading)) == 1
    assert search.reading.revision.table_count == 1


def test_pages_that_were_not_searched_are_named(session: Session, tenant_id: TenantId) -> None:
    search = Search(read(session, tenant_id))
    for page in (1, 2):
        unsearched = UnsearchedPages(first=page, last=page, outcome=Outcome.CRASHED, reason="Why.")
        search.write(Settled(tables=(), figures=(), unsearched=(unsearched,), last_page=page))
    lease.release_lease(session, search.claimed)
    session.commit()
    Search(search.reading, owner="two").end()

    revision = search.reading.revision
    assert revision.tables_state is TablesState.PARTIAL
    assert revision.tables_reasons == [
        {"outcome": "crashed", "pages": [[1, 2]], "page_count": 2, "reason": "Why."}
    ]


def test_a_failure_completes_the_step_and_the_job(session: Session, tenant_id: TenantId) -> None:
    search = searched(session, tenant_id)
    reading = search.reading
    reading.describe()
    lease.release_lease(session, search.claimed)

    status = tables_record.record_failed(
        session,
        search.document,
        error=DocumentCorrupt(),
        following=FINDS_TABLES,
        settings=SETTINGS,
        event_context=reading.waiting.context(session),
    )
    session.commit()

    assert status is StepStatus.COMPLETED
    assert reading.job_status() is JobStatus.COMPLETED
    assert state(reading) is TablesState.FAILED
    assert len(rows(session, DocumentTable, reading)) == 2


def test_a_cancelled_step_writes_nothing(session: Session, tenant_id: TenantId) -> None:
    search = Search(read(session, tenant_id))
    session.execute(steps.cancel(search.reading.waiting.job_id))
    session.commit()

    with pytest.raises(StepCancelled):
        search.write(found(a_table(ROW)))


def test_a_revision_that_is_being_deleted_gets_no_tables(
    session: Session,
    tenant_id: TenantId,
) -> None:
    search = Search(read(session, tenant_id))
    revision_id = search.reading.revision_id
    # As the sweep takes it from its job.
    session.execute(
        update(Revision)
        .where(Revision.id == revision_id)
        .values(job_id=revision_id, state=RevisionState.SUPERSEDED)
    )
    session.commit()

    with pytest.raises(RevisionReplaced):
        search.write(found(a_table(ROW)))


def duplicate(session: Session, tenant_id: TenantId) -> Search:
    """Return a worker on a document with the bytes of one that has all its tables."""
    original = searched(session, tenant_id)
    original.end()
    reading = Reading(session, add_stored(session, tenant_id=tenant_id))
    source = duplicate_of(reading)
    assert source is not None
    copy(reading, source)
    reading.end(page_count=3, reused_from=source.revision_id, following=FINDS_TABLES)
    return Search(reading)


def test_a_duplicate_takes_tables_and_figures_over(session: Session, tenant_id: TenantId) -> None:
    search = duplicate(session, tenant_id)
    while search.claimed.done < 3:
        copied = search.copied()
        assert copied is not None
        search.write(copied)
    search.end()

    assert [(each.number, each.page) for each in rows(session, DocumentTable, search.reading)] == [
        (1, 1),
        (2, 3),
    ]
    assert len(rows(session, Figure, search.reading)) == 1
    assert [each.page for each in table_passages(session, search.reading)] == [1, 3]


def test_nothing_is_taken_over_from_a_revision_that_is_replaced(
    session: Session,
    tenant_id: TenantId,
) -> None:
    search = duplicate(session, tenant_id)
    session.execute(
        update(Revision)
        .where(Revision.id == search.work.source)
        .values(state=RevisionState.SUPERSEDED)
    )
    session.commit()

    assert search.copied() is None


def test_a_cancelled_reprocessing_keeps_the_tables_it_found_and_may_be_retried(
    session: Session, tenant_id: TenantId
) -> None:
    first = read(session, tenant_id)
    first.describe()
    Search(first).end()
    second = Reading(session, add_reprocessing(session, first.waiting))
    second.read_pages(*[Outcome.COMPLETE] * 3)
    second.end(following=FINDS_TABLES)
    second.describe()
    search = Search(second)
    search.write(found(a_table(ROW)))

    assert cancel_job(session, second.job, source="/test", settings=SETTINGS)
    session.commit()
    assert second.job_status() is JobStatus.CANCELLED
    assert (state(second), second.revision.table_count) == (TablesState.FAILED, 1)

    lease.release_lease(session, search.claimed)
    document_id = second.waiting.document.document_id
    session.execute(
        update(Job).where(Job.id == second.waiting.job_id).values(document_id=document_id)
    )
    session.commit()
    retry_job(session, second.job, actor="test", export_ttl=timedelta(days=1), settings=SETTINGS)
    session.commit()
    again = Search(second, owner="two")
    assert again.claimed.done == 1
    again.write(found(a_table(ROW, page=2), last_page=3))
    again.end()

    assert second.job_status() is JobStatus.COMPLETED
    assert (state(second), second.revision.table_count) == (TablesState.COMPLETE, 2)


def page_of(number: int, text: str) -> PageReading:
    return msgspec.structs.replace(a_page(number), text=text)


def reprocessed(session: Session, first: Reading, *texts: str) -> Reading:
    """Read a document again, and publish the revision."""
    second = Reading(session, add_reprocessing(session, first.waiting))
    second.write(*[page_of(number, text) for number, text in enumerate(texts, start=1)])
    second.end(following=FINDS_TABLES)
    return second


def places(session: Session, reading: Reading) -> list[tuple[int, str]]:
    return [(each.page, each.text or "") for each in table_passages(session, reading)]


def test_a_reprocessing_has_the_passages_of_tables_without_a_gap(
    session: Session, tenant_id: TenantId
) -> None:
    texts = ["one ship", "two ships", "three ships"]
    waiting = add_stored(session, tenant_id=tenant_id)
    first = Reading(session, waiting)
    first.write(*[page_of(number, text) for number, text in enumerate(texts, start=1)])
    first.end(following=FINDS_TABLES)
    search = Search(first)
    search.write(found(a_table(ROW), a_table(ROW, page=2), a_table(ROW, page=3), last_page=3))
    search.end()
    first.describe()
    (same, _, other) = places(session, first)

    second = reprocessed(session, first, texts[0], "another text", texts[2])
    published = places(session, second)
    search = Search(second)
    search.write(found(a_table(ROW), last_page=2))
    half = places(session, second)
    search.write(found(a_table(("Bremen", "Tea", "7"), page=3), last_page=3))
    search.end()

    # The passages of a page whose text has changed are not taken over.
    assert published == [same, other]
    assert half == [same, other]
    assert places(session, second) == [
        same,
        (3, "Port | Cargo | Weight\nBremen | Tea | 7"),
    ]
    assert rows(session, DocumentTable, second)[-1].number == 2


@pytest.mark.parametrize("end", ["complete", "failed", "cancelled"])
def test_passages_of_tables_that_are_not_found_again_are_deleted(
    session: Session, tenant_id: TenantId, *, end: str
) -> None:
    search = searched(session, tenant_id)
    search.end()
    first = search.reading
    first.describe()
    second = Reading(session, add_reprocessing(session, first.waiting))
    second.read_pages(*[Outcome.COMPLETE] * 3)
    second.end(following=FINDS_TABLES)
    assert len(places(session, second)) == 2

    search = Search(second)
    search.write(found(a_table(ROW)))
    if end == "cancelled":
        cancel_job(session, second.job, source="/test", settings=SETTINGS)
        session.commit()
    elif end == "failed":
        lease.release_lease(session, search.claimed)
        tables_record.record_failed(
            session,
            search.document,
            error=DocumentCorrupt(),
            following=FINDS_TABLES,
            settings=SETTINGS,
            event_context=second.waiting.context(session),
        )
        session.commit()
    else:
        search.write(found(last_page=3))
        search.end()

    assert [each for each, _ in places(session, second)] == [1]


def test_a_table_over_two_pages_keeps_its_passages_beside_the_next_table(
    session: Session, tenant_id: TenantId
) -> None:
    long = a_table(*[("Hamburg", f"Coffee of the lot {number}", "1") for number in range(40)])
    half = len(long.cells) // 2
    long = msgspec.structs.replace(
        long,
        parts=(*long.parts, msgspec.structs.replace(long.parts[0], page=2)),
        cells=tuple(
            msgspec.structs.replace(cell, page=1 if place < half else 2)
            for place, cell in enumerate(long.cells)
        ),
    )
    search = Search(read(session, tenant_id))
    search.write(found(long, last_page=1))
    before = places(session, search.reading)
    search.write(found(a_table(ROW, page=2), last_page=3))
    search.end()

    assert {number for number, _ in before} == {1, 2}
    assert set(before) < set(places(session, search.reading))
