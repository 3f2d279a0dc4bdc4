"""Receives a chunk.

A chunk is acknowledged when its bytes are durable and its row is committed, in
that order. Only the row makes a chunk count: bytes without a row, left by a
request that died, are overwritten by the next request or swept as an orphan.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from gateway.chunk_holders import ASK_INTERVAL, ChunkHolders, GaveWay
from gateway.context import Context
from gateway.http.preconditions import UNCONDITIONAL, Preconditions
from gateway.staging import (
    BodyHasher,
    Buffers,
    ChunkWriter,
    ExpectedDigest,
    Sink,
    StagedUpload,
)
from gateway.uploads import chunking, queries
from gateway.uploads.body import BlockWriter, ChunkTakenOver, ChunkTooLong
from gateway.uploads.errors import (
    ChunkConflict,
    ChunkIndexOutOfRange,
    ChunkInProgress,
    ChunkSizeMismatch,
)
from gateway.uploads.queries import ChunkState, StoredChunk
from schemas.api.uploads import ChunkStored
from schemas.errors import StagingMissing
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.policy import media_types
from schemas.policy.open_uploads import UploadNotFound, UploadNotOpen, check_open

log = structlog.stdlib.get_logger(__name__)

_AFTER_FINALIZE: Final = frozenset(
    {UploadStatus.FINALIZED, UploadStatus.STORED, UploadStatus.FAILED}
)
"""Statuses in which a stored chunk that is sent again gets the answer of the first time: a proxy may
repeat a request late. Cancelling and expiring delete the chunks."""


@dataclass(frozen=True, kw_only=True)
class IncomingChunk:
    """What a request declares about its chunk before the body is read.

    Attributes:
        may_end_early: the chunk may be the last of a file whose size is unknown until its end.
    """

    upload_id: UploadId
    index: int
    declared_size: int | None
    expected: tuple[ExpectedDigest, ...]
    preconditions: Preconditions = UNCONDITIONAL
    may_end_early: bool = False


async def receive_chunk(
    context: Context, *, tenant_id: TenantId, chunk: IncomingChunk, body: AsyncIterator[bytes]
) -> ChunkStored:
    """Store a chunk durably; a chunk that is stored already is compared, never overwritten.

    Raises:
        UploadNotFound, UploadNotOpen, UploadExpired: the upload accepts no chunks; a chunk that was
            stored before a finalize is still compared.
        ChunkIndexOutOfRange, ChunkSizeMismatch, ChunkTooLong: the upload has no such chunk.
        BodyTooSlow: the client stopped sending, or sends too slowly.
        ChunkDigestMismatch: the body was damaged on its way; nothing is stored.
        ChunkConflict: the chunk is stored with other content.
        PreconditionFailed: a condition of the request does not hold.
        ChunkInProgress: another request is sending the chunk, and not slowly.
        ChunkTakenOver: the body arrived slowly, and a newer request sends the chunk.
        BuffersBusy: other bodies use all buffers.
        StagingFull, StagingMissing, StagingElsewhere: the bytes cannot be stored.
        StoreFailed: the object store did not confirm the bytes.
    """
    upload = await _staged_upload(context, tenant_id=tenant_id, upload_id=chunk.upload_id)
    plan = chunking.Plan(size=upload.size, chunk_size=upload.chunk_size)
    size = _size_of(chunk, plan=plan)
    hasher = BodyHasher(chunk.expected)

    async def stored_sha256() -> bytes | None:
        """Return the sha256 of the chunk if it is stored; otherwise check that the upload is open."""
        state = await queries.chunk_state(context.autocommit, upload, index=chunk.index)
        if state.stored_sha256 is None or state.status not in _AFTER_FINALIZE:
            _check_open(upload, state)
        chunk.preconditions.check(state.stored_sha256.hex() if state.stored_sha256 else None)
        return state.stored_sha256

    holders = context.chunk_holders
    backend = await context.staging.backend_of(upload)
    try:
        async with backend.open_chunk(
            upload,
            index=chunk.index,
            offset=plan.offset_of(chunk.index),
            size_bytes=size,
            hasher=hasher,
        ) as writer:
            stored = await _lock_then_look(
                writer,
                stored_sha256,
                holders=holders,
                upload_id=upload.id,
                index=chunk.index,
                wait_max=context.settings.chunk_lock_wait,
            )
            if stored is None:
                with holders.holding(upload.id, chunk.index) as holder:
                    log.debug("chunk.receiving", index=chunk.index)
                    received, first_bytes = await _read(
                        holder.pieces(body),
                        chunk=chunk,
                        size=size,
                        sink=writer,
                        hasher=hasher,
                        buffers=context.staging.buffers,
                        tenant_id=tenant_id,
                    )
                    await _record(context, upload, received, writer=writer, first_bytes=first_bytes)
                return _answer(upload, received)
    except GaveWay as error:
        log.info("chunk.taken_over", index=chunk.index)
        raise ChunkTakenOver(chunk.index) from error
    except StagingMissing:
        # A cancelled upload has no file either; then `stored_sha256` raises the more exact error.
        stored = await stored_sha256()
        if stored is None:
            raise
    received, _ = await _read(
        body,
        chunk=chunk,
        size=size,
        sink=context.staging.digest_only(hasher),
        hasher=hasher,
        buffers=context.staging.buffers,
        tenant_id=tenant_id,
    )
    if received.sha256 != stored:
        raise ChunkConflict(chunk.index, stored_sha256=stored)
    return _answer(upload, received)


async def _staged_upload(
    context: Context, *, tenant_id: TenantId, upload_id: UploadId
) -> StagedUpload:
    cache = context.staging.uploads
    upload = cache.find(upload_id, tenant_id=tenant_id)
    if upload is None:
        upload = await queries.staged_upload(
            context.autocommit, tenant_id=tenant_id, upload_id=upload_id
        )
        cache.add(upload)
    if upload.kind == StagingKind.REFERENCE:
        raise UploadNotOpen(upload_id, status="a reference to an object")
    return upload


def _size_of(chunk: IncomingChunk, *, plan: chunking.Plan) -> int:
    if chunk.index not in plan:
        raise ChunkIndexOutOfRange(chunk.index, chunk_count=plan.chunk_count)
    size = plan.size_of(chunk.index)
    if chunk.declared_size is not None and chunk.declared_size != size:
        raise ChunkSizeMismatch(chunk.index, expected=size, actual=chunk.declared_size)
    return size


async def _lock_then_look(
    writer: ChunkWriter,
    stored_sha256: Callable[[], Awaitable[bytes | None]],
    *,
    holders: ChunkHolders,
    upload_id: UploadId,
    index: int,
    wait_max: timedelta,
) -> bytes | None:
    """Lock the chunk, then look it up: the previous holder of the lock may have stored it."""
    if not await writer.lock(wait_max=timedelta(0)):
        # A chunk that is stored or refused need not wait for the other request.
        stored = await stored_sha256()
        if stored is not None:
            return stored
        left = wait_max
        while True:
            await holders.ask_everywhere(upload_id, index)
            if await writer.lock(wait_max=min(left, ASK_INTERVAL)):
                break
            left -= ASK_INTERVAL
            if left <= timedelta(0):
                raise ChunkInProgress(index)
    stored = await stored_sha256()
    if stored is None:
        # A backend without locks waits for no holder: nothing else would end a slow one.
        holders.ask(upload_id, index)
    return stored


async def _read(
    body: AsyncIterator[bytes],
    *,
    chunk: IncomingChunk,
    size: int,
    sink: Sink,
    hasher: BodyHasher,
    buffers: Buffers,
    tenant_id: TenantId,
) -> tuple[StoredChunk, bytes]:
    """Read the body into the sink and verify it; return the chunk and its first bytes."""
    first_bytes = b""
    received = 0
    blocks = BlockWriter(sink, buffers=buffers, tenant_id=tenant_id)
    async with aclosing(blocks):
        async for piece in body:
            received += len(piece)
            if received > size:
                raise ChunkTooLong(chunk.index, expected=size)
            if len(first_bytes) < media_types.SNIFFED_BYTES:
                first_bytes += piece[: media_types.SNIFFED_BYTES - len(first_bytes)]
            hasher.update_crc32c(piece)
            await blocks.add(piece)
            # A body that stalls must not keep its last piece.
            del piece
            if received < size:
                await blocks.ready()
        if received != size and not chunk.may_end_early:
            raise ChunkSizeMismatch(chunk.index, expected=size, actual=received)
        sha256 = await blocks.complete()
    stored = StoredChunk(index=chunk.index, size=received, sha256=sha256, crc32c=hasher.crc32c)
    return stored, first_bytes


async def _record(
    context: Context,
    upload: StagedUpload,
    chunk: StoredChunk,
    *,
    writer: ChunkWriter,
    first_bytes: bytes,
) -> None:
    """Record a chunk whose bytes are durable, or raise the reason why it cannot be recorded.

    The bytes of a refused chunk are discarded only if no row can refer to them, now or later. An
    expired upload may still get such a row: a concurrent request with the same bytes
    may have started its statement a moment earlier.
    """
    is_recorded = await queries.record_chunk(
        context.autocommit, upload, chunk, sniffed_type=media_types.sniff(first_bytes)
    )
    if is_recorded:
        return
    try:
        await _check_recorded(context, upload, chunk)
    except (UploadNotFound, UploadNotOpen, ChunkConflict):
        await writer.discard()
        raise


async def _check_recorded(context: Context, upload: StagedUpload, chunk: StoredChunk) -> None:
    """Raise why a chunk was not recorded, unless another request recorded the same bytes."""
    state = await queries.chunk_state(context.autocommit, upload, index=chunk.index)
    if state.stored_sha256 == chunk.sha256:
        return
    _check_open(upload, state)
    if state.stored_sha256 is None:
        raise ChunkInProgress(chunk.index)
    raise ChunkConflict(chunk.index, stored_sha256=state.stored_sha256)


def _check_open(upload: StagedUpload, state: ChunkState) -> None:
    check_open(upload.id, status=state.status, expires_at=state.expires_at, now=state.read_at)


def _answer(upload: StagedUpload, chunk: StoredChunk) -> ChunkStored:
    return ChunkStored(
        upload_id=upload.id, index=chunk.index, size=chunk.size, sha256=chunk.sha256.hex()
    )
