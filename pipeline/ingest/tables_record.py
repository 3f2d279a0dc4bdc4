"""The changes of the step `tables` to the revision, the step and the job, one short transaction per change.

Each function runs in a transaction of its own and locks rows in the order document, revision, step,
job, as `record` does. Tables, figures and their passages are written together with the progress of the
step, so that no kill loses or repeats one.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, insert, select, union, update
from sqlalchemy.orm import Session

from pipeline.enrich.passages import Budget
from pipeline.ingest import after_publish, passage_rows, record
from pipeline.ingest.after_publish import Following
from pipeline.ingest.applied_event import EventContext
from pipeline.ingest.extractors.layout import FigureFound, TableCell, TableFound, TablePart
from pipeline.ingest.outcome import with_pages
from pipeline.ingest.passage_rows import PassageToWrite
from pipeline.ingest.record import RevisionReplaced
from pipeline.ingest.table_passages import passages_of
from pipeline.ingest.whole_tables import Settled, UnsearchedPages
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas.errors import DomainError
from schemas.events.documents import TablesRequested
from schemas.ids import RevisionId
from schemas.lifecycle import PassageKind, RevisionState, StepStatus, TablesState
from schemas.outcomes import Reason
from schemas.policy.passage_ordinals import ordinal_of
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables.base import table_of
from schemas.tables.documents import DocumentTable, Figure, Page, Revision
from schemas.tables.passages import without_table

_TABLES: Final = table_of(DocumentTable)
_FIGURES: Final = table_of(Figure)

COPIED_PAGES_MAX: Final = 10
"""Pages with tables or figures that one transaction copies."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The revision whose tables are looked for.

    Attributes:
        revision_id: its id.
        page_count: pages of the document; None if they are not known.
        source: the revision of a document with the same bytes whose tables are all found.
        reasons: which of the pages up to `done` of the step were not searched, and why.
    """

    revision_id: RevisionId
    page_count: int | None
    source: RevisionId | None
    reasons: tuple[Reason, ...]


def begin(session: Session, document: TablesRequested) -> Work:
    """Return what is to do.

    Raises:
        StepCancelled, DocumentGone: see `record.lock_document`.
        RevisionReplaced: the revision is deleted.
    """
    record.lock_document(session, document)
    source = select(Revision.id).where(_is_complete()).correlate(None).subquery()
    row = session.execute(
        select(
            Revision.id,
            Revision.page_count,
            Revision.tables_reasons,
            source.c.id.label("source"),
        )
        .outerjoin(source, source.c.id == Revision.reused_from)
        .where(Revision.job_id == document.job_id)
    ).one_or_none()
    if row is None:
        raise RevisionReplaced
    return Work(
        revision_id=row.id,
        page_count=row.page_count,
        source=row.source,
        reasons=msgspec.convert(row.tables_reasons, tuple[Reason, ...]),
    )


def write(
    session: Session,
    claimed: ClaimedStep,
    document: TablesRequested,
    work: Work,
    *,
    found: Settled,
    total: int | None,
    budget: Budget,
    settings: StepSettings,
) -> tuple[ClaimedStep, Work]:
    """Write what is found on the next pages, and record the progress.

    Args:
        session: of a transaction that has locked no step yet.
        claimed: the step, as `write` returned it last.
        document: the document.
        work: as `write` returned it last.
        found: of the pages after `claimed.done`.
        total: pages to search.
        budget: of the passages.
        settings: how long the renewed lease lasts.

    Returns:
        The claimed step with its progress, and the reasons so far.

    Raises:
        StepCancelled, DocumentGone: the document is deleted, or the client cancelled.
        RevisionReplaced: the revision is deleted.
        LeaseLost: another worker took over.
    """
    record.lock_document(session, document)
    work = _with_reasons(work, found.unsearched)
    counted = session.execute(
        update(Revision)
        .where(Revision.id == work.revision_id, Revision.job_id == document.job_id)
        .values(
            tables_state=TablesState.PENDING,
            tables_reasons=msgspec.to_builtins(work.reasons),
            table_count=Revision.table_count + len(found.tables),
            figure_count=Revision.figure_count + len(found.figures),
        )
        .returning(Revision.table_count, Revision.figure_count)
    ).one_or_none()
    if counted is None:
        raise RevisionReplaced
    first_table = counted.table_count - len(found.tables) + 1
    first_figure = counted.figure_count - len(found.figures) + 1
    _insert_tables(session, work.revision_id, found.tables, first=first_table)
    _insert_figures(session, work.revision_id, found.figures, first=first_figure)
    _write_passages(session, claimed, document, work, found=found, first=first_table, budget=budget)
    lease.renew(
        session,
        claimed,
        lease=settings.step_lease,
        done=found.last_page,
        total=total,
        checkpoint=claimed.checkpoint,
    )
    return replace(claimed, done=found.last_page, total=total), work


def next_to_copy(session: Session, work: Work, *, done: int) -> Settled | None:
    """Return what a document with the same bytes has on the next pages with any; None if it is gone.

    The source is locked, so that no part of it is deleted between two statements.
    """
    if work.source is None:
        return None
    source = session.scalar(
        select(Revision.id)
        .where(Revision.id == work.source, _is_complete())
        .with_for_update(read=True, key_share=True)
    )
    if source is None:
        return None
    of_source = [
        select(table.page).where(table.revision_id == source, table.page > done)
        for table in (DocumentTable, Figure)
    ]
    pages = union(*of_source).subquery()
    numbers = session.scalars(
        select(pages.c.page).order_by(pages.c.page).limit(COPIED_PAGES_MAX)
    ).all()
    last_page = max(numbers, default=work.page_count or 0)
    tables = session.scalars(
        select(DocumentTable)
        .where(DocumentTable.revision_id == source, DocumentTable.page.in_(numbers))
        .order_by(DocumentTable.number)
    )
    figures = session.scalars(
        select(Figure)
        .where(Figure.revision_id == source, Figure.page.in_(numbers))
        .order_by(Figure.number)
    )
    return Settled(
        tables=[_table_found(table) for table in tables],
        figures=[_figure_found(figure) for figure in figures],
        last_page=last_page,
    )


def end(
    session: Session,
    claimed: ClaimedStep,
    document: TablesRequested,
    work: Work,
    *,
    following: Following,
    settings: StepSettings,
    event_context: EventContext,
) -> None:
    """Complete the step, and add the next one of the chain.

    The transaction may have written the last pages.

    Raises:
        StepCancelled, DocumentGone, RevisionReplaced, LeaseLost: see `write`.
    """
    record.lock_document(session, document)
    counted = session.execute(
        update(Revision)
        .where(Revision.id == work.revision_id, Revision.job_id == document.job_id)
        .values(tables_state=TablesState.PARTIAL if work.reasons else TablesState.COMPLETE)
        .returning(Revision.table_count, Revision.figure_count)
    ).one_or_none()
    if counted is None:
        raise RevisionReplaced
    _discard_copied(session, work.revision_id)
    lease.complete(session, claimed, done=claimed.done, total=claimed.total, settings=settings)
    facts = {"tables": counted.table_count, "figures": counted.figure_count}
    record.add_to_result(session, document.job_id, facts)
    _add_next(
        session, document, following=following, settings=settings, event_context=event_context
    )


def record_failed(
    session: Session,
    document: TablesRequested,
    *,
    error: DomainError,
    following: Following,
    settings: StepSettings,
    event_context: EventContext,
) -> StepStatus:
    """Complete the step with an error, unless it has ended, and add the next one of the chain.

    The tables that are written stay, and the document says that others are missing.

    Returns:
        How the step ended.

    Raises:
        LeaseHeld: another worker has the lease; the transaction must roll back.
        UnknownStep: the job has no such step.
    """
    record.lock_if_there(session, document)
    revision_id = session.scalar(
        update(Revision)
        .where(Revision.job_id == document.job_id, Revision.tables_state == TablesState.PENDING)
        .values(tables_state=TablesState.FAILED)
        .returning(Revision.id)
    )
    if revision_id is not None:
        _discard_copied(session, revision_id)
    ended_before = lease.fail(
        session,
        job_id=document.job_id,
        name=StepName.TABLES,
        error=error,
        settings=settings,
        status=StepStatus.COMPLETED,
    )
    if ended_before is not None:
        return ended_before
    if revision_id is not None:
        _add_next(
            session, document, following=following, settings=settings, event_context=event_context
        )
    return StepStatus.COMPLETED


def _add_next(
    session: Session,
    document: TablesRequested,
    *,
    following: Following,
    settings: StepSettings,
    event_context: EventContext,
) -> None:
    planned = after_publish.plan(session, document, following=following)
    after_publish.add_next(
        session,
        document,
        planned,
        after=StepName.TABLES,
        settings=settings,
        event_context=event_context,
    )


def _with_reasons(work: Work, unsearched: Sequence[UnsearchedPages]) -> Work:
    reasons = work.reasons
    for pages in unsearched:
        reasons = with_pages(
            reasons,
            first=pages.first,
            last=pages.last,
            outcome=pages.outcome,
            reason=pages.reason,
        )
    return replace(work, reasons=reasons)


def _is_complete() -> ColumnElement[bool]:
    return (Revision.state == RevisionState.PUBLISHED) & (
        Revision.tables_state == TablesState.COMPLETE
    )


def _insert_tables(
    session: Session, revision_id: RevisionId, tables: Sequence[TableFound], *, first: int
) -> None:
    rows = [
        {
            "revision_id": revision_id,
            "number": number,
            "page": table.page,
            "parts": msgspec.to_builtins(table.parts),
            "row_count": table.row_count,
            "column_count": table.column_count,
            "header_row_count": table.header_row_count,
            "method": table.method,
            "confidence": table.confidence,
            "caption": table.caption,
            "is_cut": table.is_cut,
            "cell_count": len(table.cells),
            "cells": msgspec.to_builtins(table.cells),
        }
        for number, table in enumerate(tables, start=first)
    ]
    if rows:
        session.execute(insert(_TABLES), rows)


def _insert_figures(
    session: Session, revision_id: RevisionId, figures: Sequence[FigureFound], *, first: int
) -> None:
    rows = [
        {"revision_id": revision_id, "number": number, **msgspec.structs.asdict(figure)}
        for number, figure in enumerate(figures, start=first)
    ]
    if rows:
        session.execute(insert(_FIGURES), rows)


def _write_passages(
    session: Session,
    claimed: ClaimedStep,
    document: TablesRequested,
    work: Work,
    *,
    found: Settled,
    first: int,
    budget: Budget,
) -> None:
    passages = [
        (ordinal_of(table=number, index=index), passage)
        for number, table in enumerate(found.tables, start=first)
        for index, passage in enumerate(passages_of(table, budget=budget))
    ]
    pages = {passage.page for _, passage in passages}
    languages: dict[int, str | None] = {
        row.number: row.language
        for row in session.execute(
            select(Page.number, Page.language).where(
                Page.revision_id == work.revision_id, Page.number.in_(pages)
            )
        )
    }
    wanted = [
        PassageToWrite(
            page=passage.page,
            ordinal=ordinal,
            kind=PassageKind.TABLE,
            start=0,
            end=0,
            language=languages.get(passage.page),
            text=passage.text,
            tokens=passage.tokens,
        )
        for ordinal, passage in passages
    ]
    missing = passage_rows.discard_of_tables(
        session,
        work.revision_id,
        first_page=claimed.done + 1,
        last_page=found.last_page,
        others=_tables_from(session, work.revision_id, claimed.done + 1, below=first),
        wanted=wanted,
    )
    passage_rows.insert(
        session,
        missing,
        revision_id=work.revision_id,
        document_id=document.document_id,
        tenant_id=claimed.tenant_id,
    )


def _discard_copied(session: Session, revision_id: RevisionId) -> None:
    """Delete the passages that the publication took from an earlier revision and no write replaced."""
    for statement in without_table(revision_id):
        session.execute(statement)


def _tables_from(
    session: Session, revision_id: RevisionId, page: int, *, below: int
) -> Collection[int]:
    """Return the numbers of the tables below one that reach a page, or one after it."""
    query = select(DocumentTable.number).where(
        DocumentTable.revision_id == revision_id,
        DocumentTable.number < below,
        DocumentTable.parts[-1][0].as_integer() >= page,
    )
    return frozenset(session.scalars(query))


def _table_found(row: DocumentTable) -> TableFound:
    return TableFound(
        parts=msgspec.convert(row.parts, tuple[TablePart, ...]),
        row_count=row.row_count,
        column_count=row.column_count,
        header_row_count=row.header_row_count,
        method=row.method,
        confidence=row.confidence,
        caption=row.caption,
        cells=msgspec.convert(row.cells, tuple[TableCell, ...]),
        is_cut=row.is_cut,
    )


def _figure_found(row: Figure) -> FigureFound:
    facts: dict[str, Any] = {name: getattr(row, name) for name in FigureFound.__struct_fields__}
    return FigureFound(**facts)
