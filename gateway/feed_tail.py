"""Reads the new events of a tenant once for all streams of its feed in this process.

Each stream has a place in the feed. While the place is among the newest events, which the tail of the
tenant keeps in memory, a stream costs no query. A stream whose client is slower, or was away for
longer, is behind the tail, and reads the database by itself until it has caught up.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Annotated, Final

import msgspec
import structlog

from gateway.feed_watch import READ_INTERVAL, FeedWatch
from gateway.http import paging, sse
from schemas.ids import TenantId
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

KEPT_EVENTS: Final = 256
KEPT_BYTES: Final = 1024 * 1024
"""Most events, and bytes, that the tail of a tenant keeps. The newest event is always kept."""

WOKEN_AT_ONCE: Final = 100
"""Streams that are woken before other requests get a turn of the event loop."""

READS_AT_ONCE: Final = 2
"""Streams of the process that read the database at the same time. Without this limit, thousands of
streams that reconnect after an outage would take every connection of the pool from other requests."""


class FeedPosition(msgspec.Struct, frozen=True, array_like=True):
    """A place in the feed of a tenant.

    Attributes:
        position: of the last event that the reader has; 0 before the first.
        up_to: the time of the last event, or of a look that found no later one. Events after it may be
            deleted once it is older than the retention.
    """

    position: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    up_to: Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, kw_only=True)
class FeedEvent:
    """An event of the feed.

    Attributes:
        place: of the event; a reader that has the event continues there.
        type: of the event.
        body: the event as webhooks carry it.
    """

    place: FeedPosition
    type: str
    body: bytes

    @cached_property
    def encoded(self) -> bytes:
        """The event as event streams send it, encoded once for all streams."""
        # JSON has no line breaks: those in strings are escaped.
        return sse.event(self.type, event_id=paging.encode(self.place), data=self.body)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A part of the feed.

    Attributes:
        events: in the order of the feed.
        end: where the next page begins.
        has_more: whether more events follow.
    """

    events: Sequence[FeedEvent]
    end: FeedPosition
    has_more: bool


class Tail:
    """The newest events of a tenant.

    Attributes:
        end: the place up to which the tail has read; None until its first look.
        encoded_end: the end as an event stream sends it.
        kept: the newest events, in the order of the feed.
        listeners: the streams of the tenant.
    """

    def __init__(self) -> None:
        self.end: FeedPosition | None = None
        self.encoded_end = sse.COMMENT
        self.listeners: set[FeedListener] = set()
        self.kept: list[FeedEvent] = []
        self._start = 0
        self._bytes = 0

    def begin(self, end: FeedPosition) -> None:
        """Begin at the end of the feed."""
        self._start = end.position
        self._set_end(end)

    def add(self, page: Page) -> None:
        """Add the next events, and forget the oldest above the limits."""
        self.kept += page.events
        self._bytes += sum(len(event.body) for event in page.events)
        surplus = 0
        while len(self.kept) - surplus > 1 and (
            len(self.kept) - surplus > KEPT_EVENTS or self._bytes > KEPT_BYTES
        ):
            self._bytes -= len(self.kept[surplus].body)
            surplus += 1
        if surplus:
            self._start = self.kept[surplus - 1].place.position
            del self.kept[:surplus]
        self._set_end(page.end)

    def forget(self) -> None:
        """Forget all events; a stream that has not sent them reads them from the database."""
        if self.kept:
            self._start = self.kept[-1].place.position
        self.kept.clear()
        self._bytes = 0

    def has(self, place: FeedPosition) -> bool:
        """Return whether all events after a place are in the tail, or will be once it has begun."""
        return self.end is None or place.position >= self._start

    def next_after(self, place: FeedPosition) -> FeedEvent | None:
        """Return the next event of any type; the tail has the place."""
        at = bisect_right(self.kept, place.position, key=lambda event: event.place.position)
        return self.kept[at] if at < len(self.kept) else None

    def end_after(self, place: FeedPosition) -> FeedPosition:
        """Return the end of the tail, or the place if it is further: the tail may read later."""
        if self.end is None or self.end.position < place.position:
            return place
        return self.end

    def _set_end(self, end: FeedPosition) -> None:
        self.end = end
        self.encoded_end = sse.position(paging.encode(end))


