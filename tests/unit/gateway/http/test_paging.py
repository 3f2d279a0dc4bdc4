import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.documents.queries import PlaceOnPage
from gateway.http import paging
from gateway.http.paging import CreatedPosition
from gateway.http.problems import InvalidRequest


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_decodes_to_its_position(created_at: datetime, identity: UUID) -> None:
    position = CreatedPosition(created_at=created_at, id=identity)

    assert paging.decode(paging.encode(position), to=CreatedPosition) == position


def test_without_a_cursor_the_list_starts_at_the_first_page() -> None:
    assert paging.decode(None, to=CreatedPosition) is None


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "päge",
        base64.urlsafe_b64encode(b'["2024", 5]').decode(),
        base64.urlsafe_b64encode(b'{"created_at": 1}').decode(),
        base64.urlsafe_b64encode(b"\xff" * 40).decode(),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
        paging.encode(PlaceOnPage(page=1, ordinal=2)),
    ],
)
def test_a_malformed_or_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        paging.decode(cursor, to=CreatedPosition)


def test_a_position_outside_the_columns_range_is_refused() -> None:
    forged = base64.urlsafe_b64encode(b"[1, 99999999999999999999]").decode()

    with pytest.raises(InvalidRequest):
        paging.decode(forged, to=PlaceOnPage)


@given(st.integers(0, 30), st.integers(1, 10))
def test_every_row_is_on_exactly_one_page(count: int, limit: int) -> None:
    rows = [(datetime(2026, 1, 1, tzinfo=UTC), uuid4(), number) for number in range(count)]
    seen: list[int] = []
    start, cursor = 0, None
    while True:
        page = paging.page_of(
            rows[start : start + limit + 1],
            limit=limit,
            show=lambda row: row[2],
            position=lambda row: CreatedPosition(created_at=row[0], id=row[1]),
        )
        seen += page.items
        if page.next_cursor is None:
            break
        assert page.next_cursor != cursor
        cursor = page.next_cursor
        start += limit
    assert seen == list(range(count))


@dataclass(frozen=True, kw_only=True)
class Row:
    number: int
    is_match: bool


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 6), st.integers(0, 6))
def test_the_pages_of_a_list_with_checked_rows_hold_every_match_once(
    matches: list[bool], limit: int, more_scanned: int
) -> None:
    rows = [Row(number=number, is_match=is_match) for number, is_match in enumerate(matches)]
    scanned_max = limit + more_scanned
    seen: list[int] = []
    start = 0
    while True:
        shown, last = paging.matches_of(
            rows[start : start + scanned_max + 1], scanned_max=scanned_max, limit=limit
        )
        assert len(shown) <= limit
        seen += [row.number for row in shown]
        if last is None:
            break
        assert last.number >= start
        start = last.number + 1
    assert seen == [row.number for row in rows if row.is_match]
