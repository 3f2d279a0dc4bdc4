"""Disables endpoints, and discards the deliveries of endpoints that are disabled or deleted."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Never

import structlog

from notifier.delivery.owned import OwnedQueue
from notifier.delivery.work import Store
from schemas.ids import WebhookId
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

DISCARD_MAX: Final = 1_000
"""Deliveries of one statement."""


class Closing:
    """The queues whose `disable_for` or `discard_for` is to be carried out in the database."""

    def __init__(self, *, store: Store, on_closed: Callable[[OwnedQueue], None]) -> None:
        """Create an empty collection.

        Args:
            store: the deliveries in the database.
            on_closed: is called with a queue that has no pending deliveries left.
        """
        self._store = store
        self._on_closed = on_closed
        self._queues: dict[WebhookId, OwnedQueue] = {}
        self._wakes = asyncio.Event()

    def __contains__(self, webhook_id: WebhookId) -> bool:
        return webhook_id in self._queues

    def add(self, owned: OwnedQueue) -> None:
        self._queues[owned.webhook_id] = owned
        self._wakes.set()

    def remove(self, webhook_id: WebhookId) -> None:
        self._queues.pop(webhook_id, None)

    async def run(self) -> Never:
        while True:
            await self._wakes.wait()
            for owned in list(self._queues.values()):
                if not await self._close_next(owned):
                    self._queues.pop(owned.webhook_id, None)
            if not self._queues:
                self._wakes.clear()

    async def _close_next(self, owned: OwnedQueue) -> bool:
        """Take the next step; return whether there may be another."""
        webhook_id = owned.webhook_id
        if (disable_for := owned.disable_for) is not None:
            await postgres.through_outages(
                partial(self._store.disable, webhook_id, reason=disable_for),
                doing="disabling an endpoint",
            )
            log.warning(
                "delivery.endpoint_disabled", webhook_id=str(webhook_id), reason=disable_for
            )
            owned.disable_for = None
        if (reason := owned.discard_for) is None:
            return False
        discarded = await postgres.through_outages(
            lambda: self._store.discard(
                webhook_id, reason=reason, keep=tuple(owned.queue.known), limit=DISCARD_MAX
            ),
            doing="discarding deliveries",
        )
        if discarded:
            log.info("delivery.discarded", webhook_id=str(webhook_id), deliveries=discarded)
        if discarded >= DISCARD_MAX:
            return True
        self._on_closed(owned)
        return False
