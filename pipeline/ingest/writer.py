"""Writes the pages of a revision, batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final

from sqlalchemy import ColumnElement, Insert, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from pipeline.enrich.passages import Budget
from pipeline.ingest import outcome, passage_rows
from pipeline.ingest.frames import PageReading
from pipeline.ingest.record import DocumentToRead, Duplicate, lock_document
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas.events.documents import ReprocessRequested
from schemas.ids import RevisionId
from schemas.lifecycle import PageStatus, RevisionState
from schemas.outcomes import Outcome
from schemas.settings import StepSettings
from schemas.spans import SPAN_KINDS
from schemas.tables.base import table_of
from schemas.tables.documents import Entity, Page, Revision

_PAGES: Final = table_of(Page)
_ENTITIES: Final = table_of(Entity)

ROWS_MAX: Final = 1_000
"""Rows of a batch; with the limits of a page it bounds the worker's memory."""

PASSAGE_CHARACTERS: Final = 500
"""Of a page for each of its passages, at least."""

COPIED_PAGES_MAX: Final = 100
"""Pages that one transaction copies."""


def row_count(page: PageReading) -> int:
    """Return about how many rows a page takes."""
    return 1 + len(page.entities) + len(page.text) // PASSAGE_CHARACTERS


def write_pages(
    session: Session,
    claimed: ClaimedStep,
    *,
    document: DocumentToRead,
    revision_id: RevisionId,
    pages: Sequence[PageReading],
    total: int | None,
    budget: Budget,
    settings: StepSettings,
    checkpoint: Mapping[str, Any] | None = None,
) -> ClaimedStep:
    """Write the next pages of a revision and record the progress, in the session's transaction.

    `done` of the step is then the number of the last written page: a page is never written twice.

    Args:
        session: of a transaction that has locked the document; see `record.lock_document`.
        claimed: the step that reads the pages.
        document: the document.
        revision_id: its revision, from `begin_revision`.
        pages: the pages after `done`, in order, without a gap; about `ROWS_MAX` rows.
        total: pages to read; None if it is not known yet.
        budget: of the passages.
        settings: how long the renewed lease lasts.
        checkpoint: what the next worker needs to go on after these pages.

    Returns:
        The claimed step with its progress.

    Raises:
        StepCancelled: the client cancelled.
        LeaseLost: another worker took over.
    """
    session.execute(insert(_PAGES), [_page_row(revision_id, page) for page in pages])
    _insert_entities(session, revision_id, pages)
    _insert_passages(
        session, claimed, pages, document=document, revision_id=revision_id, budget=budget
    )
    return _renewed(
        session,
        claimed,
        done=pages[-1].number,
        total=total,
        checkpoint=checkpoint,
        settings=settings,
    )


def discard_leftovers(
    session: Session,
    claimed: ClaimedStep,
    *,
    document: DocumentToRead,
    revision_id: RevisionId,
    settings: StepSettings,
) -> bool:
    """Delete some of the pages after `done`, which an attempt before a retry wrote; renew the lease.

    Returns:
        Whether no such page is left.

    Raises:
        StepCancelled, DocumentGone: the document is deleted, or the client cancelled.
        LeaseLost: another worker took over.
    """
    lock_document(session, document)
    numbers = session.scalars(
        select(Page.number)
        .where(Page.revision_id == revision_id, Page.number > claimed.done)
        .order_by(Page.number)
        .limit(COPIED_PAGES_MAX)
    ).all()
    if not numbers:
        return True
    passage_rows.delete_of_pages(session, revision_id, numbers)
    for table, number in ((Entity, Entity.page), (Page, Page.number)):
        session.execute(delete(table).where(table.revision_id == revision_id, number.in_(numbers)))
    lease.renew(
        session,
        claimed,
        lease=settings.step_lease,
        done=claimed.done,
        total=claimed.total,
        checkpoint=claimed.checkpoint,
    )
    return False


