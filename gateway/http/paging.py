"""Pages of a list, and the opaque cursors between them."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Protocol, TypeVar, overload
from uuid import UUID

import msgspec
from litestar.params import QueryParameter
from sqlalchemy import Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http.problems import InvalidRequest
from schemas.api.paging import PageOf

LIMIT_DEFAULT: Final = 50


class HasCreation(Protocol):
    """A row of a table whose lists are ordered by creation."""

    id: Any
    created_at: Any


Row = TypeVar("Row")
Created = TypeVar("Created", bound=HasCreation)
Item = TypeVar("Item")
Position = TypeVar("Position", bound=msgspec.Struct)

Limit = Annotated[
    int, QueryParameter(ge=1, le=2**31 - 1, description="items per page; capped by the server")
]
Cursor = Annotated[
    str | None,
    QueryParameter(
        max_length=512, description="`next_cursor` of the previous page", required=False
    ),
]


class Scanned(Protocol):
    """A row of a list whose filters are checked on each row."""

    @property
    def is_match(self) -> bool | None: ...


ScannedRow = TypeVar("ScannedRow", bound=Scanned)


class CreatedPosition(msgspec.Struct, frozen=True, array_like=True):
    """A position in a list ordered by creation, newest first; the id breaks ties."""

    created_at: datetime
    id: UUID


def encode(position: msgspec.Struct) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


@overload
def decode(cursor: None, *, to: type[Position]) -> None: ...
@overload
def decode(cursor: str, *, to: type[Position]) -> Position: ...
@overload
def decode(cursor: str | None, *, to: type[Position]) -> Position | None: ...
def decode(cursor: str | None, *, to: type[Position]) -> Position | None:
    """Return the position that a cursor holds.

    Raises:
        InvalidRequest: the cursor is malformed or belongs to another list.
    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=to)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidRequest("is not a cursor of this list", field="cursor") from error


async def newest_first(
    session: AsyncSession,
    query: Select[Created],
    table: type[Created],
    *,
    cursor: str | None,
    limit: int,
    show: Callable[[Created], Item],
) -> PageOf[Item]:
    """Return a page of the rows that `query` selects, newest first.

    Raises:
        InvalidRequest: the cursor is malformed or belongs to another list.
    """
    after = decode(cursor, to=CreatedPosition)
    if after is not None:
        query = query.where(tuple_(table.created_at, table.id) < (after.created_at, after.id))
    rows = await session.scalars(
        query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    )
    return page_of(
        rows.all(),
        limit=limit,
        show=show,
        position=lambda row: CreatedPosition(created_at=row.created_at, id=row.id),
    )


def page_of(
    rows: Sequence[Row],
    *,
    limit: int,
    show: Callable[[Row], Item],
    position: Callable[[Row], msgspec.Struct],
) -> PageOf[Item]:
    """Return a page of rows read with `LIMIT limit + 1`: an extra row means that a next page exists."""
    shown = rows[:limit]
    return PageOf(
        items=[show(row) for row in shown],
        next_cursor=encode(position(shown[-1])) if len(rows) > limit else None,
    )


def matches_of(
    rows: Sequence[ScannedRow], *, scanned_max: int, limit: int
) -> tuple[Sequence[ScannedRow], ScannedRow | None]:
    """Return the rows of a page, and the row after which the next page begins.

    The second is None if there is no next page. A page may have fewer rows than its limit, even
    none, and still name a next page.

    Args:
        rows: read with `LIMIT scanned_max + 1`.
        scanned_max: rows that one call checks.
        limit: most rows of the page.
    """
    found = [row for row in rows[:scanned_max] if row.is_match]
    shown = found[:limit]
    if len(found) > limit:
        return shown, shown[-1]
    return shown, rows[scanned_max - 1] if len(rows) > scanned_max else None
