"""Opening an upload, receiving its chunks, giving it up.

A chunk is acked when its bytes are synced to disk and its row is committed, in
that order. The row is what makes a chunk count: bytes without one, left by a
request that died, are overwritten by the next.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, runtime_checkable
from uuid import uuid4

import structlog
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway import idempotency
from gateway.db import Transaction
from gateway.problems import ReadingStopped
from gateway.staging import Staging
from gateway.uploads import chunking, queries
from gateway.uploads.digests import Digester, Expected
from schemas.api.uploads import ChunkStored, CreateUpload, UploadAbandoned, UploadCreated
from schemas.errors import DomainError, ErrorCode
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled
from schemas.ids import EventId, JobId, TenantId, UploadId
from schemas.lifecycle import (
    ACTIVE_JOBS,
    CANCELLABLE_UPLOADS,
    JobStage,
    JobStatus,
    UploadStatus,
)
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.uploads import Chunk, Upload

log = structlog.stdlib.get_logger(__name__)

SOURCE: Final = "/waybill/gateway"

BLOCK_BYTES: Final = 256 * 1024
"""A request holds two of these, whatever the size of its chunk."""

SILENCE_MAX: Final = timedelta(seconds=60)
"""A client that sends nothing for so long has gone; its chunk's lock is needed by the retry."""


@runtime_checkable
class RegisterCallback(Protocol):
    """Has somebody told of one upload's events; returns the secret that verifies them.

    Called again for the same upload it changes nothing and returns the same secret.
    """

    async def __call__(
        self, session: AsyncSession, *, tenant_id: TenantId, upload_id: UploadId, url: str
    ) -> str: ...


class TakeBlock(Protocol):
    """Deals with a block of a body; the block is overwritten afterwards."""

    def __call__(
        self, block: memoryview, *, observe: Callable[[memoryview], None]
    ) -> Coroutine[None, None, None]: ...


class FileTooLarge(DomainError):
    """The file is larger than this service takes."""

    code = ErrorCode.FILE_TOO_LARGE

    def __init__(self, *, size: int, largest: int) -> None:
        super().__init__(f"{size} bytes are more than the {largest} accepted")


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


class UploadAlreadySettled(DomainError):
    """The upload's end has come already; nothing is left to cancel."""

    code = ErrorCode.UPLOAD_ALREADY_SETTLED

    def __init__(self, upload_id: UploadId) -> None:
        super().__init__(f"upload {upload_id} is settled and can no longer be cancelled")


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


class ChunkTooLong(ReadingStopped):
    """The body goes on after the chunk's last byte."""

    code = ErrorCode.CHUNK_SIZE_MISMATCH

    def __init__(self, index: int, *, expected: int) -> None:
        super().__init__(f"chunk {index} has {expected} bytes, and the body is longer")


class BodyStalled(ReadingStopped):
    """The client stopped sending in the middle of the body."""

    code = ErrorCode.CHUNK_SIZE_MISMATCH

    def __init__(self, silence: timedelta) -> None:
        super().__init__(f"nothing came for {silence.total_seconds():g} seconds")


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


async def open_upload(
    session: AsyncSession,
    staging: Staging,
    *,
    tenant_id: TenantId,
    request: CreateUpload,
    claim: idempotency.Claim | None,
    limits: chunking.Limits,
    size_max: int,
    lifetime: timedelta,
    now: datetime,
    register_callback: RegisterCallback,
) -> UploadCreated:
    """Make an upload that takes chunks; with a used `claim`, return the one made then.

    Raises:
        FileTooLarge: for this service.
        StagingFull: for the staging disk, now.
        IdempotencyKeyReused: the claim's key is bound to another request.
    """
    if request.size > size_max:
        raise FileTooLarge(size=request.size, largest=size_max)
    plan = chunking.plan(request.size, wish=request.chunk_size, limits=limits)
    upload = Upload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
        status=UploadStatus.OPEN,
        filename=request.filename,
        content_type=request.content_type,
        size=request.size,
        chunk_size=plan.chunk_size,
        chunk_count=plan.chunk_count,
        sha256=request.sha256,
        client_metadata=request.metadata,
        expires_at=now + lifetime,
    )
    made_id = UploadId(
        await idempotency.first_use(session, claim, tenant_id=tenant_id, resource_id=upload.id)
    )
    is_new = made_id == upload.id
    if is_new:
        session.add(upload)
        await session.flush()
    else:
        upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=made_id)
    secret = None
    if request.callback_url is not None:
        secret = await register_callback(
            session, tenant_id=tenant_id, upload_id=upload.id, url=request.callback_url
        )
    if is_new:
        # Last, so that nothing but the commit can fail once the file is there.
        await staging.create(upload.id, size_bytes=upload.size)
        log.info("upload.opened", upload_id=str(upload.id), size_bytes=upload.size)
    return queries.show_created(upload, callback_secret=secret)


