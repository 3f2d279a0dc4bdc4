"""Lists of documents with filters, page by page.

One filter selects an index, in whose order the rows are read; the other filters are checked on at
most `SCANNED_MAX` rows. A page may therefore have fewer items than its limit, and even none, and
still name a next page: the cost of a call does not depend on how rare a combination is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Select, Text, and_, literal_column, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.documents import queries, view
from gateway.http import paging
from gateway.http.paging import CreatedPosition
from schemas.api.documents import DocumentView
from schemas.api.paging import PageOf
from schemas.ids import DocumentId, TenantId
from schemas.lifecycle import DocumentStatus
from schemas.outcomes import Outcome
from schemas.policy import media_types
from schemas.tables.documents import MEDIA_TYPE_OF_DOCUMENT, Document
from schemas.tables.uploads import Upload

SCANNED_MAX: Final = 400
"""Rows that one call reads; more than the largest default page."""

NAME_END: Final = "\U0010ffff"
"""Follows every character of a name in the order of the index."""


class NamedPosition(msgspec.Struct, frozen=True, array_like=True):
    """A position in a list ordered by filename; the id breaks ties."""

    filename: str
    id: DocumentId


Position: TypeAlias = CreatedPosition | NamedPosition


_FIRST_ID: Final = UUID(int=0)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of a list; None selects everything.

    Attributes:
        metadata: names and values of the upload's metadata.
    """

    status: DocumentStatus | None = None
    outcome: Outcome | None = None
    language: str | None = None
    content_type: str | None = None
    sha256: str | None = None
    filename_prefix: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How a list is read.

    Attributes:
        index: the conditions that an index finds.
        others: the conditions that are checked on each row.
        is_by_name: whether the list is ordered by filename, not newest first.
        before: a bound of the list newest first, as a position.
    """

    index: Sequence[ColumnElement[bool]]
    others: Sequence[ColumnElement[bool]]
    is_by_name: bool
    before: CreatedPosition | None = None


async def page_of(
    session: AsyncSession,
    filters: Filters,
    *,
    tenant_id: TenantId,
    cursor: str | None,
    limit: int,
) -> PageOf[DocumentView]:
    """Return a page of a tenant's documents: newest first, or by name with `filename_prefix`.

    Raises:
        InvalidRequest: the cursor is malformed or belongs to another list.
    """
    plan = _plan(filters)
    after: Position | None = (
        paging.decode(cursor, to=NamedPosition)
        if plan.is_by_name
        else paging.decode(cursor, to=CreatedPosition)
    )
    count = max(SCANNED_MAX, limit) if plan.others else limit
    query = _scan(plan, tenant_id=tenant_id, after=after).limit(count + 1)
    scanned = (await session.execute(query)).all()
    shown, last = paging.matches_of(scanned, scanned_max=count, limit=limit)
    return PageOf(
        items=await _shown(session, [row.id for row in shown], tenant_id=tenant_id),
        next_cursor=None if last is None else paging.encode(_position(plan, last)),
    )


def _plan(filters: Filters) -> _Plan:
    """Choose the filter that selects the index: the one that usually leaves the fewest rows."""
    conditions = _conditions(filters)
    times = []
    if filters.created_after is not None:
        times.append(Document.created_at > filters.created_after)
    chosen = next((name for name in conditions if name != "metadata"), None)
    index = [] if chosen is None else [conditions.pop(chosen)]
    others = list(conditions.values())
    if chosen == "filename_prefix":
        if filters.created_before is not None:
            times.append(Document.created_at < filters.created_before)
        return _Plan(index=index, others=[*times, *others], is_by_name=True)
    before = (
        None
        if filters.created_before is None
        else CreatedPosition(created_at=filters.created_before, id=_FIRST_ID)
    )
    return _Plan(index=[*index, *times], others=others, is_by_name=False, before=before)


def _conditions(filters: Filters) -> dict[str, ColumnElement[bool]]:
    """Return the condition of each filter that is given, except of times; most selective first."""
    given = dict[str, ColumnElement[bool]]()
    if filters.sha256 is not None:
        given["sha256"] = Document.sha256 == filters.sha256
    if filters.filename_prefix is not None:
        prefix = filters.filename_prefix
        # Not BETWEEN, whose syntax has no room for the collation of the parameters.
        given["filename_prefix"] = and_(
            Document.filename >= prefix, Document.filename <= prefix + NAME_END
        )
    if filters.language is not None:
        given["language"] = Document.language == filters.language.lower()
    if filters.content_type is not None:
        # As in the index: the planner does not compare an expression with parameters.
        media_type = literal_column(MEDIA_TYPE_OF_DOCUMENT, Text())
        given["content_type"] = media_type == media_types.essence_of(filters.content_type)
    if filters.outcome is not None:
        given["outcome"] = Document.outcome == filters.outcome
    if filters.status is not None:
        given["status"] = Document.status == filters.status
    if filters.metadata:
        given["metadata"] = (
            select(Upload.client_metadata.contains(dict(filters.metadata)))
            .where(Upload.id == Document.upload_id)
            .scalar_subquery()
        )
    return given


def _scan(
    plan: _Plan, *, tenant_id: TenantId, after: Position | None
) -> Select[DocumentId, datetime, str, bool]:
    query = select(
        Document.id,
        Document.created_at,
        Document.filename,
        and_(true(), *plan.others).label("is_match"),
    ).where(Document.tenant_id == tenant_id, *plan.index)
    if isinstance(after, NamedPosition):
        query = query.where(tuple_(Document.filename, Document.id) > (after.filename, after.id))
    else:
        # One bound: of two, the index scan would begin at the first, and read every row up to the
        # second.
        bounds = [(each.created_at, each.id) for each in (after, plan.before) if each is not None]
        if bounds:
            query = query.where(tuple_(Document.created_at, Document.id) < min(bounds))
    if plan.is_by_name:
        return query.order_by(Document.filename, Document.id)
    return query.order_by(Document.created_at.desc(), Document.id.desc())


def _position(plan: _Plan, row: Any) -> Position:  # noqa: ANN401  # of `_scan`
    if plan.is_by_name:
        return NamedPosition(filename=row.filename, id=row.id)
    return CreatedPosition(created_at=row.created_at, id=row.id)


async def _shown(
    session: AsyncSession, ids: Sequence[DocumentId], *, tenant_id: TenantId
) -> list[DocumentView]:
    """Return documents in the order of their ids."""
    if not ids:
        return []
    query = queries.documents_of(tenant_id).where(Document.id.in_(ids))
    documents = {document.id: document for document in await session.scalars(query)}
    revisions = await queries.revisions_to_show(session, documents.values())
    # A document may be deleted between the two statements.
    return [view.show(documents[each], revisions.get(each)) for each in ids if each in documents]
