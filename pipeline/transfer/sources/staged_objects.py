"""An upload staged in the bucket: one object per chunk."""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import ClassVar

from pipeline.storage import range_reader
from pipeline.storage.errors import RangeEndsEarly
from pipeline.storage.plan import MIN_PART_SIZE, Part
from pipeline.storage.port import ObjectRange, ObjectStorage
from pipeline.transfer.checks import Chunk, StagingTruncated
from pipeline.transfer.sources.source import StagedSource
from schemas import staging_layout
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.object_keys import ObjectKey


@dataclass(frozen=True, kw_only=True)
class StagedObjects(StagedSource):
    """Chunk objects, read one after the other as one file."""

    kind: ClassVar = StagingKind.OBJECTS

    storage: ObjectStorage
    tenant_id: TenantId
    upload_id: UploadId
    copied_above: int = MIN_PART_SIZE
    """S3 copies ranges only of objects larger than this size."""

    def keys(self) -> list[ObjectKey]:
        return [self._key(chunk) for chunk in self.chunks]

    def blocks(self, offset: int, size_bytes: int, *, abandoned: Event) -> Iterator[bytes]:
        end = offset + size_bytes
        for chunk in self.chunks[offset // self.chunk_size :]:
            begins = chunk.index * self.chunk_size
            if begins >= end:
                return
            first, last = max(offset, begins), min(end, begins + chunk.size_bytes)
            source = ObjectRange(self._key(chunk), offset=first - begins, size_bytes=last - first)
            try:
                yield from range_reader.blocks(source, storage=self.storage, abandoned=abandoned)
            except RangeEndsEarly:
                self._require_size(chunk)
                raise

    def range_of(self, part: Part) -> ObjectRange | None:
        index, within = divmod(part.offset, self.chunk_size)
        chunk = self.chunks[index]
        if within + part.size_bytes > chunk.size_bytes or chunk.size_bytes <= self.copied_above:
            return None
        return ObjectRange(self._key(chunk), offset=within, size_bytes=part.size_bytes)

    def _key(self, chunk: Chunk) -> ObjectKey:
        return staging_layout.chunk_key(
            self.tenant_id, self.upload_id, index=chunk.index, sha256=chunk.sha256
        )

    def _require_size(self, chunk: Chunk) -> None:
        found = self.storage.head(self._key(chunk)).size_bytes
        if found != chunk.size_bytes:
            begins = chunk.index * self.chunk_size
            raise StagingTruncated(expected_bytes=self.size_bytes, actual_bytes=begins + found)
