"""How a file is cut into chunks."""

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024

COMFORTABLE_COUNT: Final = 1000
"""More chunks than that are not chosen unasked: each costs a request, an fsync and a row."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an operator allows, in bytes."""

    default: int
    smallest: int
    largest: int
    most_chunks: int


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


def plan(size: int, *, wish: int | None, limits: Limits) -> Plan:
    """Cut `size` bytes as the client wishes, within the limits; without a wish, by the size.

    A file that would need too many chunks gets larger ones, in steps of a
    MiB, even beyond the largest a client may ask for: it could not be sent
    at all otherwise.
    """
    wanted = min(max(wish or _fitting(size, limits=limits), limits.smallest), limits.largest)
    plan = Plan(size=size, chunk_size=wanted)
    if plan.chunk_count <= limits.most_chunks:
        return plan
    least = -(-size // limits.most_chunks)
    return Plan(size=size, chunk_size=-(-least // MIB) * MIB)


def _fitting(size: int, *, limits: Limits) -> int:
    """Return the default, or the power of two in MiB that keeps the count of chunks comfortable."""
    if size <= limits.default * COMFORTABLE_COUNT:
        return limits.default
    chunk_size = MIB
    while chunk_size * COMFORTABLE_COUNT < size:
        chunk_size *= 2
    return chunk_size
