"""Keyset paging: a page knows where the next one starts, whatever is added meanwhile."""

from typing import Generic, TypeVar

import msgspec

Item = TypeVar("Item")


class PageOf(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """Newest first. `next_cursor` is opaque; absent on the last page."""

    items: list[Item]
    next_cursor: str | None = None
