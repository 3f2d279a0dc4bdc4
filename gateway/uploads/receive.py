"""Receiving a chunk.

A chunk is acked when its bytes are durable and its row is committed, in that
order. The row is what makes a chunk count: bytes without one, left by a request
that died, are overwritten by the next, or stay an object nobody speaks of.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol, runtime_checkable

import structlog

from gateway.db import AutocommitConnection
from gateway.staging import Buffers, Region, Sink, StagedUpload, Staging, StagingMissing
from gateway.uploads import chunking, queries
from gateway.uploads.body import Blocks, ChunkTooLong, until_silence
from gateway.uploads.digests import Digester, Expected
from schemas.api.uploads import ChunkStored
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.policy import media_types

log = structlog.stdlib.get_logger(__name__)

SILENCE_MAX: Final = timedelta(seconds=60)
"""A client that sends nothing for so long has gone; its chunk's lock is needed by the retry."""


class UploadNotOpen(DomainError):
    """The upload takes no chunks any more."""

    code = ErrorCode.UPLOAD_NOT_OPEN

    def __init__(self, upload_id: UploadId, *, status: str) -> None:
        super().__init__(f"upload {upload_id} takes no chunks: it is {status}")


class UploadExpired(DomainError):
    """The time to send the upload is over."""

    code = ErrorCode.UPLOAD_EXPIRED

    def __init__(self, upload_id: UploadId, *, expired_at: datetime) -> None:
        super().__init__(f"upload {upload_id} expired at {expired_at.isoformat()}")


class ChunkIndexOutOfRange(DomainError):
    """The upload has no chunk of this index."""

    code = ErrorCode.CHUNK_INDEX_OUT_OF_RANGE

    def __init__(self, index: int, *, chunk_count: int) -> None:
        super().__init__(f"there is no chunk {index}: the upload has {chunk_count}, from 0")


class ChunkSizeMismatch(DomainError):
    """The body is not as long as this chunk is."""

    code = ErrorCode.CHUNK_SIZE_MISMATCH

    def __init__(self, index: int, *, expected: int, actual: int) -> None:
        super().__init__(f"chunk {index} has {expected} bytes, not {actual}")


class ChunkDigestMismatch(DomainError):
    """The bytes received are not the ones the client's digest speaks of."""

    code = ErrorCode.CHUNK_DIGEST_MISMATCH
    retryable = True

    def __init__(self, index: int, *, expected: Expected) -> None:
        super().__init__(
            f"what came for chunk {index} does not have the {expected.algorithm} of {expected.field}"
        )


class ChunkConflict(DomainError):
    """Another content is stored for this chunk already, and stays."""

    code = ErrorCode.CHUNK_CONFLICT

    def __init__(self, index: int, *, stored: bytes) -> None:
        super().__init__(f"chunk {index} is stored with other content, sha256 {stored.hex()}")


class ChunkInProgress(DomainError):
    """Another request is still sending this chunk."""

    code = ErrorCode.CHUNK_IN_PROGRESS
    retryable = True

    def __init__(self, index: int) -> None:
        super().__init__(f"another request is still sending chunk {index}")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A chunk as a request offers it, before its bytes are read."""

    upload_id: UploadId
    index: int
    declared_size: int | None
    expected: tuple[Expected, ...]
    may_end_early: bool = False
    """Whether it may be the last one of a file whose size is only known at its end."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which bytes of its upload a chunk is."""

    index: int
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Received:
    """What is known of a body once it has been read."""

    sha256: bytes
    crc32c: bytes
    first_bytes: bytes
    size: int


