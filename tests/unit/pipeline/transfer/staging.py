"""The same bytes, staged in every way there is."""

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
    FILE = "a file"
    CHUNKS = "chunk objects that are not parts"
    PARTS = "chunk objects that are parts"
    REFERENCE = "an object of somebody else's"


@dataclass
class Stage:
    """Source bytes, and what may become of them."""

    kind: Kind
    staged: Source
    storage: FakeStorage
    inputs: set[ObjectKey] = field(default_factory=set)

    @property
    def is_in_bucket(self) -> bool:
        return self.kind is not Kind.FILE

    def left(self) -> set[ObjectKey]:
        """Return what is in the bucket besides what was staged there."""
        return set(self.storage.objects) - self.inputs

    def flip_bit(self, *, at: int) -> None:
        if isinstance(self.staged, StagedFile):
            content = bytearray(self.staged.path.read_bytes())
            content[at] ^= 1
            self.staged.path.write_bytes(content)
            return
        key, within = self._lies_at(at)
        content = bytearray(self.storage.objects[key].content)
        content[within] ^= 1
        self.overwrite(key, bytes(content))

    def damage(self, *, before: int) -> None:
        """Make other bytes of those before an offset, which only who reads them would notice.

        A reference stays what it says it is.
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
        if isinstance(self.staged, StagedFile):
            self.staged.path.unlink(missing_ok=True)
        for key in self.inputs:
            self.storage.objects.pop(key, None)

    def _lies_at(self, offset: int) -> tuple[ObjectKey, int]:
        if isinstance(self.staged, StagedObjects):
            index, within = divmod(offset, self.staged.chunk_size)
            return self.staged.keys()[index], within
        return SOURCE, offset


def stage(
    kind: Kind, directory: Path, *, content: bytes = CONTENT, storage: FakeStorage | None = None
) -> Stage:
    storage = storage or FakeStorage()
    match kind:
        case Kind.FILE:
            path = directory / "staged"
            path.write_bytes(content)
            file = StagedFile(
                path=path,
                size_bytes=len(content),
                chunk_size=CHUNK_SIZE,
                chunks=chunks_of(content, chunk_size=CHUNK_SIZE),
                sha256=None,
                content_type=None,
            )
            return Stage(kind, file, storage)
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
            return Stage(kind, objects, storage, inputs=set(objects.keys()))
        case Kind.REFERENCE:
            storage.objects[SOURCE] = Object(content, "", etag=md5(content).hex())
            found = ReferencedObject.find(SOURCE, storage=storage, sha256=None, content_type=None)
            storage.calls.clear()
            return Stage(kind, found, storage, inputs={SOURCE})


def _pieces(content: bytes, *, chunk_size: int) -> Iterator[bytes]:
    return (content[at : at + chunk_size] for at in range(0, len(content), chunk_size))
