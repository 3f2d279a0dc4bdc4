"""One part: digested while it is read, then copied within the bucket or sent."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

import structlog

from pipeline.storage.errors import CopyUnsupported
from pipeline.storage.plan import Part
from pipeline.storage.port import Body, Multipart, ObjectRange, ObjectStorage, StoredPart
from pipeline.storage.scratch import Scratch, ScratchFile
from pipeline.transfer.checks import FileCheck
from pipeline.transfer.sources.source import Source
from schemas.errors import BodyAltered
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)

NO_BYTES: Final = Body(b"", md5=hashlib.md5(b"", usedforsecurity=False).digest())


@dataclass(frozen=True, slots=True)
class DigestedPart:
    """A part whose bytes passed the check of the file."""

    part: Part
    md5: bytes
    scratch: ScratchFile | None
    """A copy of the bytes; None if `store` can use the source itself."""


class Parts:
    """Reads and stores the parts of one file.

    `read` is called by one thread, part after part; `store` by several threads at once.
    Both stop once `abandoned` is set.
    """

    def __init__(
        self,
        source: Source,
        *,
        storage: ObjectStorage,
        work_dir: Path | None,
        abandoned: Event,
    ) -> None:
        self._source = source
        self._storage = storage
        self._scratch = Scratch(work_dir)
        self._abandoned = abandoned
        self._copies = True

    def close(self) -> None:
        """Free every scratch file."""
        self._scratch.close()

    def read(self, part: Part, *, check: FileCheck, to_store: bool) -> DigestedPart:
        """Read a part once; keep its bytes if it is `to_store` and cannot be copied or read again.

        Raises:
            StagingCorrupt: `check` finds wrong bytes, or the bytes end early.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        in_place = self._source.slice_of(part) or self._copy_range(part)
        scratch = self._scratch.new() if to_store and in_place is None else None
        for block in self._blocks(part):
            check.update(block)
            md5.update(block)
            if scratch is not None:
                scratch.write(block)
        return DigestedPart(part, md5=md5.digest(), scratch=scratch)

    def store(self, digested: DigestedPart, *, multipart: Multipart) -> StoredPart:
        """Store a part: by a copy within the bucket if possible, else by sending its bytes.

        Raises:
            MultipartGone: the multipart upload is no longer open.
            BodyAltered: the bytes changed after they were digested.
        """
        began = time.monotonic()
        stored = self._copied(digested, multipart=multipart)
        is_copy = stored is not None
        if stored is None:
            with self._body(digested) as body:
                stored = self._storage.upload_part(
                    multipart, number=digested.part.number, body=body, abandoned=self._abandoned
                )
        _log_stored(stored.number, size_bytes=stored.size_bytes, began=began, copied=is_copy)
        return stored

    def put(self, digested: DigestedPart | None, *, to: ObjectKey, content_type: str) -> None:
        """Store a file of one part, or an empty file, in one request.

        Raises:
            ObjectExists: the key has an object already.
            BodyAltered: the bytes changed after they were digested.
        """
        began = time.monotonic()
        with self._body(digested) as body:
            self._storage.put(to, body=body, content_type=content_type, abandoned=self._abandoned)
            _log_stored(1, size_bytes=body.size_bytes, began=began, copied=False)

    def md5_of_file(self) -> bytes:
        """Read the whole file once more and return its MD5."""
        md5 = hashlib.md5(usedforsecurity=False)
        for block in self._source.blocks(0, self._source.size_bytes, abandoned=self._abandoned):
            md5.update(block)
        return md5.digest()

    def _blocks(self, part: Part) -> Iterator[bytes]:
        return self._source.blocks(part.offset, part.size_bytes, abandoned=self._abandoned)

    def _copy_range(self, part: Part) -> ObjectRange | None:
        return self._source.range_of(part) if self._copies else None

    def _copied(self, digested: DigestedPart, *, multipart: Multipart) -> StoredPart | None:
        """Copy a part within the bucket; None if the store cannot, or the ETag is not the MD5."""
        source = self._copy_range(digested.part)
        if source is None or digested.scratch is not None:
            return None
        try:
            stored = self._storage.copy_part(multipart, number=digested.part.number, source=source)
        except CopyUnsupported:
            self._stop_copying(reason="the store does not copy parts")
            return None
        if stored.etag == digested.md5.hex():
            return stored
        # The copy is encrypted, or has other bytes than were read. A sent part is checked by its
        # MD5.
        self._stop_copying(reason="the ETag of a copied part is not its MD5")
        return None

    def _stop_copying(self, *, reason: str) -> None:
        self._copies = False
        log.info("transfer.parts_are_sent", reason=reason)

    @contextmanager
    def _body(self, digested: DigestedPart | None) -> Iterator[Body]:
        if digested is None:
            yield NO_BYTES
            return
        content = self._source.slice_of(digested.part)
        if content is not None:
            yield Body(content, md5=digested.md5)
            return
        scratch = digested.scratch or self._fetch(digested)
        try:
            yield Body(scratch.slice(), md5=digested.md5)
        finally:
            scratch.close()

    def _fetch(self, digested: DigestedPart) -> ScratchFile:
        """Read a part again whose bytes were not kept.

        Raises:
            BodyAltered: the bytes changed since the first read.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        file = self._scratch.new()
        for block in self._blocks(digested.part):
            md5.update(block)
            file.write(block)
        if md5.digest() != digested.md5:
            raise BodyAltered("read", reason="the bytes changed between two reads")
        return file


def _log_stored(number: int, *, size_bytes: int, began: float, copied: bool) -> None:
    log.debug(
        "transfer.part_stored",
        part=number,
        size_bytes=size_bytes,
        seconds=round(time.monotonic() - began, 3),
        copied=copied,
    )
