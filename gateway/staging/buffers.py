"""Reused memory for the bodies of requests."""

from typing import Final

BUFFER_BYTES: Final = 512 * 1024
"""So large that handing a buffer to a thread costs little beside the thread's work on it."""

SPARE_MAX: Final = 32
"""Buffers kept for later bodies; further ones are freed after a peak."""


class Buffers:
    """Lends buffers of one size.

    The kernel clears every page of a new buffer, which costs more than filling
    it: for small chunks that was a sixth of all work.
    """

    def __init__(self, size_bytes: int = BUFFER_BYTES, *, spare_max: int = SPARE_MAX) -> None:
        self._size_bytes = size_bytes
        self._spare_max = spare_max
        self._spare: list[bytearray] = []

    def borrow(self) -> bytearray:
        """Return a buffer with arbitrary content."""
        return self._spare.pop() if self._spare else bytearray(self._size_bytes)

    def give_back(self, buffer: bytearray) -> None:
        """Take back a buffer that no thread reads or writes any more."""
        if len(self._spare) < self._spare_max:
            self._spare.append(buffer)
