"""Query parameters of the form `name:value`."""

from collections.abc import Sequence
from typing import Annotated

from litestar.params import QueryParameter

from gateway.http.problems import InvalidRequest
from schemas.api.filters import METADATA_FILTERS_MAX

Metadata = Annotated[
    list[str] | None,
    QueryParameter(
        max_items=METADATA_FILTERS_MAX,
        required=False,
        description="`name:value` of the upload's metadata; repeatable",
    ),
]
"""A filter by metadata."""


def metadata_of(texts: Sequence[str] | None) -> dict[str, str]:
    """Return the names and values of a filter by metadata; see `pairs_of`."""
    return pairs_of(texts, field="metadata")


def pairs_of(texts: Sequence[str] | None, *, field: str) -> dict[str, str]:
    """Return the names and values of a repeatable parameter; of a repeated name the last counts.

    Raises:
        InvalidRequest: a pair has no colon, or contains NUL, which PostgreSQL refuses.
    """
    pairs = {}
    for text in texts or ():
        name, colon, value = text.partition(":")
        if not colon:
            raise InvalidRequest("is not of the form name:value", field=field)
        if "\0" in text:
            raise InvalidRequest("contains NUL", field=field)
        pairs[name] = value
    return pairs
