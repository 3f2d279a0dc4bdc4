"""How a file is cut into the parts of a multipart upload."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from schemas.errors import DomainError, ErrorCode
from schemas.settings import GIB, MIB

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
SMALLEST_PART: Final = 5 * MIB  # except the last
LARGEST_PART: Final = 5 * GIB


class TooLargeForStore(DomainError):
    """No allowed part size cuts the file into few enough parts."""

    code = ErrorCode.FILE_TOO_LARGE

    def __init__(self, *, size_bytes: int, largest_bytes: int) -> None:
        super().__init__(
            f"{size_bytes} bytes exceed the {largest_bytes} bytes the store takes in one object"
        )


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PartPlan:
    """Parts of `part_size` in order, without gaps; the last may be shorter. None for no bytes."""

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
        """Whether the file needs more than one request; up to one part it is sent whole."""
        return len(self) > 1

    def parts_in(self, size_bytes: int) -> int | None:
        """Return how many parts make up so many bytes from the front; None if that cuts one."""
        if not 0 < size_bytes <= self.size_bytes:
            return None
        if size_bytes == self.size_bytes:
            return len(self)
        parts, rest = divmod(size_bytes, self.part_size)
        return None if rest else parts

    def has_part(self, *, number: int, size_bytes: int) -> bool:
        """Whether a part found in the store was cut by this plan."""
        offset = (number - 1) * self.part_size
        return 0 <= offset < self.size_bytes and size_bytes == min(
            self.part_size, self.size_bytes - offset
        )


def along_chunks(size_bytes: int, *, chunk_size: int, max_parts: int) -> PartPlan | None:
    """Return the plan whose parts are the chunks, or None where the store takes no such parts."""
    plan = PartPlan(size_bytes=size_bytes, part_size=chunk_size)
    fits = len(plan) <= max_parts and chunk_size <= LARGEST_PART
    return plan if fits and chunk_size >= SMALLEST_PART else None


def split(size_bytes: int, *, part_size: int, max_parts: int) -> PartPlan:
    """Return the plan for a file: parts of `part_size`, or larger ones where it needs too many.

    The chunks a client sent the file in play no role here.

    Raises:
        TooLargeForStore: even the largest parts would be too many.
    """
    if size_bytes > max_parts * LARGEST_PART:
        raise TooLargeForStore(size_bytes=size_bytes, largest_bytes=max_parts * LARGEST_PART)
    least = -(-size_bytes // max_parts)
    if least > part_size:
        part_size = -(-least // MIB) * MIB
    return PartPlan(
        size_bytes=size_bytes, part_size=min(max(part_size, SMALLEST_PART), LARGEST_PART)
    )
