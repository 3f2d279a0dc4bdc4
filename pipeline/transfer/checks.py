"""Proof that the bytes sent are the bytes that the client uploaded."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, Self

from pipeline.transfer import digests
from pipeline.transfer.digests import Crc32c
from schemas.errors import DomainError, ErrorCode, FileDigestMismatch


class StagingCorrupt(DomainError):
    """The staged bytes differ from the acknowledged bytes."""

    code = ErrorCode.STAGING_CORRUPT


class ManifestIncomplete(StagingCorrupt):
    def __init__(self, *, size_bytes: int, chunk_count: int) -> None:
        super().__init__(f"{chunk_count} chunks do not make up a file of {size_bytes} bytes")


class ChunkCorrupt(StagingCorrupt):
    def __init__(self, index: int, *, algorithm: str, expected: bytes, actual: bytes) -> None:
        super().__init__(
            f"chunk {index} was acknowledged with {algorithm} {expected.hex()}"
            f" and now has {actual.hex()}"
        )


class StagingTruncated(StagingCorrupt):
    def __init__(self, *, expected_bytes: int, actual_bytes: int) -> None:
        super().__init__(f"the staged file ends at {actual_bytes} of {expected_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Chunk:
    """An acknowledged chunk; chunk `index` begins at byte `index * chunk_size`."""

    index: int
    size_bytes: int
    sha256: bytes
    crc32c: bytes | None = None
    """None for a chunk from a release without CRC32C; such a chunk is checked by its SHA-256."""


@dataclass(frozen=True, slots=True)
class CheckState:
    """State of a `FileCheck` after `taken` bytes; another process can continue from the state."""

    taken: int
    sha256: bytes
    crc32c: int
    """Of the bytes taken of an unfinished chunk; 0 at a chunk boundary."""


class FileCheck:
    """Checks a file against its manifest while the bytes are read, once and in order."""

    _running: "_Digest"

    def __init__(self, chunks: Sequence[Chunk], *, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._taken = 0
        self._file = digests.sha256()
        self._chunks = chunks
        self._ahead = iter(chunks)
        self._next_chunk()

    @classmethod
    def against(cls, chunks: Sequence[Chunk], *, chunk_size: int, size_bytes: int) -> Self:
        """Return a check of a file that was uploaded in chunks.

        Raises:
            ManifestIncomplete: the chunks do not cover the file without a gap.
        """
        full, rest = divmod(size_bytes, chunk_size)
        expected: Iterable[int] = chain([chunk_size] * full, [rest] if rest else [])
        if [(chunk.index, chunk.size_bytes) for chunk in chunks] != list(enumerate(expected)):
            raise ManifestIncomplete(size_bytes=size_bytes, chunk_count=len(chunks))
        return cls(chunks, size_bytes=size_bytes)

    @classmethod
    def of_any(cls, *, size_bytes: int) -> Self:
        """Return a check of a file without a manifest: only its size is known."""
        return cls((), size_bytes=size_bytes)

    def update(self, block: bytes) -> None:
        """Take the next bytes; blocks may have any size.

        Raises:
            ChunkCorrupt: a chunk ends in the block and does not have its digest.
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
                self._verify(self._chunk)
                self._next_chunk()

    def finish(self, *, declared: str | None) -> str:
        """Return the SHA-256 of the whole file in hex.

        Raises:
            StagingTruncated: bytes are missing.
            FileDigestMismatch: the client declared another digest.
        """
        if self._taken != self._size_bytes:
            raise StagingTruncated(expected_bytes=self._size_bytes, actual_bytes=self._taken)
        actual = self._file.hexdigest()
        if declared is not None and declared.lower() != actual:
            raise FileDigestMismatch(
                f"the file was declared with sha256 {declared} and has {actual}"
            )
        return actual

    def state(self) -> CheckState | None:
        """Return the state from which another check of this file continues.

        None if the SHA-256 cannot be exported, and inside a chunk without a CRC32C.
        """
        sha256 = self._file.state()
        is_inside = self._chunk is not None and self._missing < self._chunk.size_bytes
        if sha256 is None or (is_inside and not isinstance(self._running, Crc32c)):
            return None
        crc32c = self._running.value if is_inside and isinstance(self._running, Crc32c) else 0
        return CheckState(taken=self._taken, sha256=sha256, crc32c=crc32c)

    def continue_from(self, state: CheckState) -> bool:
        """Continue from the state of an earlier check of this file.

        Call before the first byte. Returns False and changes nothing if the state does not fit.
        """
        file = digests.sha256_from(state.sha256, taken=state.taken)
        passed, taken = 0, state.taken
        while passed < len(self._chunks) and taken >= self._chunks[passed].size_bytes:
            taken -= self._chunks[passed].size_bytes
            passed += 1
        unfinished = self._chunks[passed] if taken and passed < len(self._chunks) else None
        if file is None or (unfinished is not None and unfinished.crc32c is None):
            return False
        self._file, self._taken = file, state.taken
        self._ahead = iter(self._chunks[passed:])
        self._next_chunk()
        if unfinished is not None:
            self._missing -= taken
            self._running = Crc32c(state.crc32c)
        return True

    def _next_chunk(self) -> None:
        self._chunk = next(self._ahead, None)
        self._missing = self._chunk.size_bytes if self._chunk else 0
        has_crc32c = self._chunk is None or self._chunk.crc32c is not None
        self._running = Crc32c() if has_crc32c else hashlib.sha256()

    def _verify(self, chunk: Chunk) -> None:
        algorithm, expected = (
            ("sha256", chunk.sha256) if chunk.crc32c is None else ("crc32c", chunk.crc32c)
        )
        actual = self._running.digest()
        if actual != expected:
            raise ChunkCorrupt(chunk.index, algorithm=algorithm, expected=expected, actual=actual)


class _Digest(Protocol):
    def update(self, block: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


def multipart_etag(part_md5s: Sequence[bytes]) -> str:
    """Return the ETag that S3 gives a multipart object: the MD5 of the parts' MD5s, and their number."""
    digest = hashlib.md5(b"".join(part_md5s), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(part_md5s)}"


def is_multipart_etag(etag: str) -> bool:
    return "-" in etag


def etag_matches(etag: str, *, part_md5s: Sequence[bytes], file_md5: Callable[[], bytes]) -> bool:
    """Return whether an ETag proves that an object consists of these parts.

    Most stores return the multipart form. Some return the MD5 of the whole object;
    only then `file_md5` is called. The MD5 of a file of one part is that part's MD5.
    """
    given = etag.strip('"').lower()
    if given == multipart_etag(part_md5s):
        return True
    if is_multipart_etag(given):
        return False
    whole = part_md5s[0] if len(part_md5s) == 1 else file_md5()
    return given == whole.hex()
