"""Divides a file into chunks."""

from dataclasses import dataclass
from typing import Final

from schemas.settings import MIB, UploadSettings

DEFAULT_COUNT_MAX: Final = 1000
"""Most chunks with the default chunk size: each chunk costs a request, an fsync and a row."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All chunks have `chunk_size` bytes; the last may be shorter."""

    size: int
    chunk_size: int

    @property
    def chunk_count(self) -> int:
        return -(-self.size // self.chunk_size)

    def __contains__(self, index: int) -> bool:
        return 0 <= index < self.chunk_count

    def offset_of(self, index: int) -> int:
        return index * self.chunk_size

    def size_of(self, index: int) -> int:
        return min(self.chunk_size, self.size - self.offset_of(index))


def plan(size: int, *, requested_size: int | None, settings: UploadSettings) -> Plan:
    """Divide `size` bytes into chunks of the requested size, within the limits of the settings.

    A file that would have too many chunks gets larger chunks, in steps of a MiB, even above the
    maximum for requests: otherwise the file could not be sent.
    """
    chunk_size = requested_size or _default_size(size, chunk_size=settings.chunk_size_default)
    chunk_size = min(max(chunk_size, settings.chunk_size_min), settings.chunk_size_max)
    plan = Plan(size=size, chunk_size=chunk_size)
    if plan.chunk_count <= settings.chunk_count_max:
        return plan
    chunk_size_min = -(-size // settings.chunk_count_max)
    return Plan(size=size, chunk_size=-(-chunk_size_min // MIB) * MIB)


def _default_size(size: int, *, chunk_size: int) -> int:
    """Return `chunk_size`, or the power of two in MiB that avoids too many chunks."""
    if size <= chunk_size * DEFAULT_COUNT_MAX:
        return chunk_size
    chunk_size = MIB
    while chunk_size * DEFAULT_COUNT_MAX < size:
        chunk_size *= 2
    return chunk_size
