"""The interface of a staging backend."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, Self

from gateway.staging.hashing import BodyHasher
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedUpload:
    """The facts of an upload that never change."""

    id: UploadId
    tenant_id: TenantId
    size: int
    chunk_size: int
    kind: StagingKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """The disk of a staging directory.

    Attributes:
        size_bytes: that files can take, used and free.
        free_bytes: of them free.
        reserve_bytes: that uploads must leave free.
    """

    size_bytes: int
    free_bytes: int
    reserve_bytes: int

    @property
    def is_full(self) -> bool:
        """Whether no byte of an upload fits."""
        return self.free_bytes <= self.reserve_bytes

    @property
    def used_percent(self) -> int:
        """As `df` shows it, rounded up."""
        return -(-100 * (self.size_bytes - self.free_bytes) // max(self.size_bytes, 1))


class Sink(Protocol):
    """Receives the blocks of one body, in the order of the calls."""

    def append(self, block: memoryview) -> asyncio.Future[None]:
        """Queue a block; the future is done when the block is processed.

        Until then the block must not change and the future must not be cancelled.
        The next block may be queued at once; after a failed block no later block is processed.

        Raises, when awaited:
            StagingFull: the disk has no room for the block.
        """

    async def complete(self, block: memoryview, *, processed: Callable[[], None]) -> bytes:
        """Process the last block, after all queued blocks, and return the sha256 of the body.

        A chunk writer returns once the bytes would survive a power failure.

        Args:
            block: the last block; must not change until it is processed.
            processed: called once the block is processed, if much remains to be done after that.

        Raises:
            ChunkDigestMismatch: the body is not what the client declared; nothing is stored.
            StagingFull: the disk has no room.
            StoreFailed: the object store did not confirm the bytes.
        """


class ChunkWriter(Sink, Protocol):
    """Stores one chunk for one request: `async with backend.open_chunk(…) as writer`.

    Leaving the block releases the file and the lock.

    Raises, on entering:
        StagingMissing: the upload's staged bytes are gone.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None: ...

    async def lock(self, *, wait_max: timedelta) -> bool:
        """Lock the chunk for this request; False if another request holds it for longer.

        A backend in which different contents never share a place needs no lock and returns True.
        """

    async def discard(self) -> None:
        """Delete completed bytes that will not be recorded as a chunk; never raises."""


class StagingBackend(Protocol):
    """One place for staged bytes: the directory or the bucket."""

    @property
    def kind(self) -> StagingKind: ...

    async def prepare(self) -> None:
        """Prepare for new uploads; called when the process starts."""

    async def create(self, upload_id: UploadId, *, tenant_id: TenantId, size_bytes: int) -> None:
        """Make room for an upload.

        Raises:
            StagingFull: the disk has no room for it.
        """

    def open_chunk(
        self,
        upload: StagedUpload,
        *,
        index: int,
        offset: int,
        size_bytes: int,
        hasher: BodyHasher,
    ) -> ChunkWriter: ...

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:
        """Delete the staged bytes of an upload; a sweep deletes what cannot be deleted now. Idempotent."""

    async def problem(self) -> str | None:
        """Return why no upload can be staged, apart from a full disk; None if there is no reason."""

    async def disk(self) -> Disk | None:
        """Return the disk of the staged bytes; None if they are in the bucket."""

    def close(self) -> None: ...
