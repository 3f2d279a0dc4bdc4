"""Staging in the bucket: one object per chunk, under a key made of the chunk's own digest.

Two different contents never share a key, so nothing is locked and nothing is
ever written over: the chunk's row decides which object counts. A body is
spooled until its digests are known and its key with them; the store checks it
against its Content-MD5 before it confirms.
"""

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Final, Self

import structlog

from gateway.staging.errors import StagingFull, StoreRejected, StoreUnavailable
from gateway.staging.port import StagedUpload, Watch
from gateway.staging.serial_executor import Lane, Threads
from gateway.staging.store import Store
from schemas import object_keys
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.settings import MIB, ObjectStoreSettings

if TYPE_CHECKING:
    from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)

KEPT_IN_MEMORY: Final = MIB
"""A body up to this size is not spooled to a file."""

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ObjectRegion:
    """A chunk on its way into the bucket."""

    def __init__(
        self,
        threads: Threads,
        store: Store,
        upload: StagedUpload,
        *,
        index: int,
        work_dir: Path | None,
    ) -> None:
        self._lane = Lane(threads)
        self._store = store
        self._upload = upload
        self._index = index
        self._spool = SpooledTemporaryFile(  # noqa: SIM115  # closed by close()
            max_size=KEPT_IN_MEMORY, dir=str(work_dir) if work_dir else None
        )
        self._size_bytes = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._key: ObjectKey | None = None

    async def lock(self, *, wait: timedelta) -> bool:  # noqa: ARG002  # the port's signature
        """Succeed at once: whoever sends other bytes writes to another object."""
        return True

    def append(self, block: memoryview, *, watch: Watch) -> asyncio.Future[None]:
        return self._lane.ask(self._append, block, watch)

    async def complete(self, block: memoryview, *, watch: Watch) -> bytes:
        await self._lane.run(self._append, block, watch)
        sha256 = watch.verify()
        key = object_keys.staged_chunk(
            self._upload.tenant_id, self._upload.id, index=self._index, sha256=sha256
        )
        self._key = key
        await self._store.put(
            key, content=self._spool, size_bytes=self._size_bytes, md5=self._md5.digest()
        )
        return sha256

    async def discard(self) -> None:
        if self._key is None:
            return
        try:
            await self._store.delete(self._key)
        except (StoreUnavailable, StoreRejected) as error:
            # The request's own outcome goes before; the sweep finds what is left here.
            log.warning("chunk.object_left", reason=str(error))

    def end(self) -> asyncio.Future[None]:
        """Close the spool once no thread writes to it any more."""
        return self._lane.end(self._close)

    def _close(self) -> None:
        # What counts is in the bucket already.
        with suppress(OSError):
            self._spool.close()

    def _append(self, block: memoryview, watch: Watch) -> None:
        watch.update(block)
        self._md5.update(block)
        try:
            self._spool.write(block)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise StagingFull from error
            raise
        self._size_bytes += len(block)


class ObjectArea:
    """The part of the bucket under `staging/`, and the threads that spool for it."""

    kind = StagingKind.OBJECTS

    def __init__(self, store: Store, *, work_dir: Path | None) -> None:
        self._store = store
        self._work_dir = work_dir
        self._threads = Threads("spooling")

    @classmethod
    def connect(cls, settings: ObjectStoreSettings, *, work_dir: Path | None) -> Self:
        """Return staging in the bucket of `settings`; nothing is sent yet."""
        return cls(Store.connect(settings), work_dir=work_dir)

    async def prepare(self) -> None:
        if self._work_dir is not None:
            self._work_dir.mkdir(parents=True, exist_ok=True)

    async def create(self, upload_id: UploadId, *, tenant_id: TenantId, size_bytes: int) -> None:
        """Do nothing: an object takes its room when it is written."""

    @asynccontextmanager
    async def region(
        self,
        upload: StagedUpload,
        *,
        index: int,
        offset: int,  # noqa: ARG002  # the port's signature
        size_bytes: int,  # noqa: ARG002  # the port's signature
    ) -> AsyncIterator[ObjectRegion]:
        region = ObjectRegion(
            self._threads, self._store, upload, index=index, work_dir=self._work_dir
        )
        try:
            yield region
        finally:
            # The answer does not wait for it.
            region.end()

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:
        """Leave it to the worker that hears of `upload.cancelled`.

        It takes one request per thousand objects, and what a request still
        under way puts there after us would be left behind anyway.
        """

    async def is_writable(self) -> bool:
        return await self._store.is_there()

    def close(self) -> None:
        self._threads.close()
        self._store.close()
