"""The digests of a chunk's body, computed while the body arrives."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import google_crc32c

from schemas.errors import DomainError, ErrorCode


@dataclass(frozen=True, kw_only=True)
class ExpectedDigest:
    """A digest that a request declares for its body, and the header field that declares it."""

    field: str
    algorithm: str
    digest: bytes


class ChunkDigestMismatch(DomainError):
    """The received bytes do not have a digest that the client declared."""

    code = ErrorCode.CHUNK_DIGEST_MISMATCH
    retryable = True

    def __init__(self, expected: ExpectedDigest) -> None:
        super().__init__(
            f"the received bytes do not have the {expected.algorithm} of {expected.field}"
        )


class BodyHasher:
    """Computes the digests of one body and compares them with the expected ones.

    Every byte passes twice: in the event loop as part of a piece (`update_crc32c`),
    and in a thread as part of a block (`update`).
    """

    def __init__(self, expected: Iterable[ExpectedDigest] = ()) -> None:
        self._expected = tuple(expected)
        self._crc32c = 0
        algorithms = {"sha-256", *(one.algorithm for one in self._expected)} - {"crc32c"}
        self._hashes = {name: hashlib.new(name.replace("-", "")) for name in sorted(algorithms)}

    def update_crc32c(self, piece: bytes) -> None:
        """Add the next bytes to the crc32c, which is cheap enough for the event loop."""
        self._crc32c = google_crc32c.extend(self._crc32c, piece)

    def update(self, block: memoryview) -> None:
        """Add the next bytes to the other digests; call it in a thread."""
        for running in self._hashes.values():
            running.update(block)

    def verify(self) -> bytes:
        """Return the sha256 of the body.

        Raises:
            ChunkDigestMismatch: the body does not have one of the expected digests.
        """
        for one in self._expected:
            actual = (
                self.crc32c if one.algorithm == "crc32c" else self._hashes[one.algorithm].digest()
            )
            if actual != one.digest:
                raise ChunkDigestMismatch(one)
        return self._hashes["sha-256"].digest()

    @property
    def crc32c(self) -> bytes:
        return self._crc32c.to_bytes(4, "big")
