"""Documents with passages, as workers record them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pipeline.ingest import passage_rows
from pipeline.ingest.passage_rows import PassageToWrite
from schemas.ids import JobId, RevisionId
from schemas.lifecycle import PassageKind, RevisionState
from schemas.runtime.embedding import chosen, models
from schemas.runtime.embedding.port import written
from schemas.settings import EmbeddingSettings
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.passages import Passage, PassageEmbedding
from tests.integration.gateway.api import Api, BeginSession
from tests.integration.gateway.documents import ingested

TOKENS = 20


async def searchable(
    api: Api,
    transaction: BeginSession,
    *pages: str,
    language: str | None = "en",
    tables: Sequence[str] = (),
    **values: Any,  # noqa: ANN401  # as for `ingested`
) -> str:
    """Add a document with one passage of text for each page; return its id.

    Args:
        api: the client.
        transaction: of the database.
        pages: texts of the pages.
        language: of every page.
        tables: texts of tables, all on the first page.
        values: columns of the document.
    """
    document_id = await ingested(api, transaction, pages=list(pages), language=language, **values)
    async with transaction() as session:
        revision_id = await session.scalar(
            select(Document.revision_id).where(Document.id == UUID(document_id))
        )
        assert revision_id is not None
        await add_passages(session, revision_id, pages, language=language, tables=tables)
    return document_id


async def replaced(transaction: BeginSession, document_id: str, *pages: str) -> None:
    """Give a document a second revision, as a reprocessing does; the first one is deleted."""
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        old = document.revision_id
        revision_id = RevisionId(uuid4())
        session.add(
            Revision(
                id=revision_id,
                document_id=document.id,
                tenant_id=document.tenant_id,
                job_id=JobId(uuid4()),
                number=2,
                pipeline_version="2",
                state=RevisionState.PUBLISHED,
            )
        )
        await session.flush()
        session.add_all(
            Page(revision_id=revision_id, number=number, text=text)
            for number, text in enumerate(pages, start=1)
        )
        await session.flush()
        await add_passages(session, revision_id, pages, language="en")
        document.revision_id = revision_id
        await session.flush()
        await session.execute(delete(Revision).where(Revision.id == old))


async def add_passages(
    session: AsyncSession,
    revision_id: RevisionId,
    pages: Sequence[str],
    *,
    language: str | None,
    tables: Sequence[str] = (),
) -> None:
    """Add a passage for each page and each table of a revision."""
    passages = [
        PassageToWrite(
            page=page,
            ordinal=0,
            kind=PassageKind.TEXT,
            start=0,
            end=len(content),
            language=language,
            text=content,
            tokens=TOKENS,
        )
        for page, content in enumerate(pages, start=1)
    ] + [
        PassageToWrite(
            page=1,
            ordinal=1_000_000 + number,
            kind=PassageKind.TABLE,
            start=0,
            end=0,
            language=language,
            text=content,
            tokens=TOKENS,
        )
        for number, content in enumerate(tables)
    ]

    revision = await session.get_one(Revision, revision_id)
    await session.run_sync(
        passage_rows.insert,
        passages,
        revision_id=revision_id,
        document_id=revision.document_id,
        tenant_id=revision.tenant_id,
    )


async def vectors_added(transaction: BeginSession) -> None:
    """Add the vectors of all passages of text, by the real model, which becomes the active one."""
    model = chosen.model_of(EmbeddingSettings())
    assert model is not None
    async with transaction() as session:
        (row,) = await session.run_sync(models.first, model)
        passages = (
            await session.execute(
                select(
                    Passage, func.substr(Page.text, Passage.start + 1, Passage.end - Passage.start)
                ).join(
                    Page, (Page.revision_id == Passage.revision_id) & (Page.number == Passage.page)
                )
            )
        ).all()
        vectors = chosen.named(model.name).embed([content for _, content in passages])
        session.add_all(
            PassageEmbedding(
                model_id=row.id,
                revision_id=passage.revision_id,
                page=passage.page,
                ordinal=passage.ordinal,
                tenant_id=passage.tenant_id,
                document_id=passage.document_id,
                embedding=written(vector),
            )
            for (passage, _), vector in zip(passages, vectors, strict=True)
        )
