"""Records attempts in groups, so that a statement serves hundreds of them."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Final, Never, Protocol

import psycopg
import structlog

from notifier.delivery.work import FinishedAttempt
from schemas.ids import DeliveryId
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

GROUP_MAX: Final = 500
"""Attempts of one statement; larger groups do not make an attempt cheaper."""

GROUP_WAIT: Final = timedelta(milliseconds=3)
"""How long the first attempt of a group waits for others."""

BACKLOG_MAX: Final = 2_000
"""Attempts that are kept during an outage of the database; with so many no new attempt starts."""


class RecordAttempts(Protocol):
    """`Store.record`."""

    async def __call__(self, attempts: Sequence[FinishedAttempt]) -> Collection[DeliveryId]: ...


class Recorder:
    """Records attempts that have ended, in their order; keeps them through an outage."""

    def __init__(
        self,
        *,
        record: RecordAttempts,
        recorded: Callable[[FinishedAttempt, bool], None],
    ) -> None:
        """Create a recorder.

        Args:
            record: writes a group.
            recorded: gets each attempt, and whether it was recorded.
        """
        self._record = record
        self._recorded = recorded
        self._ended: list[FinishedAttempt] = []
        self._has_some = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._in_statement = 0

    @property
    def is_full(self) -> bool:
        return len(self._ended) + self._in_statement >= BACKLOG_MAX

    def add(self, attempt: FinishedAttempt) -> None:
        self._ended.append(attempt)
        self._has_some.set()
        self._is_empty.clear()

    async def until_empty(self) -> None:
        """Return once every attempt is recorded."""
        await self._is_empty.wait()

    async def run(self) -> Never:
        """Record until cancelled."""
        while True:
            await self._has_some.wait()
            if len(self._ended) < GROUP_MAX:
                await asyncio.sleep(GROUP_WAIT.total_seconds())
            group = self._ended[:GROUP_MAX]
            del self._ended[: len(group)]
            if not self._ended:
                self._has_some.clear()
            self._in_statement = len(group)
            await self._record_group(group)
            self._in_statement = 0
            if not self._ended:
                self._is_empty.set()

    async def _record_group(self, group: Sequence[FinishedAttempt]) -> None:
        try:
            recorded = set(await self._through_outages(group))
        except Exception:
            log.exception("delivery.attempts_not_recorded", attempts=len(group))
            if len(group) > 1:
                for attempt in group:
                    await self._record_group([attempt])
                return
            recorded = await self._record_without_answer(group[0])
        for attempt in group:
            self._recorded(attempt, attempt.delivery.delivery_id in recorded)

    async def _record_without_answer(self, attempt: FinishedAttempt) -> set[DeliveryId]:
        """Record an attempt without what the receiver has sent, which the database may refuse."""
        result = replace(attempt.result, error="the answer cannot be recorded", response_excerpt="")
        bare = replace(attempt, result=result, request_headers=None)
        try:
            return set(await self._through_outages([bare]))
        except psycopg.DataError:
            # One delivery must not stop the others. It stays pending, and is attempted again.
            log.exception(
                "delivery.attempt_not_recorded", delivery_id=str(attempt.delivery.delivery_id)
            )
            return set()

    async def _through_outages(self, group: Sequence[FinishedAttempt]) -> Collection[DeliveryId]:
        return await postgres.through_outages(
            partial(self._record, group), doing="recording attempts"
        )
