"""Parts of filters, which lists, exports and actions on many jobs share."""

from datetime import datetime
from typing import Annotated, Final

import msgspec

METADATA_FILTERS_MAX: Final = 8
"""Pairs of metadata in one filter."""


def text(max_length: int) -> msgspec.Meta:
    # PostgreSQL refuses NUL.
    return msgspec.Meta(max_length=max_length, pattern=r"^[^\x00]*$")


Time = Annotated[datetime, msgspec.Meta(tz=True)]

Metadata = Annotated[
    dict[Annotated[str, text(128)], Annotated[str, text(2048)]],
    msgspec.Meta(max_length=METADATA_FILTERS_MAX),
]
"""Names and values of an upload's metadata; all of them must be equal."""
