"""All the places this gateway can reach, as one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.staging.buffers import Buffers
from gateway.staging.errors import StagingElsewhere
from gateway.staging.port import Area, Region, Sink, StagedUpload, Watch
from gateway.staging.serial_executor import Lane, Threads
from gateway.staging.upload_cache import KnownUploads
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind


class Comparison:
    """A sink for bytes that are there already: they are only looked at."""

    def __init__(self, threads: Threads) -> None:
        self._lane = Lane(threads)

    def append(self, block: memoryview, *, watch: Watch) -> asyncio.Future[None]:
        return self._lane.ask(watch.update, block)

    async def complete(self, block: memoryview, *, watch: Watch) -> bytes:
        await self._lane.run(watch.update, block)
        return watch.verify()


class Staging:
    """The area new uploads go to, and the other one for uploads begun before a change of settings.

    Args:
        area: where new uploads go.
        other: the other area, where it is at hand.
        make_other: makes it when an upload in it is first met. Where there is neither, its
            uploads are out of this gateway's reach.
    """

    def __init__(
        self,
        area: Area,
        *,
        other: Area | None = None,
        make_other: Callable[[], Area] | None = None,
    ) -> None:
        self.known = KnownUploads()
        self.buffers = Buffers()
        self._area = area
        self._other = other
        self._make_other = make_other
        self._making = asyncio.Lock()
        self._threads = Threads("comparing")

    @property
    def kind(self) -> StagingKind:
        """Where new uploads go."""
        return self._area.kind

    async def prepare(self) -> None:
        await self._area.prepare()

    async def create(self, upload_id: UploadId, *, tenant_id: TenantId, size_bytes: int) -> None:
        """Make room for a new upload.

        Raises:
            StagingFull: there is none.
        """
        await self._area.create(upload_id, tenant_id=tenant_id, size_bytes=size_bytes)

    @asynccontextmanager
    async def region(
        self, upload: StagedUpload, *, index: int, offset: int, size_bytes: int
    ) -> AsyncIterator[Region]:
        """Open a chunk's place, wherever its upload is staged.

        Raises:
            StagingElsewhere: not where this gateway can reach.
            StagingMissing: the upload has no place there.
        """
        area = await self._area_of(upload)
        async with area.region(upload, index=index, offset=offset, size_bytes=size_bytes) as region:
            yield region

    def comparison(self) -> Sink:
        """Return a sink that keeps nothing."""
        return Comparison(self._threads)

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:
        """Delete what is staged of an upload, in every area at hand that deletes at once."""
        await self._area.remove(upload_id, tenant_id=tenant_id)
        if self._other is not None:
            await self._other.remove(upload_id, tenant_id=tenant_id)

    async def is_writable(self) -> bool:
        return await self._area.is_writable()

    def close(self) -> None:
        self._threads.close()
        self._area.close()
        if self._other is not None:
            self._other.close()

    async def _area_of(self, upload: StagedUpload) -> Area:
        if upload.kind == self._area.kind:
            return self._area
        other = await self._reach_other()
        if other is None or other.kind != upload.kind:
            raise StagingElsewhere(upload.id, kind=upload.kind)
        return other

    async def _reach_other(self) -> Area | None:
        async with self._making:
            if self._other is None and self._make_other is not None:
                # It may load a client library, which takes a while.
                other = await self._threads.run(self._make_other)
                await other.prepare()
                self._other = other
        return self._other
