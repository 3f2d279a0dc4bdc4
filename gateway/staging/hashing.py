"""The digests of a chunk's body, computed while the body arrives."""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import google_crc32c

from schemas.errors import DomainError, ErrorCode

HASHES: Final = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5", "sha": "sha1"}
"""The names of algorithms in `hashlib`; crc32c and adler are computed besides."""


@dataclass(frozen=True, kw_only=True)
class ExpectedDigest:
    """A digest that a request declares for its body, and the header field that declares it."""

    field: str
    algorithm: str
    digest: bytes

    def __str__(self) -> str:
        return f"{self.algorithm} of {self.field}"


class ChunkDigestMismatch(DomainError):
    """The received bytes do not have a digest that the client declared."""

    code = ErrorCode.CHUNK_DIGEST_MISMATCH
    retryable = True

    def __init__(self, expected: ExpectedDigest) -> None:
        super().__init__(f"the received bytes do not have the {expected}")


class BodyHasher:
    """Computes the digests of one body and compares them with the expected ones.

    Every byte passes twice: in the event loop as part of a piece (`update_crc32c`),
    and in a thread as part of a block (`update`).
    """

    def __init__(self, expected: Iterable[ExpectedDigest] = ()) -> None:
        self._expected = tuple(expected)
        self._crc32c = 0
        algorithms = {"sha-256", *(one.algorithm for one in self._expected)}
        self._hashes = {
            name: hashlib.new(HASHES[name], usedforsecurity=False)
            for name in sorted(algorithms & HASHES.keys())
        }
        self._adler32 = 1 if "adler" in algorithms else None

    def add(self, piece: bytes) -> None:
        """Add the next bytes to every digest."""
        self.update_crc32c(piece)
        self.update(memoryview(piece))

    def update_crc32c(self, piece: bytes) -> None:
        """Add the next bytes to the crc32c, which is cheap enough for the event loop."""
        self._crc32c = google_crc32c.extend(self._crc32c, piece)

    def update(self, block: memoryview) -> None:
        """Add the next bytes to the other digests; call it in a thread."""
        for running in self._hashes.values():
            running.update(block)
        if self._adler32 is not None:
            self._adler32 = zlib.adler32(block, self._adler32)

    def mismatch(self) -> ExpectedDigest | None:
        """Return an expected digest that the body does not have, or None."""
        for one in self._expected:
            if self._digest(one.algorithm) != one.digest:
                return one
        return None

    def verify(self) -> bytes:
        """Return the sha256 of the body.

        Raises:
            ChunkDigestMismatch: the body does not have one of the expected digests.
        """
        mismatch = self.mismatch()
        if mismatch is not None:
            raise ChunkDigestMismatch(mismatch)
        return self._digest("sha-256")

    def _digest(self, algorithm: str) -> bytes:
        if algorithm == "crc32c":
            return self.crc32c
        if algorithm == "adler":
            return (self._adler32 or 0).to_bytes(4, "big")
        return self._hashes[algorithm].digest()

    @property
    def crc32c(self) -> bytes:
        return self._crc32c.to_bytes(4, "big")
