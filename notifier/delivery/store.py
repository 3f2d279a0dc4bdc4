"""The deliveries in PostgreSQL."""

import os
import socket
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from uuid import uuid4

import structlog

from notifier import db
from notifier.delivery.statements import ending, fan_out, intake, loading, ownership, recording
from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.work import (
    Endpoint,
    FinishedAttempt,
    Loaded,
    QueueState,
    ReceivedEvent,
    Recorded,
)
from schemas.ids import DeliveryId, TenantId, WebhookId
from schemas.lifecycle import DisabledReason, DiscardReason
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def open_store(
    *, connect: postgres.Connect, transaction: db.BeginConnection
) -> AsyncIterator["DatabaseStore"]:
    """Yield a store; see `DatabaseStore`."""
    store = DatabaseStore(connect=connect, transaction=transaction)
    try:
        yield store
    finally:
        await store.close()


class DatabaseStore:
    """Implements `work.Store`.

    Every method may be called again after an error: what an earlier call has committed without an
    answer is neither repeated nor forgotten.
    """

    def __init__(self, *, connect: postgres.Connect, transaction: db.BeginConnection) -> None:
        """Create a store.

        Args:
            connect: opens a connection. Six are used: what proves that the process is alive, the
                groups of events and of attempts, events to many endpoints, the look for due
                deliveries, and what takes long, must not wait for each other.
            transaction: begins a transaction, for what happens rarely.
        """
        self._transaction = transaction
        self._lives = DedicatedConnection(connect)
        self._events = DedicatedConnection(connect)
        self._fan_outs = DedicatedConnection(connect)
        self._attempts = DedicatedConnection(connect)
        self._queues = DedicatedConnection(connect)
        self._batches = DedicatedConnection(connect)
        self._owner = uuid4()
        self._is_registered = False
        self._was_dead = False
        self._may_own_unknown_queues = False

    @property
    def owner(self) -> str:
        return str(self._owner)

    async def close(self) -> None:
        """Close the connections; the methods must not be in use."""
        for connection in (
            self._lives,
            self._events,
            self._fan_outs,
            self._attempts,
            self._queues,
            self._batches,
        ):
            await connection.close()

    async def keep_alive(self) -> bool:
        if self._is_registered:
            if await ownership.renew(self._lives, owner=self._owner):
                return True
            log.error("deliverer.counted_as_dead", owner=str(self._owner))
            self._owner, self._is_registered = uuid4(), False
            # Until the answer: the registration may fail, and this method is called again.
            self._was_dead = True
        await self._register()
        was_dead, self._was_dead = self._was_dead, False
        return not was_dead

    async def _register(self) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        # After an error the row may exist, so another id is used.
        owner = uuid4()
        await ownership.register(self._lives, owner=owner, name=name)
        self._owner, self._is_registered = owner, True

    async def record_events(self, events: Sequence[ReceivedEvent]) -> Recorded:
        with self._noting_lost_queues():
            return await intake.record_events(self._events, events, owner=self._owner)

    async def fan_out(self, *, after: TenantId | None) -> TenantId | None:
        return await fan_out.add_part(self._fan_outs, after=after)

    async def take(self, *, limit: int) -> Sequence[QueueState]:
        with self._noting_lost_queues():
            if self._may_own_unknown_queues:
                self._may_own_unknown_queues = False
                await ownership.remind_all(self._queues, owner=self._owner)
            return await ownership.take(self._queues, owner=self._owner, limit=limit)

    @contextmanager
    def _noting_lost_queues(self) -> Iterator[None]:
        """Let the next `take` return every own queue if a statement has no answer.

        The statement may have been committed: then this process owns queues that it does not know.
        """
        try:
            yield
        except Exception as error:
            # The database's own refusal is an answer.
            if postgres.is_outage(error):
                self._may_own_unknown_queues = True
            raise

    async def load(
        self, known: Mapping[WebhookId, Collection[DeliveryId]], *, limit: int
    ) -> Loaded:
        return await loading.load(self._queues, known, owner=self._owner, limit=limit)

    async def endpoints(self, webhook_ids: Collection[WebhookId]) -> Mapping[WebhookId, Endpoint]:
        return await loading.endpoints(self._queues, webhook_ids)

    async def record(self, attempts: Sequence[FinishedAttempt]) -> Collection[DeliveryId]:
        return await recording.record(self._attempts, attempts)

    async def save(self, states: Sequence[QueueState]) -> None:
        await recording.save(self._queues, states, owner=self._owner)

    async def release(self, webhook_ids: Collection[WebhookId]) -> Collection[WebhookId]:
        return await ownership.release(self._queues, webhook_ids, owner=self._owner)

    async def leave(self) -> None:
        await ownership.end(self._lives, owner=self._owner)
        self._is_registered = False

    async def disable(self, webhook_id: WebhookId, *, reason: DisabledReason) -> None:
        async with self._transaction() as connection:
            if await ending.disable(connection, webhook_id, reason=reason):
                log.warning("webhook.disabled", webhook_id=str(webhook_id), reason=str(reason))

    async def discard(
        self,
        webhook_id: WebhookId,
        *,
        reason: DiscardReason,
        keep: Collection[DeliveryId],
        limit: int,
    ) -> int:
        return await ending.discard(
            self._batches, webhook_id, reason=reason, keep=keep, limit=limit
        )

    async def remind(self) -> None:
        found, overdue = await ownership.remind(self._batches)
        if found:
            log.warning("delivery.forgotten_queues_found", queues=found)
        if overdue:
            log.info("delivery.overdue_queues_found", queues=overdue)
