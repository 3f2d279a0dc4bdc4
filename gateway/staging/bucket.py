"""Staging in the bucket: one object per chunk, whose key contains the chunk's digest.

Different contents never share a key, so there is no lock and no object is ever
overwritten: the row of a chunk names the object that counts. A body is spooled to a
file until its digest, and so its key, is complete; the store checks the body against
its Content-MD5 before it confirms.
"""

import asyncio
import errno
import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final, Self

import structlog

from gateway.staging.errors import StagingFull
from gateway.staging.hashing import BodyHasher
from gateway.staging.port import StagedUpload
from gateway.staging.serial_executor import SerialExecutor, Threads
from gateway.staging.store import Store
from schemas import staging_layout
from schemas.errors import StoreFailed
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind
from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from schemas.object_keys import ObjectKey

log = structlog.stdlib.get_logger(__name__)

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ObjectChunkWriter:
    """Spools one chunk, then puts it into the bucket."""

    def __init__(
        self,
        threads: Threads,
        store: Store,
        upload: StagedUpload,
        *,
        index: int,
        hasher: BodyHasher,
        work_dir: Path | None,
    ) -> None:
        self._executor = SerialExecutor(threads)
        self._store = store
        self._upload = upload
        self._index = index
        self._hasher = hasher
        self._work_dir = work_dir
        self._opened: IO[bytes] | None = None
        self._size_bytes = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._key: ObjectKey | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # The answer does not wait for the close.
        self._executor.submit(self._close, even_after_failure=True)

    async def lock(self, *, wait_max: timedelta) -> bool:  # noqa: ARG002  # the port's signature
        """Succeed at once: a request with other bytes writes another object."""
        return True

    def append(self, block: memoryview) -> asyncio.Future[None]:
        return self._executor.submit(self._append, block)

    async def complete(self, block: memoryview, *, processed: Callable[[], None]) -> bytes:
        await self._executor.run(self._append, block)
        # The spool has every byte: a slow store must not hold the buffers of other bodies.
        processed()
        sha256 = self._hasher.verify()
        key = staging_layout.chunk_key(
            self._upload.tenant_id, self._upload.id, index=self._index, sha256=sha256
        )
        self._key = key
        await self._store.put(
            key, content=self._spool(), size_bytes=self._size_bytes, md5=self._md5.digest()
        )
        return sha256

    async def discard(self) -> None:
        if self._key is None:
            return
        try:
            await self._store.delete(self._key)
        except StoreFailed as error:
            # The request is answered with its own error; a sweep deletes the object.
            log.warning("chunk.object_not_deleted", reason=str(error))

    def _close(self) -> None:
        # An error loses nothing: acknowledged bytes are already in the bucket.
        if self._opened is not None:
            with suppress(OSError):
                self._opened.close()

    def _spool(self) -> IO[bytes]:
        """Return the file, opened when it is first needed.

        It is on disk from the first byte: in memory, the bodies of many clients would add up.
        """
        if self._opened is None:
            self._opened = TemporaryFile(buffering=0, dir=self._work_dir)  # noqa: SIM115  # closed by _close()
        return self._opened

    def _append(self, block: memoryview) -> None:
        self._hasher.update(block)
        self._md5.update(block)
        try:
            spool, rest = self._spool(), block
            while rest:
                rest = rest[spool.write(rest) :]
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise StagingFull from error
            raise
        self._size_bytes += len(block)


class ObjectBackend:
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
        """Do nothing: an object takes room only when it is written."""

    def open_chunk(
        self,
        upload: StagedUpload,
        *,
        index: int,
        offset: int,  # noqa: ARG002  # the port's signature
        size_bytes: int,  # noqa: ARG002  # the port's signature
        hasher: BodyHasher,
    ) -> ObjectChunkWriter:
        return ObjectChunkWriter(
            self._threads, self._store, upload, index=index, hasher=hasher, work_dir=self._work_dir
        )

    async def remove(self, upload_id: UploadId, *, tenant_id: TenantId) -> None:
        """Delete the objects of the upload, as far as the store does it at once.

        A sweep deletes the rest, and an object that a concurrent request writes afterwards.
        """
        try:
            await self._store.delete_under(staging_layout.prefix_of(tenant_id, upload_id))
        except StoreFailed as error:
            log.warning("staging.objects_left", upload_id=str(upload_id), reason=str(error))

    async def problem(self) -> str | None:
        return await self._store.problem()

    async def disk(self) -> None:
        return None

    def close(self) -> None:
        self._threads.close()
        self._store.close()