class FeedListener:
    """The stream of one request; see `FeedTails.listening`."""

    __slots__ = ("_is_ended", "_woken", "tail")

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self._is_ended = False
        self._woken: asyncio.Future[None] | None = None

    @property
    def is_ended(self) -> bool:
        return self._is_ended

    async def woken(self, *, within: timedelta) -> None:
        """Return once the tail has new events, when the stream is ended, and after the time.

        The caller has just found no event in the tail, without an `await` in between.
        """
        if self._is_ended:
            return
        loop = asyncio.get_running_loop()
        self._woken = loop.create_future()
        timer = loop.call_later(within.total_seconds(), self.wake)
        try:
            await self._woken
        finally:
            self._woken = None
            timer.cancel()

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def end(self) -> None:
        """End the stream: the client has disconnected, or the process stops."""
        self._is_ended = True
        self.wake()


class FeedTails:
    """The tails of the tenants whose feeds are streamed.

    Args:
        newest: returns the end of a tenant's feed.
        page_after: returns the events after a place in it, of all types.
        watch: notices new events.
    """

    def __init__(
        self,
        *,
        newest: Callable[[TenantId], Awaitable[FeedPosition]],
        page_after: Callable[[TenantId, FeedPosition], Awaitable[Page]],
        watch: FeedWatch,
    ) -> None:
        self._newest = newest
        self._page_after = page_after
        self._watch = watch
        self._tails: dict[TenantId, Tail] = {}
        self._tasks: dict[Tail, asyncio.Task[None]] = {}
        self._is_draining = False
        self.reads = asyncio.Semaphore(READS_AT_ONCE)
        """Taken by a stream that reads the database."""

    def __len__(self) -> int:
        """The number of tenants with streams."""
        return len(self._tails)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End every tail when the block ends."""
        try:
            yield
        finally:
            tasks = [*self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def listening(self, tenant_id: TenantId) -> Iterator[FeedListener]:
        """Register a stream; the first stream of a tenant begins its tail, the last one ends it."""
        tail = self._tails.get(tenant_id)
        if tail is None:
            tail = self._tails[tenant_id] = Tail()
            self._begin(tenant_id, tail)
        listener = FeedListener(tail)
        tail.listeners.add(listener)
        if self._is_draining:
            listener.end()
        try:
            yield listener
        finally:
            tail.listeners.discard(listener)
            if not tail.listeners:
                self._remove(tenant_id, tail)

    def drain(self) -> None:
        """End every stream, and those that begin later: the process is about to stop."""
        self._is_draining = True
        for tail in self._tails.values():
            for listener in tail.listeners:
                listener.end()

    def _begin(self, tenant_id: TenantId, tail: Tail) -> None:
        task = asyncio.create_task(
            self._follow(tenant_id, tail),
            name=f"feed-tail-{tenant_id}",
            # Otherwise the log lines of the tail would have the ids of the first request.
            context=Context(),
        )
        self._tasks[tail] = task
        task.add_done_callback(lambda _: self._tasks.pop(tail))

    def _remove(self, tenant_id: TenantId, tail: Tail) -> None:
        if self._tails.get(tenant_id) is tail:
            del self._tails[tenant_id]
        if tail in self._tasks:
            self._tasks[tail].cancel()

    async def _follow(self, tenant_id: TenantId, tail: Tail) -> None:
        try:
            await self._read(tenant_id, tail)
        except Exception:
            # The clients connect again, and so begin another tail.
            log.exception("feed.tail_failed", tenant_id=str(tenant_id))
            if self._tails.get(tenant_id) is tail:
                del self._tails[tenant_id]
            for listener in tail.listeners:
                listener.end()

    async def _read(self, tenant_id: TenantId, tail: Tail) -> None:
        with self._watch.waiting(tenant_id) as changes:
            end = await postgres.through_outages(
                partial(self._newest, tenant_id), doing="reading the end of a feed"
            )
            tail.begin(end)
            await _wake(tail)
            while not changes.is_ended:
                page = await postgres.through_outages(
                    partial(self._page_after, tenant_id, end), doing="reading a feed"
                )
                end = page.end
                tail.add(page)
                if page.events:
                    await _wake(tail)
                if not page.has_more and not await changes.news(within=READ_INTERVAL):
                    tail.forget()


async def _wake(tail: Tail) -> None:
    """Wake the streams in groups, between which other requests get a turn."""
    listeners = [*tail.listeners]
    for start in range(0, len(listeners), WOKEN_AT_ONCE):
        for listener in listeners[start : start + WOKEN_AT_ONCE]:
            listener.wake()
        await asyncio.sleep(0)
