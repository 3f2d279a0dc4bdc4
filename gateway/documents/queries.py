"""Reads documents, their pages and their entities."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import Select, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, defer, joinedload

from gateway.db import Database
from gateway.documents import view
from gateway.documents.errors import (
    DocumentNotFound,
    DocumentNotReady,
    PageNotFound,
    RevisionGone,
)
from schemas.api.documents import DocumentEntity, DocumentPage, DocumentPassage, PageLine
from schemas.ids import DocumentId, RevisionId, TenantId
from schemas.lifecycle import RevisionState
from schemas.tables.documents import Document, Entity, Page, Revision

PAGE_BREAK: Final = "\f"
PAGES_PER_READ: Final = 16

# The range of the column; a forged cursor may hold any number.
Ordinal = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

# Long lists that no view of a document has.
LONG: Final = (Revision.outline, Revision.attachments, Revision.page_labels)


_PASSAGES: Final = text(
    """
    WITH chosen AS MATERIALIZED (
        SELECT page, ordinal, kind, start, "end", language, tokens, text
        FROM passages
        WHERE revision_id = :revision_id AND (page, ordinal) > (:page, :ordinal)
        ORDER BY page, ordinal
        LIMIT :limit
    ),
    bounds AS (
        SELECT page, min(start) AS first, max("end") AS last FROM chosen WHERE text IS NULL GROUP BY page
    ),
    -- The text of a page is read once, not for each passage, and no more of it than is shown.
    part AS MATERIALIZED (
        SELECT page, first, substr(pages.text, first + 1, last - first) AS text
        FROM bounds JOIN pages ON revision_id = :revision_id AND number = page
    )
    SELECT chosen.page, ordinal, kind, start, "end", language, tokens,
           coalesce(chosen.text, substr(part.text, start - first + 1, "end" - start)) AS text
    FROM chosen LEFT JOIN part ON part.page = chosen.page
    ORDER BY chosen.page, ordinal
    """
)


class PlaceOnPage(msgspec.Struct, frozen=True, array_like=True):
    """A position among the entities or the passages of a document, in reading order."""

    page: Ordinal
    ordinal: Ordinal


def documents_of(tenant_id: TenantId) -> Select[Document]:
    """Return the query of a tenant's documents, with the revisions that they show."""
    revision = joinedload(Document.revision)
    for column in LONG:
        revision = revision.defer(column)
    return select(Document).where(Document.tenant_id == tenant_id).options(revision)


async def document_of(
    session: AsyncSession, *, tenant_id: TenantId, document_id: DocumentId
) -> Document:
    """Return a tenant's document.

    Raises:
        DocumentNotFound: the tenant has no such document.
    """
    document = await session.scalar(documents_of(tenant_id).where(Document.id == document_id))
    if document is None:
        raise DocumentNotFound(document_id)
    return document


async def readable_document_of(
    session: AsyncSession, *, tenant_id: TenantId, document_id: DocumentId
) -> tuple[Document, Revision]:
    """Return a tenant's document, and the revision whose pages can be read.

    Raises:
        DocumentNotFound: the tenant has no such document.
        DocumentNotReady: no page can be shown.
    """
    document = await document_of(session, tenant_id=tenant_id, document_id=document_id)
    if document.revision is None:
        raise DocumentNotReady(document)
    return document, document.revision


async def revisions_to_show(
    session: AsyncSession, documents: Collection[Document]
) -> Mapping[DocumentId, Revision]:
    """Return the revision that each document shows or, in its first reading, writes."""
    shown = {each.id: each.revision for each in documents if each.revision is not None}
    unread = [each.id for each in documents if each.revision is None]
    if not unread:
        return shown
    query = (
        select(Revision)
        .where(Revision.document_id.in_(unread), Revision.state == RevisionState.WRITING)
        .order_by(Revision.number)
    )
    for column in LONG:
        query = query.options(defer(column))
    return shown | {each.document_id: each for each in await session.scalars(query)}


async def page_of_document(
    session: AsyncSession,
    document: Document,
    revision: Revision,
    *,
    number: int,
    has_sentences: bool,
    has_lines: bool,
) -> DocumentPage:
    """Return one page.

    Raises:
        PageNotFound: the document has no page of this number, or it is not read yet.
    """
    found = (
        await session.execute(
            select(Page, Revision.page_labels[number - 1].astext.label("label"))
            .join(Revision, Revision.id == Page.revision_id)
            .where(Page.revision_id == revision.id, Page.number == number)
        )
    ).one_or_none()
    if found is None:
        raise PageNotFound(document.id, number=number)
    page, label = found
    return view.show_page(
        page, document, label=label, has_sentences=has_sentences, has_lines=has_lines
    )


