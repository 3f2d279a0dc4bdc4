"""The relay: publishes the outbox to the broker: facts to the exchange of events, work to its queue.

One transaction locks, publishes and marks the rows of a batch. Two relays never
publish the same row at the same time, and a relay that dies repeats at most one
batch. Consumers recognise a repeated message by its id.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Never

import aio_pika
import structlog
from sqlalchemy import Interval, bindparam, func, select, true, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier import db
from notifier.broker import BrokerUnavailable, EventExchange
from notifier.liveness import Pulse
from schemas.events.envelope import CONTENT_TYPE
from schemas.ids import EventId
from schemas.runtime import amqp, outages, postgres
from schemas.runtime.tracing import TRACEPARENT_HEADER
from schemas.settings import RelaySettings
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage

log = structlog.stdlib.get_logger(__name__)

BACKOFF_MAX: Final = timedelta(seconds=60)

INTERRUPTED_INTERVAL: Final = timedelta(milliseconds=200)
"""Wait after a batch that lost the broker; it bounds the rate of batches during an outage."""

READY_TIMEOUT: Final = timedelta(seconds=1)

BACKLOG_REPORT_INTERVAL: Final = timedelta(seconds=10)


class EventMissing(Exception):
    """The table of events does not have the event of a row of the outbox."""

    def __init__(self, event_id: EventId) -> None:
        super().__init__(f"the table of events does not have {event_id}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EventToPublish:
    """The columns of a `schemas.tables.events.EventRecord` that the relay reads."""

    id: EventId
    type: str
    body: bytes
    traceparent: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboxRow:
    """A row of the outbox with its event.

    Attributes:
        queue: the work queue; None for the exchange of events.
        event: None if the table of events does not have it.
    """

    id: int
    event_id: EventId
    queue: str | None
    attempts: int
    event: EventToPublish | None

    @property
    def log_fields(self) -> dict[str, str | None]:
        return {
            "event_id": str(self.event_id),
            "type": None if self.event is None else self.event.type,
            "queue": self.queue,
        }


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The rows of one transaction by the result of their publish.

    Attributes:
        refused: the broker refused the message; retried after a backoff.
        interrupted: the broker was unavailable; retried at once.
    """

    published: Sequence[OutboxRow]
    refused: Sequence[tuple[OutboxRow, str]]
    interrupted: Sequence[OutboxRow]

    @classmethod
    def of(cls, rows: Sequence[OutboxRow], errors: Sequence[BaseException | None]) -> "Batch":
        """Sort rows by what their publish raised; None for a published row."""
        pairs = list(zip(rows, errors, strict=True))
        return cls(
            published=[row for row, error in pairs if error is None],
            # Any other error counts as a refusal: one row must not block the others.
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


def message(event: EventToPublish) -> aio_pika.Message:
    """Return the AMQP message of an event; its body is the event's bytes, unchanged."""
    return aio_pika.Message(
        event.body,
        content_type=CONTENT_TYPE,
        content_encoding="utf-8",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=str(event.id),
        type=event.type,
        app_id=amqp.APP_ID,
        timestamp=event.created_at,
        headers={} if event.traceparent is None else {TRACEPARENT_HEADER: event.traceparent},
    )


def backoff(attempts: int) -> timedelta:
    """Return the wait after `attempts` refusals: 1, 2, 4 … 60 seconds."""
    doublings = min(attempts - 1, 6)  # a larger power overflows a timedelta
    return min(timedelta(seconds=2**doublings), BACKOFF_MAX)


# The order of the index; for rows never refused it is the order of their transactions.
# Ordered by id alone, each batch would scan every published row.
_LOCKED: Final = (
    select(
        OutboxMessage.id,
        OutboxMessage.event_id,
        OutboxMessage.queue,
        OutboxMessage.attempts,
        OutboxMessage.available_at,
    )
    .where(OutboxMessage.published_at.is_(None), OutboxMessage.available_at <= func.now())
    .order_by(OutboxMessage.available_at, OutboxMessage.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
    .cte("locked")
)

# The limit makes the database look each event up by its id, in one partition. In a plain join it
# may read all events.
_EVENT: Final = (
    select(EventRecord.type, EventRecord.body, EventRecord.traceparent, EventRecord.created_at)
    .where(EventRecord.id == _LOCKED.c.event_id)
    .limit(1)
    .lateral("event")
)

# Work precedes facts: a worker waits for it.
_PENDING: Final = (
    select(
        _LOCKED.c.id,
        _LOCKED.c.event_id,
        _LOCKED.c.queue,
        _LOCKED.c.attempts,
        _EVENT.c.type,
        _EVENT.c.body,
        _EVENT.c.traceparent,
        _EVENT.c.created_at,
    )
    .select_from(_LOCKED)
    # A row without its event must come out and be refused: it would block the rows after it.
    .outerjoin(_EVENT, true())
    .order_by(_LOCKED.c.queue.is_(None), _LOCKED.c.available_at, _LOCKED.c.id)
)

_MARK_PUBLISHED: Final = (
    update(OutboxMessage)
    .where(OutboxMessage.id.in_(bindparam("rows", expanding=True)))
    # now() would be the start of the transaction, before the publish.
    .values(published_at=func.clock_timestamp(), attempts=OutboxMessage.attempts + 1)
)

_POSTPONE: Final = (
    update(OutboxMessage)
    .where(OutboxMessage.id == bindparam("row"))
    .values(
        attempts=bindparam("tries"),
        last_error=bindparam("reason"),
        available_at=func.clock_timestamp() + bindparam("wait", type_=Interval()),
    )
)


async def take(connection: AsyncConnection, *, limit: int) -> list[OutboxRow]:
    """Lock and return the next rows; skip rows that another relay has locked."""
    rows = await connection.execute(_PENDING, {"limit": limit})
    return [
        OutboxRow(
            id=row.id,
            event_id=row.event_id,
            queue=row.queue,
            attempts=row.attempts,
            event=None
            if row.body is None
            else EventToPublish(
                id=row.event_id,
                type=row.type,
                body=row.body,
                traceparent=row.traceparent,
                created_at=row.created_at,
            ),
        )
        for row in rows
    ]


async def record(connection: AsyncConnection, batch: Batch) -> None:
    """Record the results of a batch; interrupted rows stay unchanged."""
    if batch.published:
        await connection.execute(_MARK_PUBLISHED, {"rows": [row.id for row in batch.published]})
    if batch.refused:
        await connection.execute(
            _POSTPONE,
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


_COUNTED_MAX: Final = 100_000

_WAITING: Final = select(func.count()).select_from(
    select(OutboxMessage.id)
    .where(OutboxMessage.published_at.is_(None))
    .limit(_COUNTED_MAX)
    .subquery()
)


class BrokerWait:
    """Logs once that the broker accepts no messages, and once that it accepts them again."""

    def __init__(self, *, transaction: db.BeginConnection) -> None:
        self._transaction = transaction
        self._began: float | None = None

    async def began(self, reason: str) -> None:
        if self._began is None:
            self._began = time.monotonic()
            log.warning("relay.waiting_for_broker", reason=reason, events=await self._waiting())

    async def ended(self) -> None:
        if self._began is not None:
            seconds = round(time.monotonic() - self._began, 1)
            self._began = None
            log.warning("relay.broker_accepts_again", seconds=seconds, events=await self._waiting())

    async def _waiting(self) -> int | None:
        """Return how many events wait, at most `_COUNTED_MAX`; None if the database is away too."""
        try:
            async with self._transaction() as connection:
                return (await connection.execute(_WAITING)).scalar_one()
        except (SQLAlchemyError, OSError) as error:
            log.debug("relay.not_counted", error=outages.describe(error))
            return None


class Relay:
    """Publishes the rows of the outbox as soon as they are committed."""

    def __init__(
        self,
        *,
        transaction: db.BeginConnection,
        exchange: EventExchange,
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
        self._broker_wait = BrokerWait(transaction=transaction)

    async def run(self) -> Never:
        while True:
            self._pulse.beat()
            # Before the transaction: no row stays locked while the broker is unreachable.
            if not await self._exchange.ready(within=READY_TIMEOUT):
                await self._broker_wait.began(self._exchange.state)
                continue
            await self._broker_wait.ended()
            # A cancelled batch would be published again; a batch takes at most one publish timeout.
            batch = await postgres.through_outages(
                lambda: db.uninterrupted(self.relay_batch()), doing="relaying"
            )
            more = batch.size == self._settings.outbox_batch
            self._backlog.count(batch, more=more)
            if batch.interrupted:
                log.warning("relay.interrupted", rows=len(batch.interrupted))
                await asyncio.sleep(INTERRUPTED_INTERVAL.total_seconds())
            elif not more:
                await self._wake.wait(at_most=self._settings.outbox_poll)

    async def relay_batch(self) -> Batch:
        async with self._transaction() as connection:
            rows = await take(connection, limit=self._settings.outbox_batch)
            errors = await asyncio.gather(
                *(self._publish(row) for row in rows), return_exceptions=True
            )
            batch = Batch.of(rows, errors)
            await record(connection, batch)
        for row in batch.published:
            log.debug("relay.published", **row.log_fields)
        for row, reason in batch.refused:
            log.warning("relay.refused", **row.log_fields, attempts=row.attempts + 1, reason=reason)
        return batch

    async def _publish(self, row: OutboxRow) -> None:
        if row.event is None:
            raise EventMissing(row.event_id)
        if row.queue is None:
            await self._exchange.publish(message(row.event), routing_key=row.event.type)
        else:
            await self._exchange.publish_to_queue(message(row.event), queue=row.queue)


class _Backlog:
    """Logs the progress of a backlog: full batches in a row. Single events are not logged."""

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
        elif now - self._reported >= BACKLOG_REPORT_INTERVAL.total_seconds():
            self._report("relay.publishing_backlog", now - self._began)
            self._reported = now

    def _report(self, event: str, seconds: float) -> None:
        log.info(event, published=self._published, seconds=round(seconds, 1))
