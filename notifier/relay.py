"""From the outbox to the broker.

Rows are locked, published and marked in one transaction: two relays never
publish the same row at the same time, and a relay that dies repeats at most
the batch it was in. Consumers recognise a repetition by its message id.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Never, Protocol

import aio_pika
import structlog
from sqlalchemy import Interval, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier import db
from notifier.broker import BrokerUnavailable
from notifier.liveness import Pulse
from schemas.events.envelope import CONTENT_TYPE
from schemas.ids import EventId
from schemas.runtime import postgres
from schemas.runtime.tracing import TRACEPARENT_HEADER
from schemas.settings import RelaySettings
from schemas.tables.outbox import OutboxMessage

log = structlog.stdlib.get_logger(__name__)

APP_ID: Final = "waybill"

BACKOFF_MAX: Final = timedelta(seconds=60)

INTERRUPTION_PAUSE: Final = timedelta(milliseconds=200)
"""Between a batch the broker did not take and the next look; bounds the rate, not the time of recovery."""

READY_ROUND: Final = timedelta(seconds=1)

BACKLOG_REPORT: Final = timedelta(seconds=10)


class Exchange(Protocol):
    """What the relay needs of the broker; see `notifier.broker.EventExchange`."""

    async def ready(self, *, within: timedelta) -> bool: ...

    async def publish(self, message: aio_pika.Message, *, routing_key: str) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboxRow:
    """What the relay reads of a `schemas.tables.outbox.OutboxMessage`."""

    id: int
    event_id: EventId
    routing_key: str
    body: bytes
    traceparent: str | None
    created_at: datetime
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What became of the rows of one transaction.

    Attributes:
        refused: the broker's word on this one message; tried again later.
        interrupted: there was no broker to ask; tried again at once.
    """

    published: Sequence[OutboxRow]
    refused: Sequence[tuple[OutboxRow, str]]
    interrupted: Sequence[OutboxRow]

    @classmethod
    def of(cls, rows: Sequence[OutboxRow], answers: Sequence[BaseException | None]) -> "Batch":
        """Sort rows by what their publish raised, if anything."""
        pairs = list(zip(rows, answers, strict=True))
        return cls(
            published=[row for row, error in pairs if error is None],
            # An error nobody thought of counts too: one row must not hold up the others.
            refused=[
                (row, f"{type(error).__name__}: {error}")
                for row, error in pairs
                if error is not None and not isinstance(error, BrokerUnavailable)
            ],
            interrupted=[row for row, error in pairs if isinstance(error, BrokerUnavailable)],
        )

    @property
    def size(self) -> int:
        return len(self.published) + len(self.refused) + len(self.interrupted)


def message(row: OutboxRow) -> aio_pika.Message:
    """Return the row as it goes over the wire: the event's bytes, untouched, and its marks."""
    return aio_pika.Message(
        row.body,
        content_type=CONTENT_TYPE,
        content_encoding="utf-8",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=str(row.event_id),
        type=row.routing_key,
        app_id=APP_ID,
        timestamp=row.created_at,
        headers={} if row.traceparent is None else {TRACEPARENT_HEADER: row.traceparent},
    )


def backoff(attempts: int) -> timedelta:
    """Return how long a row waits that was refused `attempts` times: 1, 2, 4 … 60 seconds."""
    doublings = min(attempts - 1, 6)  # a large power would not fit a timedelta
    return min(timedelta(seconds=2**doublings), BACKOFF_MAX)


