"""Splits a stream of bytes into chunks without keeping a chunk in memory."""

import hashlib
from collections.abc import AsyncIterator
from typing import Final

NOTHING: Final = memoryview(b"")


class ChunkSplitter:
    """Splits a file into chunks of one size, and computes the digest of the file.

    Read each chunk to its end before the next chunk. A next chunk exists only once its first byte
    has arrived.
    """

    def __init__(self, pieces: AsyncIterator[bytes], *, chunk_bytes: int) -> None:
        self._pieces = pieces
        self._chunk_bytes = chunk_bytes
        self._held = NOTHING
        self._sha256 = hashlib.sha256()
        self.size = 0
        """Bytes that have arrived."""

    @property
    def sha256(self) -> str:
        """The sha256 of the bytes that have arrived, hex."""
        return self._sha256.hexdigest()

    async def has_more(self) -> bool:
        while not self._held:
            # A view keeps its piece in memory, even if nothing of it is left.
            self._held = NOTHING
            piece = await anext(self._pieces, None)
            if piece is None:
                return False
            self._sha256.update(piece)
            self.size += len(piece)
            self._held = memoryview(piece)
        return True

    async def next_chunk(self) -> AsyncIterator[bytes]:
        left = self._chunk_bytes
        while left and await self.has_more():
            piece, self._held = self._held[:left], self._held[left:]
            left -= len(piece)
            yield bytes(piece)
            del piece

    async def skip_rest(self) -> None:
        """Read the rest of the file and drop it."""
        while await self.has_more():
            self._held = NOTHING
