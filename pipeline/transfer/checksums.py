"""Proof that the bytes sent are the bytes that were acked."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Self

from schemas.errors import DomainError, ErrorCode


class StagingCorrupt(DomainError):
    """What lies in staging is not what was acked."""

    code = ErrorCode.STAGING_CORRUPT


class ManifestIncomplete(StagingCorrupt):
    def __init__(self, *, size_bytes: int, chunk_count: int) -> None:
        super().__init__(f"{chunk_count} chunks do not make up a file of {size_bytes} bytes")


class ChunkCorrupt(StagingCorrupt):
    def __init__(self, index: int, *, expected: bytes, actual: bytes) -> None:
        super().__init__(
            f"chunk {index} was acked with sha256 {expected.hex()} and now has {actual.hex()}"
        )


class StagingTruncated(StagingCorrupt):
    def __init__(self, *, expected_bytes: int, actual_bytes: int) -> None:
        super().__init__(f"the staged file ends at {actual_bytes} of {expected_bytes} bytes")


class FileDigestMismatch(DomainError):
    """Every chunk is intact, but together they are not the file the client declared."""

    code = ErrorCode.FILE_DIGEST_MISMATCH

    def __init__(self, *, declared: str, actual: str) -> None:
        super().__init__(f"the file was declared with sha256 {declared} and has {actual}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as it was acked; chunk `index` lies at `index * chunk_size`."""

    index: int
    size_bytes: int
    sha256: bytes


class FileCheck:
    """Checks a file against its manifest, if it has one, while its bytes pass by, in order and once."""

    def __init__(self, chunks: Sequence[Chunk], *, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._taken = 0
        self._file = hashlib.sha256()
        self._ahead = iter(chunks)
        self._next_chunk()

    @classmethod
    def against(cls, chunks: Sequence[Chunk], *, chunk_size: int, size_bytes: int) -> Self:
        """Return a check of a file that was acked in chunks.

        Raises:
            ManifestIncomplete: the chunks do not follow each other without a gap
                from index 0 to the last byte.
        """
        if not _makes_up(chunks, chunk_size=chunk_size, size_bytes=size_bytes):
            raise ManifestIncomplete(size_bytes=size_bytes, chunk_count=len(chunks))
        return cls(chunks, size_bytes=size_bytes)

    @classmethod
    def of_any(cls, *, size_bytes: int) -> Self:
        """Return a check of a file of which nobody said more than its size."""
        return cls((), size_bytes=size_bytes)

    def update(self, block: bytes | memoryview) -> None:
        """Take the next bytes, cut anywhere.

        Raises:
            ChunkCorrupt: they end a chunk that does not have its digest.
        """
        block = memoryview(block)  # cut without copying
        self._file.update(block)
        self._taken += len(block)
        while block and self._chunk is not None:
            piece = block[: self._missing]
            self._digest.update(piece)
            self._missing -= len(piece)
            block = block[len(piece) :]
            if self._missing == 0:
                self._judge(self._chunk)
                self._next_chunk()

    def finish(self, *, declared: str | None) -> str:
        """Return the file's sha256, hex, once all of it was taken.

        Raises:
            StagingTruncated: bytes are missing.
            FileDigestMismatch: the client declared another digest.
        """
        if self._taken != self._size_bytes:
            raise StagingTruncated(expected_bytes=self._size_bytes, actual_bytes=self._taken)
        actual = self._file.hexdigest()
        if declared is not None and declared.lower() != actual:
            raise FileDigestMismatch(declared=declared, actual=actual)
        return actual

    def _next_chunk(self) -> None:
        self._chunk = next(self._ahead, None)
        self._missing = self._chunk.size_bytes if self._chunk else 0
        self._digest = hashlib.sha256()

    def _judge(self, chunk: Chunk) -> None:
        actual = self._digest.digest()
        if actual != chunk.sha256:
            raise ChunkCorrupt(chunk.index, expected=chunk.sha256, actual=actual)


def multipart_etag(part_md5s: Sequence[bytes]) -> str:
    """Return the ETag S3 gives an object made of parts: MD5 of their MD5s, and their number."""
    digest = hashlib.md5(b"".join(part_md5s), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(part_md5s)}"


def etag_matches(etag: str, *, part_md5s: Sequence[bytes], file_md5: Callable[[], bytes]) -> bool:
    """Whether an object with this ETag has these bytes.

    Most stores answer the form with the number of parts; some answer the MD5 of
    the whole object, which `file_md5` is asked for only then. A file of one part
    has that part's.
    """
    given = etag.strip('"').lower()
    if given == multipart_etag(part_md5s):
        return True
    if "-" in given:
        return False
    whole = part_md5s[0] if len(part_md5s) == 1 else file_md5()
    return given == whole.hex()


def _makes_up(chunks: Sequence[Chunk], *, chunk_size: int, size_bytes: int) -> bool:
    full, rest = divmod(size_bytes, chunk_size)
    expected: Iterable[int] = chain([chunk_size] * full, [rest] if rest else [])
    return [(chunk.index, chunk.size_bytes) for chunk in chunks] == list(enumerate(expected))
