"""A stream of bytes cut into slices of one size, none of which is held."""

import hashlib
from collections.abc import AsyncIterator


class Slices:
    """Cuts what comes in, and digests it on the way.

    Read a slice to its end before the next; whether there is one is known only
    when a byte of it has come.
    """

    def __init__(self, pieces: AsyncIterator[bytes], *, slice_bytes: int) -> None:
        self._pieces = pieces
        self._slice_bytes = slice_bytes
        self._held = memoryview(b"")
        self._sha256 = hashlib.sha256()
        self.size = 0
        """Bytes that have come so far."""

    @property
    def sha256(self) -> str:
        """Of what has come so far, hex."""
        return self._sha256.hexdigest()

    async def has_more(self) -> bool:
        while not self._held:
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self._sha256.update(piece)
            self.size += len(piece)
            self._held = memoryview(piece)
        return True

    async def next_slice(self) -> AsyncIterator[bytes]:
        left = self._slice_bytes
        while left and await self.has_more():
            piece, self._held = self._held[:left], self._held[left:]
            left -= len(piece)
            yield bytes(piece)

    async def read_on(self) -> None:
        """Let everything that is left go by."""
        while await self.has_more():
            self._held = memoryview(b"")
