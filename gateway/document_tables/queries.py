"""Reads the tables and figures of documents."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.document_tables.errors import TableNotFound
from schemas.ids import DocumentId
from schemas.tables.base import table_of
from schemas.tables.documents import DocumentTable, Figure, Revision

_SUMMARY: Final = [
    column
    for column in table_of(DocumentTable).columns
    if column.name not in {"revision_id", "cells"}
]
"""Cells may be megabytes, and a list has none."""


class NumberPosition(msgspec.Struct, frozen=True, array_like=True):
    """A position in a list ordered by number; the range is that of the column."""

    number: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


async def tables_of(
    session: AsyncSession,
    revision: Revision,
    *,
    page: int | None,
    after: NumberPosition | None,
    limit: int,
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return tables without their cells: `limit + 1` rows if there are more than `limit`.

    Args:
        session: a transaction.
        revision: the revision that clients see.
        page: only tables of which a part is on this page; None for all.
        after: the last position that the client has.
        limit: most tables.
    """
    query = select(*_SUMMARY).where(
        DocumentTable.revision_id == revision.id,
        DocumentTable.number > (after.number if after else 0),
    )
    if page is not None:
        # The parts are on pages that follow each other.
        last_page = DocumentTable.parts[-1][0].as_integer()
        query = query.where(DocumentTable.page <= page, last_page >= page)
    return (await session.execute(query.order_by(DocumentTable.number).limit(limit + 1))).all()


async def table_of_document(
    session: AsyncSession, document_id: DocumentId, revision: Revision, *, number: int
) -> DocumentTable:
    """Return one table.

    Raises:
        TableNotFound: there is none of this number, or it is not found yet.
    """
    table = await session.get(DocumentTable, (revision.id, number))
    if table is None:
        raise TableNotFound(document_id, number=number)
    return table


async def figures_of(
    session: AsyncSession,
    revision: Revision,
    *,
    page: int | None,
    after: NumberPosition | None,
    limit: int,
) -> Sequence[Figure]:
    """Return figures, as `tables_of`."""
    query = select(Figure).where(
        Figure.revision_id == revision.id, Figure.number > (after.number if after else 0)
    )
    if page is not None:
        query = query.where(Figure.page == page)
    figures = await session.scalars(query.order_by(Figure.number).limit(limit + 1))
    return figures.all()
