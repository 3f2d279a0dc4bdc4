"""Receives a batch: its lines are stored while they arrive, and wait for their turn once all are.

The rows of a batch are written in pieces of their own transactions, so that a million lines cost
neither memory nor a long transaction. Until the last transaction the batch has no job and is not
visible; if its body breaks off, a sweep deletes it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

import msgspec
import structlog
from psycopg.types.json import Jsonb
from sqlalchemy import func, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.batches import lines, queries
from gateway.batches.errors import (
    BatchTooLarge,
    LineRepeated,
    LineTooLong,
    ReceptionLost,
    TooManyBatches,
)
from gateway.context import Context
from gateway.db import PipelinedTransaction, SessionStatements, transaction_time
from gateway.http import idempotency
from gateway.http.bodies import ArrivingBody
from gateway.http.idempotency import KeyedRequest, KeyForgotten
from gateway.http.problems import InvalidRequest
from gateway.settings import EVENT_SOURCE
from gateway.uploads.quotas import quotas_of
from schemas.api.batches import BatchLine, BatchView
from schemas.api.uploads import METADATA_COUNT_MAX
from schemas.errors import DomainError
from schemas.events.batches import BatchReceived
from schemas.ids import BatchId, JobId, TenantId, UploadId
from schemas.lifecycle import (
    BatchEvents,
    BatchLineState,
    BatchStatus,
    JobKind,
    Priority,
)
from schemas.policy.open_uploads import UploadNotFound, check_open
from schemas.policy.quotas import Quotas
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.batches import Batch
from schemas.tables.events import emit
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)

PIECE_LINES: Final = 2_000
PIECE_BYTES: Final = 512 * 1024
"""Lines are written in pieces of this many lines or bytes: larger pieces are hardly faster."""

KEPT_BYTES: Final = 4 * PIECE_BYTES
"""What a body keeps in memory: a piece of its lines, and their rows as they are sent."""

WRITTEN_EVERY: Final = timedelta(seconds=30)
"""A slow body is written, and its lease renewed, after this time."""

LEASE: Final = timedelta(minutes=5)
"""How long the rows of a batch stay if its gateway dies while the body arrives."""

# The lease of another batch of the tenant may have expired: a sweep deletes that batch soon.
BEGIN: Final[LiteralString] = """
    INSERT INTO batches (id, tenant_id, status, events, metadata, expires_at)
    SELECT %(batch_id)s, %(tenant_id)s, 'receiving', %(events)s, %(metadata)s, now() + %(lease)s
    WHERE (SELECT count(*) FROM batches
           WHERE tenant_id = %(tenant_id)s
             AND finished_at IS NULL AND (received_at IS NOT NULL OR expires_at > now())
          ) < %(batches_max)s
    RETURNING id
"""

RENEW: Final[LiteralString] = """
    UPDATE batches SET expires_at = now() + %(lease)s
    WHERE id = %(batch_id)s AND status = 'receiving' AND expires_at > now()
    RETURNING id
"""

DISCARD: Final[LiteralString] = """
    UPDATE batches SET expires_at = now()
    WHERE id = %(batch_id)s AND status = 'receiving'
    RETURNING id
"""

UPLOADS: Final[LiteralString] = """
    SELECT id, status, expires_at, now() AS now FROM uploads
    WHERE tenant_id = %(tenant_id)s AND id = ANY (%(ids)s)
"""

COPY: Final[LiteralString] = (
    "COPY batch_lines (batch_id, line, state, source, error_code, error_detail) FROM STDIN"
)


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the client chose; a repetition of the request has an equal one."""

    events: BatchEvents
    metadata: dict[str, str]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    """The head of the request."""

    id: BatchId
    tenant_id: TenantId
    events: BatchEvents
    metadata: dict[str, str]
    idempotency_key: str | None
    traceparent: str | None

    def keyed(self, sha256: str) -> KeyedRequest | None:
        """Bind the key to the content of the body, which is known only at its end."""
        return KeyedRequest.of(
            self.idempotency_key,
            operation="create_batch",
            request=BatchRequest(events=self.events, metadata=self.metadata, sha256=sha256),
        )