class Inspection:
    """Watches a body on its way, and knows what the client said it is."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._digester = Digester(offer.expected)

    def see(self, piece: bytes) -> None:
        """See the next bytes as they come, in the event loop."""
        self._digester.see(piece)

    def update(self, block: memoryview) -> None:
        self._digester.update(block)

    def verify(self) -> bytes:
        wrong = self._digester.mismatch()
        if wrong is not None:
            raise ChunkDigestMismatch(self._offer.index, expected=wrong)
        return self._digester.sha256

    @property
    def crc32c(self) -> bytes:
        return self._digester.crc32c


@runtime_checkable
class ReceiveChunk(Protocol):
    """Stores a chunk: `receive_chunk` with what is the same for all of them."""

    async def __call__(
        self, *, tenant_id: TenantId, offer: Offer, body: AsyncIterator[bytes]
    ) -> ChunkStored: ...


async def receive_chunk(
    statements: AutocommitConnection,
    staging: Staging,
    *,
    tenant_id: TenantId,
    offer: Offer,
    body: AsyncIterator[bytes],
    lock_wait: timedelta,
    clock: Callable[[], datetime],
) -> ChunkStored:
    """Store a chunk durably, or find that it is stored already.

    Stored bytes are never written again: a repeated chunk is only compared.

    Raises:
        UploadNotFound, UploadNotOpen, UploadExpired: the upload takes no chunk.
        ChunkIndexOutOfRange, ChunkSizeMismatch, ChunkTooLong, BodyStalled: not such a chunk.
        ChunkDigestMismatch: it was damaged on the way; nothing is stored.
        ChunkConflict: it is stored with other content.
        ChunkInProgress: another request is at it.
        StagingFull, StagingMissing, StagingElsewhere: the bytes cannot be kept.
        StoreUnavailable, StoreRejected: the object store has not confirmed them.
    """
    upload = await _staged_upload(
        statements, staging, tenant_id=tenant_id, upload_id=offer.upload_id
    )
    place = _place_of(offer, upload=upload)

    async def look() -> bytes | None:
        """Return the digest of the chunk where it is stored, if the upload takes chunks at all."""
        seen = await queries.look_at_chunk(statements, upload, index=place.index)
        _check_open(upload.id, status=seen.status, expires_at=seen.expires_at, now=clock())
        return seen.stored

    try:
        async with staging.region(
            upload, index=place.index, offset=place.offset, size_bytes=place.size
        ) as region:
            stored = await _look_once_locked(region, look, index=place.index, wait=lock_wait)
            if stored is None:
                log.debug("chunk.receiving", index=place.index)
                received = await _read(
                    body, offer=offer, size=place.size, sink=region, buffers=staging.buffers
                )
                place = replace(place, size=received.size)
                await _record(
                    statements, upload, region, place=place, received=received, now=clock()
                )
                return _stored(upload, place=place, sha256=received.sha256)
    except StagingMissing:
        # An upload that was given up has no file any more, and then that is what to say.
        stored = await look()
        if stored is None:
            raise
    compared = await _read(
        body, offer=offer, size=place.size, sink=staging.comparison(), buffers=staging.buffers
    )
    if compared.sha256 != stored:
        raise ChunkConflict(place.index, stored=stored)
    return _stored(upload, place=place, sha256=stored)


async def _staged_upload(
    statements: AutocommitConnection, staging: Staging, *, tenant_id: TenantId, upload_id: UploadId
) -> StagedUpload:
    upload = staging.known.find(upload_id, tenant_id=tenant_id)
    if upload is None:
        upload = await queries.staged_upload(statements, tenant_id=tenant_id, upload_id=upload_id)
        staging.known.remember(upload)
    if upload.kind == StagingKind.REFERENCE:
        raise UploadNotOpen(upload_id, status="a reference to an object")
    return upload


def _place_of(offer: Offer, *, upload: StagedUpload) -> Place:
    plan = chunking.Plan(size=upload.size, chunk_size=upload.chunk_size)
    if offer.index not in plan:
        raise ChunkIndexOutOfRange(offer.index, chunk_count=plan.chunk_count)
    size = plan.size_of(offer.index)
    if offer.declared_size is not None and offer.declared_size != size:
        raise ChunkSizeMismatch(offer.index, expected=size, actual=offer.declared_size)
    return Place(index=offer.index, offset=plan.offset_of(offer.index), size=size)


def _check_open(upload_id: UploadId, *, status: str, expires_at: datetime, now: datetime) -> None:
    if status == UploadStatus.EXPIRED or (status == UploadStatus.OPEN and expires_at <= now):
        raise UploadExpired(upload_id, expired_at=expires_at)
    if status != UploadStatus.OPEN:
        raise UploadNotOpen(upload_id, status=status)


async def _look_once_locked(
    region: Region, look: Callable[[], Awaitable[bytes | None]], *, index: int, wait: timedelta
) -> bytes | None:
    """Lock the region, then look: whoever had it before may have stored the chunk."""
    if not await region.lock(wait=timedelta(0)):
        # What is stored or no longer wanted need not wait for whoever is at it.
        stored = await look()
        if stored is not None:
            return stored
        if not await region.lock(wait=wait):
            raise ChunkInProgress(index)
    return await look()


async def _record(
    statements: AutocommitConnection,
    upload: StagedUpload,
    region: Region,
    *,
    place: Place,
    received: Received,
    now: datetime,
) -> None:
    """Put a chunk that is kept on record, or find out why it cannot be.

    What is kept of a refused one is discarded, and only then: no row speaks
    of it, and none ever will. That its time is over does not say so: another
    request with the same bytes may have looked at the clock a moment before.
    """
    is_recorded = await queries.record_chunk(
        statements,
        upload,
        index=place.index,
        size=place.size,
        sha256=received.sha256,
        crc32c=received.crc32c,
        sniffed_type=media_types.sniff(received.first_bytes),
        now=now,
    )
    if is_recorded:
        return
    try:
        await _check_on_record(
            statements, upload, index=place.index, sha256=received.sha256, now=now
        )
    except (queries.UploadNotFound, UploadNotOpen, ChunkConflict):
        await region.discard()
        raise


async def _check_on_record(
    statements: AutocommitConnection,
    upload: StagedUpload,
    *,
    index: int,
    sha256: bytes,
    now: datetime,
) -> None:
    seen = await queries.look_at_chunk(statements, upload, index=index)
    if seen.stored == sha256:
        return  # another request brought the same bytes a moment ago
    _check_open(upload.id, status=seen.status, expires_at=seen.expires_at, now=now)
    if seen.stored is None:
        raise ChunkInProgress(index)
    raise ChunkConflict(index, stored=seen.stored)


def _stored(upload: StagedUpload, *, place: Place, sha256: bytes) -> ChunkStored:
    return ChunkStored(upload_id=upload.id, index=place.index, size=place.size, sha256=sha256.hex())


async def _read(
    body: AsyncIterator[bytes], *, offer: Offer, size: int, sink: Sink, buffers: Buffers
) -> Received:
    """Read the body into `sink`, and find that it is what the client said."""
    inspection = Inspection(offer)
    first_bytes = b""
    received = 0
    blocks = Blocks(lambda block: sink.append(block, watch=inspection), buffers=buffers)
    async with aclosing(blocks):
        async for piece in until_silence(body, longest=SILENCE_MAX):
            received += len(piece)
            if received > size:
                raise ChunkTooLong(offer.index, expected=size)
            if len(first_bytes) < media_types.SNIFFED_BYTES:
                first_bytes += piece[: media_types.SNIFFED_BYTES - len(first_bytes)]
            inspection.see(piece)
            await blocks.add(piece)
        if received != size and not offer.may_end_early:
            raise ChunkSizeMismatch(offer.index, expected=size, actual=received)
        sha256 = await sink.complete(blocks.last, watch=inspection)
    return Received(sha256=sha256, crc32c=inspection.crc32c, first_bytes=first_bytes, size=received)