def write_recognised_pages(
    session: Session,
    claimed: ClaimedStep,
    *,
    document: DocumentToRead,
    revision_id: RevisionId,
    pages: Sequence[PageReading],
    done: int,
    budget: Budget,
    settings: StepSettings,
) -> ClaimedStep:
    """Replace pages that need OCR by what OCR made of them, and record the progress.

    A page that OCR could not read keeps the little text that it has, and says why. The checkpoint has the number of the
    last page: see `record.pages_to_recognise`.

    Args:
        session: of a transaction that does nothing else.
        claimed: the step `ocr`.
        document: the document.
        revision_id: its revision.
        pages: the next pages that need OCR, in order.
        done: pages that OCR has tried, with these.
        budget: of the passages.
        settings: how long the renewed lease lasts.

    Returns:
        The claimed step with its progress.

    Raises:
        StepCancelled, DocumentGone: the document is deleted, or the client cancelled.
        LeaseLost: another worker took over.
    """
    lock_document(session, document)
    for page in pages:
        row = _page_row(revision_id, page, is_recognised=True)
        waiting = update(Page).where(
            Page.revision_id == revision_id,
            Page.number == page.number,
            Page.status == PageStatus.NEEDS_OCR,
        )
        if page.text:
            session.execute(waiting.values(row))
        else:
            session.execute(waiting.where(Page.text == "").values(row))
            session.execute(waiting.where(Page.text != "").values(_beside_text(page)))
    recognised = [page for page in pages if page.text]
    numbers = [page.number for page in recognised]
    session.execute(
        delete(Entity).where(Entity.revision_id == revision_id, Entity.page.in_(numbers))
    )
    passage_rows.delete_of_pages(session, revision_id, numbers)
    _insert_entities(session, revision_id, recognised)
    _insert_passages(
        session, claimed, recognised, document=document, revision_id=revision_id, budget=budget
    )
    return _renewed(
        session,
        claimed,
        done=done,
        total=claimed.total,
        checkpoint={**(claimed.checkpoint or {}), "last_page": pages[-1].number},
        settings=settings,
    )


def leave_unrecognised(
    session: Session,
    claimed: ClaimedStep,
    *,
    document: DocumentToRead,
    revision_id: RevisionId,
    numbers: Sequence[int],
    outcome: Outcome,
    reason: str,
    settings: StepSettings,
) -> ClaimedStep:
    """Record why OCR has no text of pages, which still need it, and count them as tried.

    Args:
        session: of a transaction that does nothing else.
        claimed: the step `ocr`.
        document: the document.
        revision_id: its revision.
        numbers: the next pages that need OCR, in order.
        outcome: of the pages.
        reason: a sentence for clients.
        settings: how long the renewed lease lasts.

    Returns:
        The claimed step with its progress.

    Raises:
        StepCancelled, DocumentGone: the document is deleted, or the client cancelled.
        LeaseLost: another worker took over.
    """
    lock_document(session, document)
    session.execute(
        update(Page)
        .where(
            Page.revision_id == revision_id,
            Page.number.in_(numbers),
            Page.status == PageStatus.NEEDS_OCR,
        )
        .values(outcome=outcome, reason=reason)
    )
    return _renewed(
        session,
        claimed,
        done=claimed.done + len(numbers),
        total=claimed.total,
        checkpoint={**(claimed.checkpoint or {}), "last_page": numbers[-1]},
        settings=settings,
    )


def copy_pages(
    session: Session,
    claimed: ClaimedStep,
    *,
    document: DocumentToRead,
    revision_id: RevisionId,
    duplicate: Duplicate,
    total: int,
    settings: StepSettings,
) -> ClaimedStep:
    """Copy the next pages of a duplicate's revision and record the progress, as `write_pages`.

    Copies nothing if the duplicate is deleted or replaced meanwhile: the pages after `done` can then be read,
    with the same result.

    Returns:
        The claimed step with its progress; `done` is unchanged if nothing was left to copy.

    Raises:
        StepCancelled, DocumentGone: the document is deleted, or the client cancelled.
        LeaseLost: another worker took over.
    """
    lock_document(session, document)
    # The entities of a revision are deleted before its pages: without the lock, pages could be
    # copied and their entities not.
    source = session.scalar(
        select(Revision.id)
        .where(Revision.id == duplicate.revision_id, Revision.state == RevisionState.PUBLISHED)
        .with_for_update(read=True, key_share=True)
    )
    if source is None:
        return claimed
    first, last = claimed.done + 1, claimed.done + COPIED_PAGES_MAX
    copied = session.scalars(
        _copy(
            Page,
            revision_id,
            duplicate.revision_id,
            Page.number.between(first, last),
        ).returning(Page.number)
    ).all()
    session.execute(
        _copy(Entity, revision_id, duplicate.revision_id, Entity.page.between(first, last))
    )
    passage_rows.copy(
        session,
        revision_id=revision_id,
        document_id=document.document_id,
        source=duplicate.revision_id,
        source_document=duplicate.document_id,
        first=first,
        last=last,
    )
    return _renewed(
        session,
        claimed,
        done=max(copied, default=claimed.done),
        total=total,
        checkpoint=None,
        settings=settings,
    )