_WAITING: Final = BatchLineState.WAITING.value.encode()
_REJECTED: Final = BatchLineState.REJECTED.value.encode()
_NULL: Final = b"\\N"


@dataclass(kw_only=True, slots=True)
class _Row:
    """A line, as it becomes a row.

    Attributes:
        source: the line as JSON; empty if it cannot be decoded.
        refusal: code and text of the error that rejects the line.
    """

    number: int
    source: bytes = b""
    upload_id: UploadId | None = None
    refusal: tuple[bytes, bytes] | None = None

    def refuse(self, error: DomainError) -> None:
        """Keep the text alone: the traceback of the error would keep the content of the line."""
        self.refusal = (error.code.encode(), lines.shown(str(error)).encode())

    def encoded(self, batch_id: bytes) -> bytes:
        """Return the row in the text format of COPY."""
        state, code, detail = _WAITING, _NULL, _NULL
        if self.refusal is not None:
            state = _REJECTED
            code, detail = map(_escaped, self.refusal)
        source = _escaped(self.source) or _NULL
        return b"%b\t%d\t%b\t%b\t%b\t%b\n" % (batch_id, self.number, state, source, code, detail)


def _escaped(text: bytes) -> bytes:
    """Escape text that has no control characters, as JSON and the texts of errors."""
    return text.replace(b"\\", b"\\\\")


@dataclass(kw_only=True)
class _Reception:
    """The lines of a batch that have arrived.

    Attributes:
        rows: the lines that are not written yet.
        rows_bytes: the bytes of their sources.
        uploads: the upload of each accepted line that names one, and the line. The tenant's quota of
            open uploads bounds it.
    """

    context: Context
    batch: NewBatch
    quotas: Quotas
    rows: list[_Row] = field(default_factory=list)
    rows_bytes: int = 0
    count: int = 0
    rejected: int = 0
    uploads: dict[UploadId, int] = field(default_factory=dict)
    is_begun: bool = False
    written_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def add(self, number: int, content: bytes | None) -> None:
        """Take a line, and write the piece that it completes.

        Raises:
            BatchTooLarge: the batch has too many lines.
        """
        limit = self.context.settings.batch_lines_max
        self.count += 1
        if self.count > limit:
            raise BatchTooLarge(limit=limit, unit="lines")
        row = self._row(number, content)
        self.rows.append(row)
        self.rows_bytes += len(row.source)
        if len(self.rows) >= PIECE_LINES or self.rows_bytes >= PIECE_BYTES:
            await self.write()

    async def write_if_due(self) -> None:
        silence = asyncio.get_running_loop().time() - self.written_at
        if silence >= WRITTEN_EVERY.total_seconds():
            await self.write()

    async def write(self) -> None:
        """Write the rows, and renew the lease of the batch.

        Raises:
            TooManyBatches: too many batches of the tenant have not ended.
            ReceptionLost: the lease was not renewed in time.
        """
        batch, context = self.batch, self.context
        async with (
            context.batch_turns.of(batch.tenant_id),
            context.autocommit.transaction() as transaction,
        ):
            await self._hold_lease(transaction)
            await self._check_uploads(transaction)
            batch_id = str(batch.id).encode()
            await transaction.copy(COPY, b"".join(row.encoded(batch_id) for row in self.rows))
        self.rejected += sum(row.refusal is not None for row in self.rows)
        self.rows.clear()
        self.rows_bytes = 0
        if not self.is_begun:
            log.debug("batch.receiving", batch_id=str(batch.id))
            self.is_begun = True
        self.written_at = asyncio.get_running_loop().time()

    def _row(self, number: int, content: bytes | None) -> _Row:
        row = _Row(number=number)
        try:
            if content is None:
                raise LineTooLong(limit=self.context.settings.batch_line_bytes_max)
            line = lines.decode(content, tenant_id=self.batch.tenant_id)
            row.source, row.upload_id = msgspec.json.encode(line), line.upload_id
            self._check(line)
        except DomainError as error:
            row.refuse(error)
        return row

    def _check(self, line: BatchLine) -> None:
        if line.upload_id is None:
            self.quotas.check_declared(line.content_type)
        if line.metadata and len(line.metadata | self.batch.metadata) > METADATA_COUNT_MAX:
            raise InvalidRequest(
                f"has more than {METADATA_COUNT_MAX} names, with those of the batch",
                field="metadata",
            )

    async def _hold_lease(self, transaction: PipelinedTransaction) -> None:
        values: dict[str, object] = {"batch_id": self.batch.id, "lease": LEASE}
        if self.is_begun:
            if await transaction.first_row(RENEW, values) is None:
                raise ReceptionLost
            return
        limit = self.context.settings.tenant_batches_max
        values |= {
            "tenant_id": self.batch.tenant_id,
            "events": self.batch.events.value,
            "metadata": Jsonb(self.batch.metadata),
            "batches_max": limit,
        }
        if await transaction.first_row(BEGIN, values) is None:
            raise TooManyBatches(limit=limit)

    async def _check_uploads(self, transaction: PipelinedTransaction) -> None:
        """Reject the lines whose upload is not open, or is that of an earlier line."""
        named = {row.upload_id for row in self.rows if row.upload_id is not None}
        if not named:
            return
        found = await transaction.rows(
            UPLOADS, {"tenant_id": self.batch.tenant_id, "ids": list(named)}
        )
        uploads: Mapping[UUID, Any] = {each.id: each for each in found}
        for row in self.rows:
            if row.upload_id is None or row.refusal is not None:
                continue
            try:
                self._check_upload(row.upload_id, uploads.get(row.upload_id), number=row.number)
            except DomainError as error:
                row.refuse(error)

    def _check_upload(self, upload_id: UploadId, found: Any | None, *, number: int) -> None:  # noqa: ANN401  # a row of `UPLOADS`
        if found is None:
            raise UploadNotFound(upload_id)
        check_open(upload_id, status=found.status, expires_at=found.expires_at, now=found.now)
        earlier = self.uploads.setdefault(upload_id, number)
        if earlier != number:
            raise LineRepeated(upload_id, line=earlier)


