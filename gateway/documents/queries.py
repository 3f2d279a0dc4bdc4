"""Reads documents, their pages and their entities."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Final

import msgspec
from sqlalchemy import Select, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import joinedload

from gateway.db import Database
from schemas.api.documents import DocumentEntity, DocumentPage, DocumentView
from schemas.api.jobs import JobError
from schemas.errors import DomainError, ErrorCode
from schemas.ids import DocumentId, RevisionId, TenantId
from schemas.outcomes import MEANINGS, Reason
from schemas.tables.documents import Document, Entity, Page, Revision

PAGE_BREAK: Final = "\f"
PAGES_PER_READ: Final = 16

# The range of the column; a forged cursor may hold any number.
Ordinal = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class DocumentNotFound(DomainError):
    """The document does not exist, or belongs to another tenant."""

    code = ErrorCode.DOCUMENT_NOT_FOUND

    def __init__(self, document_id: DocumentId) -> None:
        super().__init__(f"there is no document {document_id}")


class DocumentNotReady(DomainError):
    """The document is not ingested yet, or ingesting failed."""

    code = ErrorCode.DOCUMENT_NOT_READY

    def __init__(self, document: Document) -> None:
        reason = document.error_code or "it is not ingested yet"
        super().__init__(f"document {document.id} has no text: it is {document.status}, {reason}")


class PageNotFound(DomainError):
    """The document has no such page."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, document_id: DocumentId, *, number: int) -> None:
        super().__init__(f"document {document_id} has no page {number}; the first is 1")


class EntityPosition(msgspec.Struct, frozen=True, array_like=True):
    """A position among the entities of a document, in reading order."""

    page: Ordinal
    ordinal: Ordinal


def documents_of(tenant_id: TenantId) -> Select[Document]:
    """Return the query of a tenant's documents, with the revisions that they show."""
    revision = joinedload(Document.revision)
    # Long lists that no view of a document has.
    revision = revision.defer(Revision.outline).defer(Revision.attachments)
    return (
        select(Document)
        .where(Document.tenant_id == tenant_id)
        .options(revision.defer(Revision.page_labels))
    )


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
) -> Document:
    """Return a tenant's document if it has pages to read; `revision` is then set.

    Raises:
        DocumentNotFound: the tenant has no such document.
        DocumentNotReady: no reading of the document has got that far.
    """
    document = await document_of(session, tenant_id=tenant_id, document_id=document_id)
    if document.revision is None:
        raise DocumentNotReady(document)
    return document


async def page_of_document(
    session: AsyncSession, document: Document, *, number: int
) -> DocumentPage:
    """Return one page.

    Raises:
        PageNotFound: the document has no page of this number.
    """
    page = await session.get(Page, (document.revision_id, number))
    if page is None:
        raise PageNotFound(document.id, number=number)
    return DocumentPage(
        document_id=document.id,
        number=number,
        status=page.status,
        outcome=page.outcome,
        reason=page.reason,
        text=page.text,
        error_code=MEANINGS[page.outcome].code,
    )


async def text_of(database: Database, revision_id: RevisionId) -> AsyncIterator[str]:
    """Yield the text page by page, with a form feed between two pages.

    Each transaction reads a few pages: a slow client holds no connection, and a long document
    is never in memory as a whole.
    """
    number = 0
    while True:
        async with database.transaction() as session:
            pages = (
                await session.execute(
                    select(Page.number, Page.text)
                    .where(Page.revision_id == revision_id, Page.number > number)
                    .order_by(Page.number)
                    .limit(PAGES_PER_READ),
                )
            ).all()
        for page in pages:
            yield PAGE_BREAK + page.text if number else page.text
            number = page.number
        if len(pages) < PAGES_PER_READ:
            return


async def entities_of(
    session: AsyncSession,
    document: Document,
    *,
    label: str | None,
    after: EntityPosition | None,
    limit: int,
) -> Sequence[Entity]:
    """Return entities in reading order: `limit + 1` rows if there are more than `limit`."""
    query = select(Entity).where(Entity.revision_id == document.revision_id)
    if label is not None:
        query = query.where(Entity.label == label)
    if after is not None:
        query = query.where(tuple_(Entity.page, Entity.ordinal) > (after.page, after.ordinal))
    entities = await session.scalars(query.order_by(Entity.page, Entity.ordinal).limit(limit + 1))
    return entities.all()


def show(document: Document) -> DocumentView:
    revision = document.revision
    return DocumentView(
        document_id=document.id,
        upload_id=document.upload_id,
        job_id=document.job_id,
        status=document.status,
        outcome=document.outcome,
        reasons=msgspec.convert(revision.reasons if revision else [], list[Reason]),
        revision=revision.number if revision else None,
        filename=document.filename,
        content_type=document.content_type,
        size=document.size,
        sha256=document.sha256,
        page_count=revision.page_count if revision else None,
        language=revision.language if revision else None,
        language_confidence=revision.language_confidence if revision else None,
        truncated=revision.truncated if revision else False,
        metadata=(revision.document_metadata if revision else None) or {},
        # The object is stored and ingesting failed; the same bytes would fail again.
        error=JobError(
            code=document.error_code, detail=document.error_detail or "", retryable=False
        )
        if document.error_code is not None
        else None,
        created_at=document.created_at,
        ingested_at=document.ingested_at,
    )


def show_entity(entity: Entity) -> DocumentEntity:
    return DocumentEntity(
        page=entity.page,
        label=entity.label,
        text=entity.text,
        normal_form=entity.normal_form,
        start=entity.start,
        end=entity.end,
    )
