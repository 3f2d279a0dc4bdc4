"""Vectors as rows of PostgreSQL's binary COPY, which reads them four times as fast as text.

Source: https://www.postgresql.org/docs/18/sql-copy.html, "Binary Format"; a `halfvec` is its dimension,
two zero bytes, and its numbers, big-endian: pgvector's src/halfvec.c.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from schemas.runtime.embedding.port import Vectors

COLUMNS: Final = "model_id, revision_id, page, ordinal, tenant_id, document_id, embedding"

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
TRAILER: Final = struct.pack("!h", -1)

_ROW: Final = struct.Struct("!h ih i16s ii ii i16s i16s i")
_HALFVEC: Final = struct.Struct("!hh")


def rows(
    places: Iterable[tuple[int, int]],
    vectors: "Vectors",
    *,
    model_id: int,
    revision_id: UUID,
    tenant_id: UUID,
    document_id: UUID,
) -> Iterator[bytes]:
    """Yield the rows of some passages of a revision, each given by page and ordinal."""
    dimension = vectors.shape[1]
    size = _HALFVEC.size + 2 * dimension
    opening = _HALFVEC.pack(dimension, 0)
    numbers = vectors.astype(">f2").tobytes()
    revision, tenant, document = revision_id.bytes, tenant_id.bytes, document_id.bytes
    for place, (page, ordinal) in enumerate(places):
        yield _ROW.pack(
            *(7, 2, model_id, 16, revision, 4, page, 4, ordinal, 16, tenant, 16, document, size)
        )
        yield opening
        yield numbers[2 * dimension * place : 2 * dimension * (place + 1)]
