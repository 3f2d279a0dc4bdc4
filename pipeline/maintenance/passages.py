"""Adds passages to documents that were read by a version without passages.

Search then finds these documents by their words; `search` of the revision says so, and the worker of
`search_indexing` makes the vectors. Nothing is read from the files again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, func, select, update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.enrich.passages import Budget as PassageBudget
from pipeline.ingest import passage_rows
from pipeline.maintenance.exclusive import Budget
from schemas.ids import RevisionId
from schemas.lifecycle import PassageKind, RevisionState, SearchState
from schemas.spans import RUNNING, SPAN_KINDS
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.passages import Passage

REVISIONS: Final = 100
"""Revisions that one query looks for."""

PAGES: Final = 10
"""Pages of one transaction; a page has at most two million characters."""

_DUE: Final = (
    select(Revision.id)
    .join(Document, Document.id == Revision.document_id)
    .where(
        Revision.search.is_(None),
        Revision.state == RevisionState.PUBLISHED,
        Document.revision_id == Revision.id,
    )
    .order_by(Revision.id)
    .limit(REVISIONS)
)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a sweep did; `revisions` have all their passages now."""

    revisions: int


def sweep(context: Context, budget: Budget) -> Summary:
    ended = 0
    while not budget.is_spent:
        with context.transaction() as session:
            due = session.scalars(_DUE).all()
        for revision_id in due:
            ended += _add_passages(context, revision_id, budget=budget)
        if len(due) < REVISIONS:
            break
    return Summary(revisions=ended)


def _add_passages(context: Context, revision_id: RevisionId, *, budget: Budget) -> bool:
    """Add the passages of a revision; False if the budget is spent before, or the revision is gone.

    Each transaction begins after the last page with passages, so a killed worker repeats nothing.
    """
    after = 0
    while not budget.is_spent:
        with context.transaction() as session:
            # Makes a second worker wait, and keeps the revision.
            revision = session.execute(
                select(Revision.document_id, Revision.tenant_id)
                .where(Revision.id == revision_id, Revision.search.is_(None))
                .with_for_update(key_share=True)
            ).one_or_none()
            if revision is None:
                return False
            pages = _next_pages(session, revision_id, after=after)
            if not pages:
                session.execute(
                    update(Revision)
                    .where(Revision.id == revision_id)
                    .values(search=SearchState.WORDS)
                )
                return True
            size = passage_rows.budget_of(context.settings)
            passage_rows.insert(
                session,
                [passage for page in pages for passage in _passages_of(page, budget=size)],
                revision_id=revision_id,
                document_id=revision.document_id,
                tenant_id=revision.tenant_id,
            )
            # A page may have no passages.
            after = pages[-1].number
    return False


def _next_pages(
    session: Session, revision_id: RevisionId, *, after: int
) -> Sequence[Row[*tuple[Any, ...]]]:
    written = session.scalar(
        select(func.max(Passage.page)).where(
            Passage.revision_id == revision_id, Passage.kind == PassageKind.TEXT
        )
    )
    return session.execute(
        select(Page.number, Page.text, Page.sentences, Page.spans, Page.language)
        .where(Page.revision_id == revision_id, Page.number > max(after, written or 0))
        .order_by(Page.number)
        .limit(PAGES)
    ).all()


def _passages_of(page: Row[Any], *, budget: PassageBudget) -> Sequence[passage_rows.PassageToWrite]:
    return passage_rows.of_text(
        page.text,
        page=page.number,
        sentences=[(start, end) for start, end in _groups(page.sentences, of=2)],
        running=[
            (start, end)
            for kind, start, end in _groups(page.spans, of=3)
            if SPAN_KINDS[kind] in RUNNING
        ],
        language=page.language,
        budget=budget,
    )


def _groups(packed: Sequence[int], *, of: int) -> list[tuple[int, ...]]:
    return list(zip(*[iter(packed)] * of, strict=True))
