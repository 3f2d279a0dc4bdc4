"""Lists that the driver sends as arrays of one type, for ``unnest``.

By itself the driver derives the type of an array from its elements, and a list of Nones has none:
the statement would be prepared again for each combination of types.
"""

from datetime import datetime
from typing import TypeVar
from uuid import UUID

import psycopg
from psycopg.types.array import ListBinaryDumper

T = TypeVar("T")


class Uuids(list[UUID | None]):
    """``uuid[]``."""


class Texts(list[str | None]):
    """``text[]``."""


class Times(list[datetime | None]):
    """``timestamptz[]``."""


class Integers(list[int | None]):
    """``int4[]``."""


class Blobs(list[bytes | None]):
    """``bytea[]``."""


_ELEMENTS = {
    Uuids: "uuid",
    Texts: "text",
    Times: "timestamptz",
    Integers: "int4",
    Blobs: "bytea",
}


def register(connection: psycopg.AsyncConnection[object]) -> None:
    """Make a connection send these lists."""
    for cls, element in _ELEMENTS.items():
        info = connection.adapters.types[element]
        dumper = type(
            f"{cls.__name__}Dumper",
            (ListBinaryDumper,),
            {"oid": info.array_oid, "element_oid": info.oid},
        )
        connection.adapters.register_dumper(cls, dumper)