# In the order of the index, which for rows never refused is the order of their
# transactions: by id alone each batch would read past all that was ever published.
_PENDING: Final = (
    select(
        OutboxMessage.id,
        OutboxMessage.event_id,
        OutboxMessage.routing_key,
        OutboxMessage.body,
        OutboxMessage.traceparent,
        OutboxMessage.created_at,
        OutboxMessage.attempts,
    )
    .where(OutboxMessage.published_at.is_(None), OutboxMessage.available_at <= func.now())
    .order_by(OutboxMessage.available_at, OutboxMessage.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)

_MARK_PUBLISHED: Final = (
    update(OutboxMessage)
    .where(OutboxMessage.id.in_(bindparam("rows", expanding=True)))
    # now() would be when the transaction began, before anything was published.
    .values(published_at=func.clock_timestamp(), attempts=OutboxMessage.attempts + 1)
)

_PUT_OFF: Final = (
    update(OutboxMessage)
    .where(OutboxMessage.id == bindparam("row"))
    .values(
        attempts=bindparam("tries"),
        last_error=bindparam("reason"),
        available_at=func.clock_timestamp() + bindparam("wait", type_=Interval()),
    )
)


async def take(connection: AsyncConnection, *, limit: int) -> list[OutboxRow]:
    """Return the next rows, locked; rows another relay has are passed over."""
    rows = await connection.execute(_PENDING, {"limit": limit})
    return [OutboxRow(**row) for row in rows.mappings()]


async def record(connection: AsyncConnection, batch: Batch) -> None:
    """Write down what became of a batch; rows interrupted stay as they were."""
    if batch.published:
        await connection.execute(_MARK_PUBLISHED, {"rows": [row.id for row in batch.published]})
    if batch.refused:
        await connection.execute(
            _PUT_OFF,
            [
                {
                    "row": row.id,
                    "tries": row.attempts + 1,
                    "reason": reason,
                    "wait": backoff(row.attempts + 1),
                }
                for row, reason in batch.refused
            ],
        )


class Relay:
    """Publishes what the outbox holds, as soon as it is committed."""

    def __init__(
        self,
        *,
        transaction: db.BeginConnection,
        exchange: Exchange,
        wake: db.WakeUp,
        pulse: Pulse,
        settings: RelaySettings,
    ) -> None:
        self._transaction = transaction
        self._exchange = exchange
        self._wake = wake
        self._pulse = pulse
        self._settings = settings
        self._backlog = _Backlog()

    async def run(self) -> Never:
        while True:
            self._pulse.beat()
            # Before the transaction: rows are not kept locked while there is no broker.
            if not await self._exchange.ready(within=READY_ROUND):
                continue
            # A batch cut short would be published again; it takes a publish timeout at most.
            batch = await postgres.through_outages(
                lambda: db.uninterrupted(self.relay_batch()), doing="relaying"
            )
            more = batch.size == self._settings.outbox_batch
            self._backlog.count(batch, more=more)
            if batch.interrupted:
                log.warning("relay.interrupted", rows=len(batch.interrupted))
                await asyncio.sleep(INTERRUPTION_PAUSE.total_seconds())
            elif not more:
                await self._wake.wait(at_most=self._settings.outbox_poll)

    async def relay_batch(self) -> Batch:
        async with self._transaction() as connection:
            rows = await take(connection, limit=self._settings.outbox_batch)
            answers = await asyncio.gather(
                *(
                    self._exchange.publish(message(row), routing_key=row.routing_key)
                    for row in rows
                ),
                return_exceptions=True,
            )
            batch = Batch.of(rows, answers)
            await record(connection, batch)
        for row in batch.published:
            log.debug("relay.published", event_id=str(row.event_id), type=row.routing_key)
        for row, reason in batch.refused:
            log.warning(
                "relay.refused",
                event_id=str(row.event_id),
                type=row.routing_key,
                attempts=row.attempts + 1,
                reason=reason,
            )
        return batch


class _Backlog:
    """Tells of batches that come one after the other; single events are nobody's news."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._reported = 0.0
        self._published = 0

    def count(self, batch: Batch, *, more: bool) -> None:
        now = time.monotonic()
        if self._began is None:
            if not more:
                return
            self._began = self._reported = now
            self._published = 0
        self._published += len(batch.published)
        if not more:
            self._report("relay.backlog_published", now - self._began)
            self._began = None
        elif now - self._reported >= BACKLOG_REPORT.total_seconds():
            self._report("relay.publishing_backlog", now - self._began)
            self._reported = now

    def _report(self, event: str, seconds: float) -> None:
        log.info(event, published=self._published, seconds=round(seconds, 1))