def _copy(
    table: type[Page] | type[Entity],
    to: RevisionId,
    source: RevisionId,
    which: ColumnElement[bool],
) -> Insert:
    columns = [column for column in table.__table__.columns if column.name != "revision_id"]
    return insert(table).from_select(
        ["revision_id", *(column.name for column in columns)],
        select(bindparam("to_revision", to, type_=table.revision_id.type), *columns).where(
            table.revision_id == source, which
        ),
    )


def _renewed(
    session: Session,
    claimed: ClaimedStep,
    *,
    done: int,
    total: int | None,
    checkpoint: Mapping[str, Any] | None,
    settings: StepSettings,
) -> ClaimedStep:
    lease.renew(
        session,
        claimed,
        lease=settings.step_lease,
        done=done,
        total=total,
        checkpoint=checkpoint,
    )
    return replace(claimed, done=done, total=total, checkpoint=checkpoint)


def _insert_entities(
    session: Session, revision_id: RevisionId, pages: Sequence[PageReading]
) -> None:
    rows = [
        {
            "revision_id": revision_id,
            "page": page.number,
            "ordinal": ordinal,
            "label": entity.label,
            "text": entity.text,
            "normal_form": entity.normal,
            "start": entity.start,
            "end": entity.end,
        }
        for page in pages
        for ordinal, entity in enumerate(page.entities)
    ]
    if rows:
        session.execute(insert(_ENTITIES), rows)


def _insert_passages(
    session: Session,
    claimed: ClaimedStep,
    pages: Sequence[PageReading],
    *,
    document: DocumentToRead,
    revision_id: RevisionId,
    budget: Budget,
) -> None:
    passage_rows.insert(
        session,
        [each for page in pages for each in passage_rows.of_page(page, budget=budget)],
        revision_id=revision_id,
        document_id=document.document_id,
        tenant_id=claimed.tenant_id,
    )
    if isinstance(document, ReprocessRequested):
        passage_rows.copy_vectors(
            session,
            revision_id=revision_id,
            document_id=document.document_id,
            pages=[page.number for page in pages],
        )


def _beside_text(page: PageReading) -> dict[str, Any]:
    """Return what OCR without a result changes of a page that has text, such as values of a form."""
    if page.outcome is Outcome.NO_TEXT:
        return {"status": PageStatus.READ, "outcome": Outcome.COMPLETE, "reason": ""}
    return {"outcome": page.outcome, "reason": page.reason}


def _page_row(
    revision_id: RevisionId, page: PageReading, *, is_recognised: bool = False
) -> dict[str, Any]:
    return {
        "revision_id": revision_id,
        "number": page.number,
        "status": outcome.status_of_page(
            page.outcome, has_text=bool(page.text), is_recognised=is_recognised
        ),
        "outcome": page.outcome,
        "reason": page.reason,
        "text": page.text,
        "engine": page.engine,
        "engine_version": page.engine_version,
        "engine_reason": page.engine_reason,
        "confidence": page.confidence,
        "language": page.language,
        "language_confidence": page.language_confidence,
        "width_points": page.width_points,
        "height_points": page.height_points,
        "sentences": list(chain.from_iterable(page.sentences)),
        "lines": [
            value
            for line in page.lines
            for value in (line.start, line.end, line.left, line.top, line.right, line.bottom)
        ],
        "spans": [
            value
            for span in page.spans
            for value in (SPAN_KINDS.index(span.kind), span.start, span.end)
        ],
    }
