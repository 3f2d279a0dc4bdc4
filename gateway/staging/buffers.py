"""Reused memory for the bodies of requests."""

from typing import Final

BUFFER_BYTES: Final = 512 * 1024
"""Large enough that passing a buffer to a thread is cheap compared with the thread's work."""

SPARE_MAX: Final = 32
"""Buffers kept for later bodies; after a peak all others are freed."""


class Buffers:
    """Lends buffers of one size.

    The kernel clears every page of a new buffer, which costs more than filling the buffer. With
    small chunks, new buffers took a sixth of the gateway's processor time.
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
