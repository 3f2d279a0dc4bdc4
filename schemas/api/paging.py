"""Keyset paging: the cursor is a position, so items added meanwhile do not move the next page."""

from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class PageOf(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """Items, newest first. `next_cursor` is opaque, and null on the last page."""

    items: list[Item]
    next_cursor: str | None = None
