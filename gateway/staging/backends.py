"""The staging backends that this gateway can reach."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.staging.buffers import Buffers
from gateway.staging.errors import StagingElsewhere
from gateway.staging.hashing import BodyHasher
from gateway.staging.port import Sink, StagedUpload, StagingBackend
from gateway.staging.serial_executor import SerialExecutor, Threads
from schemas.ids import TenantId, UploadId

CACHED_UPLOADS_MAX: Final = 4096

DISK_INTERVAL_SECONDS: Final = 1.0
"""Shortest time between two readings of the size of the staging disk."""


class DigestOnlySink:
    """Computes the digests of a body and stores nothing."""

    def __init__(self, threads: Threads, hasher: BodyHasher) -> None:
        self._executor = SerialExecutor(threads)
        self._hasher = hasher

    def append(self, block: memoryview) -> asyncio.Future[None]:
        return self._executor.submit(self._hasher.update, block)

    async def complete(self, block: memoryview, *, processed: Callable[[], None]) -> bytes:  # noqa: ARG002  # the port's signature
        await self._executor.run(self._hasher.update, block)
        return self._hasher.verify()


class UploadCache:
    """Caches the constant facts of the uploads that received chunks most recently.

    The status of an upload changes and is not cached; every chunk reads it once.
    """

    def __init__(self, *, size_max: int = CACHED_UPLOADS_MAX) -> None:
        self._size_max = size_max
        self._uploads: OrderedDict[UploadId, StagedUpload] = OrderedDict()

    def find(self, upload_id: UploadId, *, tenant_id: TenantId) -> StagedUpload | None:
        """Return the upload if it is cached and belongs to the tenant."""
        upload = self._uploads.get(upload_id)
        if upload is None or upload.tenant_id != tenant_id:
            return None
        self._uploads.move_to_end(upload_id)
        return upload

    def add(self, upload: StagedUpload) -> None:
        self._uploads[upload.id] = upload
        if len(self._uploads) > self._size_max:
            self._uploads.popitem(last=False)


class Staging:
    """The backend of new uploads, and the other backend, for uploads created with other settings.

    Args:
        primary: the backend of new uploads.
        other: the other backend, if it is ready.
        buffers: the memory for bodies.
        make_other: builds the other backend when a request first needs it. Without `other` and
            `make_other` this gateway cannot reach uploads in the other backend.
    """

    def __init__(
        self,
        primary: StagingBackend,
        *,
        buffers: Buffers,
        other: StagingBackend | None = None,
        make_other: Callable[[], StagingBackend] | None = None,
    ) -> None:
        self.primary = primary
        self.uploads = UploadCache()
        self.buffers = buffers
        self._other = other
        self._make_other = make_other
        self._making = asyncio.Lock()
        self._threads = Threads("hashing")
        self._disk_bytes: int | None = None
        self._disk_read_at = -math.inf

    async def disk_bytes(self) -> int | None:
        """Return the size of the disk of new uploads; None if they are staged in the bucket.

        It is read at most once a second: a disk may grow, but not while a burst of uploads is
        created, and each reading is a call to a thread.
        """
        now = time.monotonic()
        if now - self._disk_read_at >= DISK_INTERVAL_SECONDS:
            disk = await self.primary.disk()
            self._disk_bytes = None if disk is None else disk.size_bytes
            self._disk_read_at = now
        return self._disk_bytes

    async def backend_of(self, upload: StagedUpload) -> StagingBackend:
        """Return the backend that holds an upload.

        Raises:
            StagingElsewhere: this gateway has no settings for that backend.
        """
        if upload.kind == self.primary.kind:
            return self.primary
        async with self._making:
            if self._other is None and self._make_other is not None:
                # In a thread, because loading a client library may take a second.
                other = await self._threads.run(self._make_other)
                await other.prepare()
                self._other = other
        if self._other is None or self._other.kind != upload.kind:
            raise StagingElsewhere(upload.id, kind=upload.kind)
        return self._other

    def digest_only(self, hasher: BodyHasher) -> Sink:
        return DigestOnlySink(self._threads, hasher)

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:
        """Delete the staged bytes of an upload from every backend that is ready."""
        for backend in self._ready():
            await backend.remove(upload_id, tenant_id=tenant_id)

    def close(self) -> None:
        self._threads.close()
        for backend in self._ready():
            backend.close()

    def _ready(self) -> list[StagingBackend]:
        return [self.primary, *([self._other] if self._other else [])]
