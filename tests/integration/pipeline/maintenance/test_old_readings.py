"""Documents of a version without passages get them, without being read again."""

import pytest
from sqlalchemy import delete, select, text

from pipeline.context import Context
from pipeline.ingest import record, writer
from pipeline.ingest.extractors.extractor import Span, SpanKind
from pipeline.ingest.frames import DocumentRead, PageReading
from pipeline.ingest.record import EndOfReading
from pipeline.maintenance import passages
from pipeline.maintenance.exclusive import Budget
from schemas.ids import RevisionId
from schemas.lifecycle import SearchState
from schemas.steps import StepName
from schemas.tables.documents import Document, Revision
from schemas.tables.passages import Passage
from tests.factories.readings import BUDGET, SETTINGS, add_stored
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import ample_budget

TEXTS = ("Page 1\nThe carrier signs the note.", "", "", "Der Frachtführer unterschreibt.")

COLUMNS = tuple(Passage.__table__.columns)


def read(context: Context) -> RevisionId:
    """Read and publish a document."""
    with context.transaction() as session:
        waiting = add_stored(session, tenant_id=add_tenant(session))
    with context.transaction() as session:
        claimed = waiting.claim(session, StepName.INGEST)
        revision_id = record.begin_revision(
            session, waiting.document, tenant_id=waiting.tenant_id, pipeline_version="2-old"
        )
    pages = [
        PageReading(
            number=number,
            text=each,
            spans=(Span(SpanKind.HEADER, 0, 6),) if each.startswith("Page") else (),
            sentences=((7, len(each)),) if each.startswith("Page") else (),
            language=None if each.startswith("Page") else "de",
            engine="pdfium",
        )
        for number, each in enumerate(TEXTS, 1)
    ]
    with context.transaction() as session:
        record.lock_document(session, waiting.document, is_changed=True)
        claimed = writer.write_pages(
            session,
            claimed,
            document=waiting.document,
            revision_id=revision_id,
            pages=pages,
            total=len(pages),
            budget=BUDGET,
            settings=SETTINGS,
        )
        record.end_reading(
            session,
            claimed,
            waiting.document,
            revision_id,
            end=EndOfReading(page_count=len(pages), read=DocumentRead()),
            is_ocr_available=lambda: False,
            settings=SETTINGS,
            event_context=waiting.context(session),
        )
    return revision_id


def written(context: Context, revision_id: RevisionId) -> list[tuple[object, ...]]:
    with context.transaction() as session:
        found = session.execute(
            select(*COLUMNS)
            .where(Passage.revision_id == revision_id)
            .order_by(Passage.page, Passage.ordinal)
        )
        return [tuple(row) for row in found]


def forget_passages(context: Context) -> None:
    """Leave the revisions as an earlier version has left them."""
    with context.transaction() as session:
        session.execute(text("DELETE FROM passages"))
        session.execute(text("UPDATE revisions SET search = NULL"))


def state_of(context: Context, revision_id: RevisionId) -> SearchState | None:
    with context.transaction() as session:
        return session.get_one(Revision, revision_id).search


@pytest.mark.parametrize("pages", [1, 10])
def test_an_old_document_gets_the_passages_that_a_reading_writes(
    context: Context, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "PAGES", pages)
    monkeypatch.setattr(passages, "REVISIONS", 1)
    revision_ids = [read(context) for _ in range(2)]
    before = [written(context, each) for each in revision_ids]
    assert [len(each) for each in before] == [2, 2]
    forget_passages(context)

    assert passages.sweep(context, ample_budget()).revisions == 2

    assert [written(context, each) for each in revision_ids] == before
    assert [state_of(context, each) for each in revision_ids] == [SearchState.WORDS] * 2
    assert passages.sweep(context, ample_budget()).revisions == 0


def test_a_sweep_goes_on_after_the_pages_of_one_that_was_killed(context: Context) -> None:
    revision_id = read(context)
    before = written(context, revision_id)
    forget_passages(context)
    assert passages.sweep(context, ample_budget()).revisions == 1
    with context.transaction() as session:
        session.execute(text("DELETE FROM passages WHERE page > 1"))
        session.execute(text("UPDATE revisions SET search = NULL"))

    assert passages.sweep(context, ample_budget()).revisions == 1

    assert written(context, revision_id) == before


def test_a_sweep_without_time_adds_nothing(context: Context) -> None:
    revision_id = read(context)
    forget_passages(context)
    assert passages.sweep(context, Budget(ends_at=0)).revisions == 0
    assert (written(context, revision_id), state_of(context, revision_id)) == ([], None)


def test_a_document_that_is_deleted_gets_no_passages(context: Context) -> None:
    revision_id = read(context)
    forget_passages(context)
    with context.transaction() as session:
        session.execute(delete(Document))
    assert passages.sweep(context, ample_budget()).revisions == 0
    assert written(context, revision_id) == []