async def structure_of(
    session: AsyncSession, document: Document, column: InstrumentedAttribute[list[Any] | None]
) -> tuple[list[Any] | None, bool]:
    """Return a list of the revision that the document shows or writes, and whether it is cut."""
    revision = (await revisions_to_show(session, [document])).get(document.id)
    if revision is None:
        return None, False
    items = await session.scalar(select(column).where(Revision.id == revision.id))
    return items, revision.structure_is_cut


async def last_page_of(session: AsyncSession, revision: Revision) -> int:
    """Return the number of the last page that is written; 0 for a document without pages."""
    query = select(func.max(Page.number)).where(Page.revision_id == revision.id)
    return await session.scalar(query) or 0


async def text_of(
    database: Database, revision_id: RevisionId, *, first: int, last: int
) -> AsyncIterator[str]:
    """Yield the text page by page, with a form feed between two pages.

    Each transaction reads a few pages: a slow client holds no connection, and a long document
    is never in memory as a whole.

    Args:
        database: the database.
        revision_id: a revision that clients see, whose pages therefore do not change.
        first: number of the first page.
        last: number of the last page, at most `last_page_of`.

    Raises:
        RevisionGone: the revision was replaced and deleted meanwhile.
    """
    number = first - 1
    while number < last:
        async with database.transaction() as session:
            pages = (
                await session.execute(
                    select(Page.number, Page.text)
                    .where(
                        Page.revision_id == revision_id, Page.number > number, Page.number <= last
                    )
                    .order_by(Page.number)
                    .limit(PAGES_PER_READ),
                )
            ).all()
        if not pages:
            raise RevisionGone
        for page in pages:
            yield PAGE_BREAK + page.text if number >= first else page.text
            number = page.number


async def entities_of(
    session: AsyncSession,
    revision: Revision,
    *,
    label: str | None,
    after: PlaceOnPage | None,
    limit: int,
) -> Sequence[Entity]:
    """Return entities in reading order: `limit + 1` rows if there are more than `limit`."""
    query = select(Entity).where(Entity.revision_id == revision.id)
    if label is not None:
        query = query.where(Entity.label == label)
    if after is not None:
        query = query.where(tuple_(Entity.page, Entity.ordinal) > (after.page, after.ordinal))
    entities = await session.scalars(query.order_by(Entity.page, Entity.ordinal).limit(limit + 1))
    return entities.all()


async def show_entities(session: AsyncSession, entities: Sequence[Entity]) -> list[DocumentEntity]:
    """Return entities of one revision with their places; the lines of few pages are in memory."""
    shown = []
    by_page: dict[int, list[Entity]] = {}
    for entity in entities:
        by_page.setdefault(entity.page, []).append(entity)
    numbers = list(by_page)
    for start in range(0, len(numbers), PAGES_PER_READ):
        chosen = numbers[start : start + PAGES_PER_READ]
        lines = await _lines_of(session, entities[0].revision_id, chosen)
        shown += [
            view.show_entity(entity, lines=lines.get(number, []))
            for number in chosen
            for entity in by_page[number]
        ]
    return shown


async def passages_of(
    session: AsyncSession, revision: Revision, *, after: PlaceOnPage | None, limit: int
) -> list[DocumentPassage]:
    """Return passages in reading order: `limit + 1` of them if there are more than `limit`."""
    place = after or PlaceOnPage(page=0, ordinal=0)
    values = {
        "revision_id": revision.id,
        "page": place.page,
        "ordinal": place.ordinal,
        "limit": limit + 1,
    }
    return [view.show_passage(row) for row in await session.execute(_PASSAGES, values)]


async def _lines_of(
    session: AsyncSession, revision_id: RevisionId, numbers: Collection[int]
) -> dict[int, list[PageLine]]:
    rows = await session.execute(
        select(Page.number, Page.lines).where(
            Page.revision_id == revision_id, Page.number.in_(numbers)
        )
    )
    return {row.number: list(view.lines_of(row.lines)) for row in rows}
