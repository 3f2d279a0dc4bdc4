"""Memory that bodies pass through, used again and again."""

from typing import Final

BUFFER_BYTES: Final = 512 * 1024
"""Large enough that handing it to a thread costs little beside what the thread does with it."""

SPARE_MAX: Final = 32
"""Kept for the next bodies: what more of them needed at once goes back to the system."""


class Buffers:
    """Lends buffers of one size.

    A new buffer costs more than to fill it, since the kernel clears every page of
    it first; for small chunks that was a sixth of all there is to do.
    """

    def __init__(self, size_bytes: int = BUFFER_BYTES, *, spare_max: int = SPARE_MAX) -> None:
        self._size_bytes = size_bytes
        self._spare_max = spare_max
        self._spare: list[bytearray] = []

    def borrow(self) -> bytearray:
        """Return a buffer with anything in it."""
        return self._spare.pop() if self._spare else bytearray(self._size_bytes)

    def give_back(self, buffer: bytearray) -> None:
        """Take a buffer that nobody reads or writes any more."""
        if len(self._spare) < self._spare_max:
            self._spare.append(buffer)