async def receive_chunk(
    transaction: Transaction,
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
        StagingFull, StagingMissing: the bytes cannot be kept.
    """
    async with transaction() as session:
        upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=offer.upload_id)
        _check_open(upload, now=clock())
        plan = queries.plan_of(upload)
        _check_offer(offer, plan=plan)
        stored = await queries.stored_sha256(session, upload.id, index=offer.index)
    size = plan.size_of(offer.index)
    if stored is not None:
        return await _compare(staging, body, offer=offer, size=size, stored=stored)
    offset = plan.offset_of(offer.index)
    async with staging.region(offer.upload_id, offset=offset, size_bytes=size) as region:
        if not await region.lock(wait=lock_wait):
            raise ChunkInProgress(offer.index)
        async with transaction() as session:
            # Whoever held the lock before may have stored the chunk.
            stored = await queries.stored_sha256(session, offer.upload_id, index=offer.index)
        if stored is not None:
            return await _compare(staging, body, offer=offer, size=size, stored=stored)
        log.debug("chunk.receiving", index=offer.index)
        sha256 = await _read(body, offer=offer, size=size, take=region.append)
        await region.sync()
        async with transaction() as session:
            upload = await queries.upload_to_extend(
                session, tenant_id=tenant_id, upload_id=offer.upload_id
            )
            _check_open(upload, now=clock())
            session.add(Chunk(upload_id=upload.id, index=offer.index, size=size, sha256=sha256))
    return ChunkStored(upload_id=offer.upload_id, index=offer.index, size=size, sha256=sha256.hex())


async def abandon_upload(
    transaction: Transaction,
    staging: Staging,
    *,
    tenant_id: TenantId,
    upload_id: UploadId,
    now: datetime,
) -> UploadAbandoned:
    """Cancel an upload, before or after it was finalized; doing it again changes nothing.

    What a worker has under way is the worker's to clean up: it notices within
    moments. Without a job the staged bytes go at once.

    Raises:
        UploadNotFound: there is none, or none of this tenant.
        UploadAlreadySettled: it is stored or failed.
    """
    async with transaction() as session:
        upload = await queries.upload_of(session, tenant_id=tenant_id, upload_id=upload_id)
        job_id = await queries.job_id_of(session, upload_id)
        if job_id is None:
            upload = await queries.upload_to_settle(
                session, tenant_id=tenant_id, upload_id=upload_id
            )
            # It may have been finalized between the two looks.
            job_id = await queries.job_id_of(session, upload_id)
        if upload.status != UploadStatus.CANCELLED:
            await _cancel(session, upload, job_id=job_id, now=now)
    if job_id is None:
        await staging.remove(upload_id)
    return UploadAbandoned(upload_id=upload_id, status=UploadStatus.CANCELLED, job_id=job_id)


async def _cancel(
    session: AsyncSession, upload: Upload, *, job_id: JobId | None, now: datetime
) -> None:
    """Move the job before its upload, as a worker does, so that the two never wait in a circle."""
    if job_id is not None:
        job = await session.execute(
            update(Job)
            .where(Job.id == job_id, Job.status.in_(ACTIVE_JOBS), Job.stage == JobStage.TRANSFER)
            .values(status=JobStatus.CANCELLED, finished_at=now)
            .returning(Job.id),
        )
        if job.first() is None:
            if await queries.job_status_of(session, job_id) != JobStatus.CANCELLED:
                raise UploadAlreadySettled(upload.id)
            # The same request, sent twice at once, was here a moment ago.
            return
    moved = await session.execute(
        update(Upload)
        .where(Upload.id == upload.id, Upload.status.in_(CANCELLABLE_UPLOADS))
        .values(status=UploadStatus.CANCELLED)
        .returning(Upload.id),
    )
    if moved.first() is None:
        raise UploadAlreadySettled(upload.id)
    await session.execute(delete(Chunk).where(Chunk.upload_id == upload.id))
    session.add(
        OutboxMessage.carrying(
            Envelope(
                id=EventId(uuid4()),
                source=SOURCE,
                subject=str(upload.id),
                time=now,
                tenantid=upload.tenant_id,
                data=UploadCancelled(upload_id=upload.id, job_id=job_id, filename=upload.filename),
            ),
        ),
    )
    log.info("upload.cancelled", upload_id=str(upload.id))


def _check_open(upload: Upload, *, now: datetime) -> None:
    if upload.status != UploadStatus.OPEN:
        raise UploadNotOpen(upload.id, status=upload.status)
    if upload.expires_at <= now:
        raise UploadExpired(upload.id, expired_at=upload.expires_at)


def _check_offer(offer: Offer, *, plan: chunking.Plan) -> None:
    if offer.index not in plan:
        raise ChunkIndexOutOfRange(offer.index, chunk_count=plan.chunk_count)
    expected = plan.size_of(offer.index)
    if offer.declared_size is not None and offer.declared_size != expected:
        raise ChunkSizeMismatch(offer.index, expected=expected, actual=offer.declared_size)


async def _compare(
    staging: Staging, body: AsyncIterator[bytes], *, offer: Offer, size: int, stored: bytes
) -> ChunkStored:
    sha256 = await _read(body, offer=offer, size=size, take=staging.observe)
    if sha256 != stored:
        raise ChunkConflict(offer.index, stored=stored)
    return ChunkStored(upload_id=offer.upload_id, index=offer.index, size=size, sha256=stored.hex())


async def _read(body: AsyncIterator[bytes], *, offer: Offer, size: int, take: TakeBlock) -> bytes:
    """Read the body through `take` and return its sha256, once it is what the client said."""
    digester = Digester(offer.expected)
    received = 0
    blocks = _Blocks(
        lambda block: take(block, observe=digester.update), block_bytes=min(size, BLOCK_BYTES)
    )
    async with aclosing(blocks):
        async for piece in until_silence(body, longest=SILENCE_MAX):
            received += len(piece)
            if received > size:
                raise ChunkTooLong(offer.index, expected=size)
            await blocks.add(piece)
        if received != size:
            raise ChunkSizeMismatch(offer.index, expected=size, actual=received)
        await blocks.flush()
    wrong = digester.mismatch()
    if wrong is not None:
        raise ChunkDigestMismatch(offer.index, expected=wrong)
    return digester.sha256


async def until_silence(body: AsyncIterator[bytes], *, longest: timedelta) -> AsyncIterator[bytes]:
    """Yield what comes.

    Raises:
        BodyStalled: nothing came for `longest`.
    """
    while True:
        try:
            async with asyncio.timeout(longest.total_seconds()):
                piece = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise BodyStalled(longest) from error
        yield piece


class _Blocks:
    """Gathers small pieces into large blocks; one is filled while the other is taken."""

    def __init__(
        self, take: Callable[[memoryview], Coroutine[None, None, None]], *, block_bytes: int
    ) -> None:
        self._take = take
        self._filling = bytearray(block_bytes)
        self._other = bytearray(block_bytes)
        self._filled = 0
        self._taking: asyncio.Task[None] | None = None

    async def add(self, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            count = min(len(rest), len(self._filling) - self._filled)
            self._filling[self._filled : self._filled + count] = rest[:count]
            self._filled += count
            rest = rest[count:]
            if self._filled == len(self._filling):
                await self._hand_over()

    async def flush(self) -> None:
        await self._hand_over()
        await self._taken()

    async def aclose(self) -> None:
        """Wait for the block under way: its thread must not outlive the file it writes to."""
        if self._taking is not None:
            await asyncio.gather(self._taking, return_exceptions=True)

    async def _hand_over(self) -> None:
        await self._taken()
        block = memoryview(self._filling)[: self._filled]
        self._taking = asyncio.create_task(self._take(block))
        self._filling, self._other, self._filled = self._other, self._filling, 0

    async def _taken(self) -> None:
        if self._taking is not None:
            await self._taking
