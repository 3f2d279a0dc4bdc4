"""One part: digested as it is read, then brought into the store the shortest way there is."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

import structlog

from pipeline.storage.errors import BodyAltered, CopyUnsupported
from pipeline.storage.port import Body, Multipart, ObjectRange, ObjectStorage, StoredPart
from pipeline.transfer.checks import FileCheck
from pipeline.transfer.plan import Part
from pipeline.transfer.sources.scratch import Scratch, ScratchFile
from pipeline.transfer.sources.staged_file import Source
from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)

NO_BYTES: Final = Body(b"", md5=hashlib.md5(b"", usedforsecurity=False).digest())


@dataclass(frozen=True, slots=True)
class DigestedPart:
    """A part whose bytes have passed the check of the file, and their MD5."""

    part: Part
    md5: bytes
    kept: ScratchFile | None
    """The bytes, where they would have to be fetched again otherwise."""


class Parts:
    """Reads and stores the parts of one file; leaving the block frees what it kept of them.

    `read` is called by one thread, part after part; `store` by many. Both stop
    once `abandoned` is set.
    """

    def __init__(
        self,
        staged: Source,
        *,
        storage: ObjectStorage,
        work_dir: Path | None,
        abandoned: Event,
    ) -> None:
        self._staged = staged
        self._storage = storage
        self._scratch = Scratch(work_dir)
        self._abandoned = abandoned
        self._store_copies = True

    def close(self) -> None:
        self._scratch.close()

    def read(self, part: Part, *, check: FileCheck, to_store: bool) -> DigestedPart:
        """Read a part once; where it is `to_store` and lies nowhere `store` can use, keep it.

        Raises:
            StagingCorrupt: from `check`, or the bytes end early.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        at_hand = self._staged.slice_of(part) or self._copy_source(part)
        kept = self._scratch.new() if to_store and at_hand is None else None
        for block in self._blocks(part):
            check.update(block)
            md5.update(block)
            if kept is not None:
                kept.write(block)
        return DigestedPart(part, md5=md5.digest(), kept=kept)

    def store(self, digested: DigestedPart, *, multipart: Multipart) -> StoredPart:
        """Store a part: as a copy within the bucket where it lies there, else by sending it.

        Raises:
            MultipartGone: the upload is no longer open.
            BodyAltered: the bytes are not those that were digested.
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
        """Store a file of one part, or of none, in one request.

        Raises:
            ObjectExists: there is an object already.
            BodyAltered: the bytes are not those that were digested.
        """
        began = time.monotonic()
        with self._body(digested) as body:
            self._storage.put(to, body=body, content_type=content_type, abandoned=self._abandoned)
            _log_stored(1, size_bytes=body.size_bytes, began=began, copied=False)

    def md5_of_file(self) -> bytes:
        """Read the file once more for the MD5 of the whole of it."""
        md5 = hashlib.md5(usedforsecurity=False)
        for block in self._staged.blocks(0, self._staged.size_bytes, abandoned=self._abandoned):
            md5.update(block)
        return md5.digest()

    def _blocks(self, part: Part) -> Iterator[bytes]:
        return self._staged.blocks(part.offset, part.size_bytes, abandoned=self._abandoned)

    def _copy_source(self, part: Part) -> ObjectRange | None:
        return self._staged.range_of(part) if self._store_copies else None

    def _copied(self, digested: DigestedPart, *, multipart: Multipart) -> StoredPart | None:
        """Have the store copy a part; None where it cannot, or what it says of the copy proves nothing."""
        source = self._copy_source(digested.part)
        if source is None or digested.kept is not None:
            return None
        try:
            stored = self._storage.copy_part(multipart, number=digested.part.number, source=source)
        except CopyUnsupported:
            self._copy_no_more(reason="the store does not copy parts")
            return None
        if stored.etag == digested.md5.hex():
            return stored
        # Encrypted, or not the bytes that were read: sent, their MD5 goes along and is checked.
        self._copy_no_more(reason="the ETag of a copied part is not its MD5")
        return None

    def _copy_no_more(self, *, reason: str) -> None:
        self._store_copies = False
        log.info("transfer.parts_are_sent", reason=reason)

    @contextmanager
    def _body(self, digested: DigestedPart | None) -> Iterator[Body]:
        if digested is None:
            yield NO_BYTES
            return
        content = self._staged.slice_of(digested.part)
        if content is not None:
            yield Body(content, md5=digested.md5)
            return
        kept = digested.kept or self._fetched(digested)
        try:
            yield Body(kept.slice(), md5=digested.md5)
        finally:
            kept.close()

    def _fetched(self, digested: DigestedPart) -> ScratchFile:
        """Read a part again that was not kept, and see that it is still the same."""
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