async def receive_batch(
    context: Context,
    batch: NewBatch,
    body: AsyncIterator[bytes],
    *,
    length: int | None,
    arriving: ArrivingBody,
) -> BatchView:
    """Store the lines of a body, and add the job that gives each line its turn.

    Args:
        context: the context of the process.
        batch: the head of the request.
        body: the pieces of the body.
        length: the size of the body in bytes, if the request declares it.
        arriving: counts the body.

    Raises:
        InvalidRequest: there is no line.
        BatchTooLarge: there are too many lines or bytes.
        TooManyBatches: too many batches of the tenant have not ended.
        TooManyBodies, BodiesBusy: too many bodies arrive at once.
        TooManyWaiting, SystemBusy: too many steps wait.
        IdempotencyKeyReused: the key is bound to another request.
        BodyDigestMismatch, BodyTooSlow, ClientDisconnected: as for every body.
    """
    arriving.keep(KEPT_BYTES)
    bytes_max = context.settings.batch_bytes_max
    if length is not None and length > bytes_max:
        raise BatchTooLarge(limit=bytes_max, unit="bytes")
    limited = _limited(body, bytes_max=bytes_max)
    if await _is_repeated(context, batch):
        return await _answer_again(context, batch, limited)
    await context.backlog.check(context.autocommit, tenant_id=batch.tenant_id)
    quotas = await quotas_of(
        context.autocommit, tenant_id=batch.tenant_id, settings=context.settings
    )
    reception = _Reception(context=context, batch=batch, quotas=quotas)
    try:
        sha256 = await _receive(reception, limited)
        return await _complete(reception, sha256=sha256)
    except BaseException:
        if reception.is_begun:
            await _discard(context, batch)
        raise


async def _receive(reception: _Reception, body: AsyncIterator[bytes]) -> str:
    """Write all lines; return the sha256 of the body."""
    sha256 = hashlib.sha256()
    splitter = lines.LineSplitter(
        line_bytes_max=reception.context.settings.batch_line_bytes_max,
    )
    async for piece in body:
        sha256.update(piece)
        for number, content in splitter.lines_of(piece):
            await reception.add(number, content)
        del piece
        await reception.write_if_due()
    for number, content in splitter.last():
        await reception.add(number, content)
    if not reception.count:
        raise InvalidRequest("has no lines", field="body")
    if reception.rows:
        await reception.write()
    return sha256.hexdigest()


