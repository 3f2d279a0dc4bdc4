"""Divides a file into the parts of a multipart upload."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from schemas.errors import DomainError, ErrorCode
from schemas.settings import GIB, MIB

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
MIN_PART_SIZE: Final = 5 * MIB  # except the last
MAX_PART_SIZE: Final = 5 * GIB


class TooLargeForStore(DomainError):
    """The file exceeds the largest object: it would need too many parts of the maximum size."""

    code = ErrorCode.FILE_TOO_LARGE
    caused_by_client = True

    def __init__(self, *, size_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"{size_bytes} bytes exceed the {max_bytes} bytes the store takes in one object"
        )


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PartPlan:
    """Parts of `part_size` in order, without gaps; the last may be shorter. An empty file has no parts."""

    size_bytes: int
    part_size: int

    def __len__(self) -> int:
        return len(range(0, self.size_bytes, self.part_size))

    def __iter__(self) -> Iterator[Part]:
        for offset in range(0, self.size_bytes, self.part_size):
            yield Part(
                number=offset // self.part_size + 1,
                offset=offset,
                size_bytes=min(self.part_size, self.size_bytes - offset),
            )

    @property
    def is_multipart(self) -> bool:
        """Return whether the file needs a multipart upload; one part is sent in one request."""
        return len(self) > 1

    def parts_in(self, size_bytes: int) -> int | None:
        """Return the number of parts in the first `size_bytes` bytes; None if a part would be cut."""
        if not 0 < size_bytes <= self.size_bytes:
            return None
        if size_bytes == self.size_bytes:
            return len(self)
        parts, rest = divmod(size_bytes, self.part_size)
        return None if rest else parts

    def has_part(self, *, number: int, size_bytes: int) -> bool:
        """Return whether a stored part has a number and a size of this plan."""
        offset = (number - 1) * self.part_size
        return 0 <= offset < self.size_bytes and size_bytes == min(
            self.part_size, self.size_bytes - offset
        )


def along_chunks(size_bytes: int, *, chunk_size: int, max_parts: int) -> PartPlan | None:
    """Return the plan whose parts are the chunks; None if S3 does not allow parts of this size or number."""
    plan = PartPlan(size_bytes=size_bytes, part_size=chunk_size)
    fits = len(plan) <= max_parts and chunk_size <= MAX_PART_SIZE
    return plan if fits and chunk_size >= MIN_PART_SIZE else None


def split(size_bytes: int, *, part_size: int, max_parts: int) -> PartPlan:
    """Return a plan with parts of `part_size`, or of a larger size if `max_parts` requires it.

    Raises:
        TooLargeForStore: the file would need more than `max_parts` parts of the maximum size.
    """
    if size_bytes > max_parts * MAX_PART_SIZE:
        raise TooLargeForStore(size_bytes=size_bytes, max_bytes=max_parts * MAX_PART_SIZE)
    min_size = -(-size_bytes // max_parts)
    if min_size > part_size:
        part_size = -(-min_size // MIB) * MIB
    return PartPlan(
        size_bytes=size_bytes, part_size=min(max(part_size, MIN_PART_SIZE), MAX_PART_SIZE)
    )
