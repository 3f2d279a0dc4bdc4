"""The same bytes in every kind of source."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import google_crc32c

from pipeline.transfer.checks import Chunk
from pipeline.transfer.sources.reference import ReferencedObject
from pipeline.transfer.sources.source import Source
from pipeline.transfer.sources.staged_file import StagedFile
from pipeline.transfer.sources.staged_objects import StagedObjects
from schemas.ids import TenantId, UploadId
from schemas.object_keys import ObjectKey
from tests.fakes.storage import FakeStorage, Object

KEY = ObjectKey("originals/tenant/upload")
CONTENT = bytes(range(256)) * 4
CHUNK_SIZE = 100
PART_SIZE = 64  # 16 parts
SOURCE = ObjectKey("incoming/tenant/scan.pdf")
TENANT, UPLOAD = TenantId(UUID(int=1)), UploadId(UUID(int=2))


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def crc32c(content: bytes) -> bytes:
    value: int = google_crc32c.value(content)
    return value.to_bytes(4, "big")


def part(number: int, content: bytes = CONTENT) -> bytes:
    return content[(number - 1) * PART_SIZE : number * PART_SIZE]


def is_empty(storage: FakeStorage) -> bool:
    return not storage.objects and not storage.open_multiparts(KEY)


def chunks_of(content: bytes, *, chunk_size: int) -> list[Chunk]:
    pieces = [content[at : at + chunk_size] for at in range(0, len(content), chunk_size)]
    return [
        Chunk(
            index,
            size_bytes=len(piece),
            sha256=hashlib.sha256(piece).digest(),
            crc32c=crc32c(piece),
        )
        for index, piece in enumerate(pieces)
    ]


class Kind(StrEnum):
    FILE = "staged file"
    CHUNKS = "chunk objects"
    PARTS = "chunk objects as parts"
    REFERENCE = "referenced object"


@dataclass
class StagedUpload:
    """A source in staging, and the faults that may happen to its bytes."""

    kind: Kind
    source: Source
    storage: FakeStorage
    inputs: set[ObjectKey] = field(default_factory=set)

    def left(self) -> set[ObjectKey]:
        """Return the keys in the bucket that are not part of the source."""
        return set(self.storage.objects) - self.inputs

    def flip_bit(self, *, at: int) -> None:
        if isinstance(self.source, StagedFile):
            content = bytearray(self.source.path.read_bytes())
            content[at] ^= 1
            self.source.path.write_bytes(content)
            return
        key, within = self._lies_at(at)
        content = bytearray(self.storage.objects[key].content)
        content[within] ^= 1
        self.overwrite(key, bytes(content))

    def damage(self, *, before: int) -> None:
        """Change the bytes before an offset so that only reading detects the change.

        ETags stay the same.
        """
        for at in range(0, before, 7):
            etags = {key: self.storage.objects[key].etag for key in self.inputs}
            self.flip_bit(at=at)
            for key, etag in etags.items():
                self.storage.objects[key] = replace(self.storage.objects[key], etag=etag)

    def overwrite(self, key: ObjectKey, content: bytes) -> None:
        self.storage.objects[key] = replace(
            self.storage.objects[key], content=content, etag=md5(content).hex()
        )

    def lose(self) -> None:
        if isinstance(self.source, StagedFile):
            self.source.path.unlink(missing_ok=True)
        for key in self.inputs:
            self.storage.objects.pop(key, None)

    def _lies_at(self, offset: int) -> tuple[ObjectKey, int]:
        if isinstance(self.source, StagedObjects):
            index, within = divmod(offset, self.source.chunk_size)
            return self.source.keys()[index], within
        return SOURCE, offset


def stage(
    kind: Kind, directory: Path, *, content: bytes = CONTENT, storage: FakeStorage | None = None
) -> StagedUpload:
    storage = storage or FakeStorage()
    match kind:
        case Kind.FILE:
            return StagedUpload(kind, staged_file(directory, content), storage)
        case Kind.CHUNKS | Kind.PARTS:
            chunk_size = PART_SIZE if kind is Kind.PARTS else CHUNK_SIZE
            objects = StagedObjects(
                storage=storage,
                tenant_id=TENANT,
                upload_id=UPLOAD,
                size_bytes=len(content),
                chunk_size=chunk_size,
                chunks=chunks_of(content, chunk_size=chunk_size),
                sha256=None,
                content_type=None,
                copied_above=0,
            )
            for key, piece in zip(
                objects.keys(), _pieces(content, chunk_size=chunk_size), strict=True
            ):
                storage.objects[key] = Object(piece, "", etag=md5(piece).hex())
            return StagedUpload(kind, objects, storage, inputs=set(objects.keys()))
        case Kind.REFERENCE:
            storage.objects[SOURCE] = Object(content, "", etag=md5(content).hex())
            found = ReferencedObject.find(SOURCE, storage=storage, sha256=None, content_type=None)
            storage.calls.clear()
            return StagedUpload(kind, found, storage, inputs={SOURCE})


def _pieces(content: bytes, *, chunk_size: int) -> Iterator[bytes]:
    return (content[at : at + chunk_size] for at in range(0, len(content), chunk_size))


def staged_file(
    directory: Path,
    content: bytes = CONTENT,
    *,
    chunk_size: int = CHUNK_SIZE,
    declared: str | None = None,
) -> StagedFile:
    path = directory / "staged"
    path.write_bytes(content)
    return StagedFile(
        path=path,
        size_bytes=len(content),
        chunk_size=chunk_size,
        chunks=chunks_of(content, chunk_size=chunk_size),
        sha256=declared,
        content_type=None,
    )
