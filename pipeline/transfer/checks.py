"""Proof that the bytes sent are the bytes that were acked."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, Self

from pipeline.transfer import digests
from pipeline.transfer.digests import Crc32c
from schemas.errors import DomainError, ErrorCode


class StagingCorrupt(DomainError):
    """What lies in staging is not what was acked."""

    code = ErrorCode.STAGING_CORRUPT


class ManifestIncomplete(StagingCorrupt):
    def __init__(self, *, size_bytes: int, chunk_count: int) -> None:
        super().__init__(f"{chunk_count} chunks do not make up a file of {size_bytes} bytes")


class ChunkCorrupt(StagingCorrupt):
    def __init__(self, index: int, *, algorithm: str, expected: bytes, actual: bytes) -> None:
        super().__init__(
            f"chunk {index} was acked with {algorithm} {expected.hex()} and now has {actual.hex()}"
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
    crc32c: bytes | None = None
    """None of a chunk acked before there was one; it is checked against its sha256."""


@dataclass(frozen=True, slots=True)
class CheckState:
    """A check in the middle of a file, after `taken` bytes."""

    taken: int
    sha256: bytes
    crc32c: int
    """Of the bytes taken of a chunk that was begun; 0 between two."""


class FileCheck:
    """Checks a file against its manifest, if it has one, while its bytes pass by, in order and once."""

    _running: "_Running"

    def __init__(self, chunks: Sequence[Chunk], *, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._taken = 0
        self._file = digests.sha256()
        self._chunks = chunks
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

    def update(self, block: bytes) -> None:
        """Take the next bytes, cut anywhere.

        Raises:
            ChunkCorrupt: they end a chunk that does not have its digest.
        """
        self._file.update(block)
        self._taken += len(block)
        at = 0
        while at < len(block) and self._chunk is not None:
            piece = block[at : at + self._missing]
            self._running.update(piece)
            self._missing -= len(piece)
            at += len(piece)
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

    def state(self) -> CheckState | None:
        """Return what another check of this file goes on from; None where none could.

        It could not in the middle of a chunk without a crc32c.
        """
        sha256 = self._file.state()
        begun = self._chunk is not None and self._missing < self._chunk.size_bytes
        if sha256 is None or (begun and not isinstance(self._running, Crc32c)):
            return None
        crc32c = self._running.value if begun and isinstance(self._running, Crc32c) else 0
        return CheckState(taken=self._taken, sha256=sha256, crc32c=crc32c)

    def go_on_from(self, state: CheckState) -> bool:
        """Stand where an earlier check of this file stood; False, and nothing done, if it cannot.

        Only before the first byte.
        """
        file = digests.sha256_from(state.sha256, taken=state.taken)
        passed, taken = 0, state.taken
        while passed < len(self._chunks) and taken >= self._chunks[passed].size_bytes:
            taken -= self._chunks[passed].size_bytes
            passed += 1
        begun = self._chunks[passed] if taken and passed < len(self._chunks) else None
        if file is None or (begun is not None and begun.crc32c is None):
            return False
        self._file, self._taken = file, state.taken
        self._ahead = iter(self._chunks[passed:])
        self._next_chunk()
        if begun is not None:
            self._missing -= taken
            self._running = Crc32c(state.crc32c)
        return True

    def _next_chunk(self) -> None:
        self._chunk = next(self._ahead, None)
        self._missing = self._chunk.size_bytes if self._chunk else 0
        is_old = self._chunk is not None and self._chunk.crc32c is None
        self._running = hashlib.sha256() if is_old else Crc32c()

    def _judge(self, chunk: Chunk) -> None:
        algorithm, expected = (
            ("sha256", chunk.sha256) if chunk.crc32c is None else ("crc32c", chunk.crc32c)
        )
        actual = self._running.digest()
        if actual != expected:
            raise ChunkCorrupt(chunk.index, algorithm=algorithm, expected=expected, actual=actual)


class _Running(Protocol):
    def update(self, block: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def multipart_etag(part_md5s: Sequence[bytes]) -> str:
    """Return the ETag S3 gives an object made of parts: MD5 of their MD5s, and their number."""
    digest = hashlib.md5(b"".join(part_md5s), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(part_md5s)}"


def is_of_parts(etag: str) -> bool:
    """Whether an ETag has the form with the number of parts."""
    return "-" in etag


def etag_matches(etag: str, *, part_md5s: Sequence[bytes], file_md5: Callable[[], bytes]) -> bool:
    """Whether an object with this ETag has these bytes.

    Most stores answer the form with the number of parts; some answer the MD5 of
    the whole object, which `file_md5` is asked for only then. A file of one part
    has that part's.
    """
    given = etag.strip('"').lower()
    if given == multipart_etag(part_md5s):
        return True
    if is_of_parts(given):
        return False
    whole = part_md5s[0] if len(part_md5s) == 1 else file_md5()
    return given == whole.hex()


def _makes_up(chunks: Sequence[Chunk], *, chunk_size: int, size_bytes: int) -> bool:
    full, rest = divmod(size_bytes, chunk_size)
    expected: Iterable[int] = chain([chunk_size] * full, [rest] if rest else [])
    return [(chunk.index, chunk.size_bytes) for chunk in chunks] == list(enumerate(expected))
