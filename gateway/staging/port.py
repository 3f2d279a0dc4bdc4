"""What the gateway asks of a place where bytes wait."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedUpload:
    """What never changes of an upload: whose it is, how it is cut, and where it is staged."""

    id: UploadId
    tenant_id: TenantId
    size: int
    chunk_size: int
    kind: StagingKind


class Watch(Protocol):
    """Sees the bytes of a body on their way."""

    def update(self, block: memoryview) -> None:
        """See the next block; called in the thread that deals with it."""

    def verify(self) -> bytes:
        """Return the sha256 of everything seen; raise where it is not what was promised."""


class Sink(Protocol):
    """Takes the blocks of one body, in the order of the calls."""

    def append(self, block: memoryview, *, watch: Watch) -> asyncio.Future[None]:
        """Put a block in line, and return what tells that it was dealt with.

        Until then nobody else writes to the block, and nobody cancels the future.
        The next block may come at once; after one that failed none is dealt with.

        Raises, when awaited:
            StagingFull: the disk has no room for it.
        """

    async def complete(self, block: memoryview, *, watch: Watch) -> bytes:
        """Deal with the last block, after those in line, and return the sha256 of the body.

        In a region this returns once the bytes would survive a power failure.

        Raises:
            StagingFull: the disk had no room after all.
            StoreUnavailable, StoreRejected: the object store has not got them.
            What `watch.verify` raises; then nothing counts as kept.
        """


class Region(Sink, Protocol):
    """A chunk's place, open for one request."""

    async def lock(self, *, wait: timedelta) -> bool:
        """Take the place for this request alone; say whether that succeeded in time.

        Places that no two different contents share need no lock and are always taken.
        """

    async def discard(self) -> None:
        """Remove what was completed and never will be on record; does not fail."""


class Area(Protocol):
    """One kind of place."""

    @property
    def kind(self) -> StagingKind: ...

    async def prepare(self) -> None:
        """Get ready for new uploads, when the process starts."""

    async def create(self, upload_id: UploadId, *, tenant_id: TenantId, size_bytes: int) -> None:
        """Make room for an upload.

        Raises:
            StagingFull: there is none.
        """

    def region(
        self, upload: StagedUpload, *, index: int, offset: int, size_bytes: int
    ) -> AbstractAsyncContextManager[Region]:
        """Open a chunk's place; leaving it gives everything held for it back.

        Raises:
            StagingMissing: the upload has no place here.
        """

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:
        """Delete what is staged, where that is ours to do; that there is nothing is no error."""

    async def is_writable(self) -> bool: ...

    def close(self) -> None: ...