async def _complete(reception: _Reception, *, sha256: str) -> BatchView:
    """End the reception: the batch, its job, its event and the `Idempotency-Key` become visible."""
    context, batch = reception.context, reception.batch
    async with context.database.tenant_lock(batch.tenant_id) as session:
        bound_to = BatchId(
            await idempotency.first_use(
                SessionStatements(session),
                batch.keyed(sha256),
                tenant_id=batch.tenant_id,
                resource_id=batch.id,
            )
        )
        if bound_to == batch.id:
            await _add_job(session, reception)
        view = await queries.batch_of(session, tenant_id=batch.tenant_id, batch_id=bound_to)
    if bound_to == batch.id:
        log.info(
            "batch.received",
            batch_id=str(batch.id),
            lines=reception.count,
            rejected=reception.rejected,
        )
    else:
        # A concurrent repetition of this request ended before this request.
        await _discard(context, batch)
    return view


async def _add_job(session: AsyncSession, reception: _Reception) -> None:
    batch, settings = reception.batch, reception.context.settings
    job_id = JobId(uuid4())
    session.add(
        Job(
            id=job_id,
            tenant_id=batch.tenant_id,
            kind=JobKind.BATCH,
            priority=Priority.BULK,
            stage=JobStage.BATCH,
        )
    )
    await session.flush()
    event_id = emit(
        session,
        BatchReceived(batch_id=batch.id, job_id=job_id),
        tenant_id=batch.tenant_id,
        source=EVENT_SOURCE,
        now=await transaction_time(session),
        traceparent=batch.traceparent,
    )
    received = await session.scalar(
        update(Batch)
        .where(
            Batch.id == batch.id,
            Batch.status == BatchStatus.RECEIVING,
            Batch.expires_at > func.now(),
        )
        .values(
            status=BatchStatus.PROCESSING,
            job_id=job_id,
            event_id=event_id,
            lines=reception.count,
            rejected=reception.rejected,
            received_at=func.now(),
        )
        .returning(Batch.id)
    )
    if received is None:
        raise ReceptionLost
    steps.add_step(
        session,
        StepName.BATCH,
        job_id=job_id,
        tenant_id=batch.tenant_id,
        priority=Priority.BULK,
        event_id=event_id,
        total=reception.count,
    )
    await session.flush()
    await session.execute(steps.release(batch.tenant_id, StepName.BATCH, settings=settings))


async def _is_repeated(context: Context, batch: NewBatch) -> bool:
    if batch.idempotency_key is None:
        return False
    return await idempotency.is_used(
        context.autocommit, batch.idempotency_key, tenant_id=batch.tenant_id
    )


async def _answer_again(context: Context, batch: NewBatch, body: AsyncIterator[bytes]) -> BatchView:
    """Read a repeated body to its end, compare it with the first, and store nothing.

    Raises:
        IdempotencyKeyReused: the body is not the one that the key is bound to.
        KeyForgotten: the key expired meanwhile.
    """
    sha256 = hashlib.sha256()
    async for piece in body:
        sha256.update(piece)
        del piece
    async with context.database.transaction() as session:
        earlier = await idempotency.earlier_use(
            SessionStatements(session),
            batch.keyed(sha256.hexdigest()),
            tenant_id=batch.tenant_id,
        )
        if earlier is None:
            raise KeyForgotten
        return await queries.batch_of(session, tenant_id=batch.tenant_id, batch_id=BatchId(earlier))


async def _limited(body: AsyncIterator[bytes], *, bytes_max: int) -> AsyncIterator[bytes]:
    received = 0
    async for piece in body:
        received += len(piece)
        if received > bytes_max:
            raise BatchTooLarge(limit=bytes_max, unit="bytes")
        yield piece
        del piece


async def _discard(context: Context, batch: NewBatch) -> None:
    """Let the next sweep delete what was written of the batch."""
    try:
        await context.autocommit.first_row(DISCARD, {"batch_id": batch.id})
    except SQLAlchemyError as error:
        # The request is answered with its own error; the lease of the batch expires.
        log.warning("batch.not_discarded", batch_id=str(batch.id), error=type(error).__name__)
