"""A feed in a fake database, which tails and streams read."""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from gateway.events.stream import send_feed
from gateway.feed_tail import FeedEvent, FeedListener, FeedPosition, FeedTails, Page
from gateway.feed_watch import FeedWatch
from gateway.http import sse
from schemas.ids import TenantId

STORED = "upload.stored"
FAILED = "upload.failed"
TYPES = frozenset({STORED, FAILED})

TENANT = TenantId(uuid4())
BEGAN_AT = datetime(2026, 11, 27, tzinfo=UTC)


class Feed:
    """The feed of one tenant, in a database that counts the queries, and can fail."""

    def __init__(self) -> None:
        self.rows: list[FeedEvent] = []
        self.tail_reads = 0
        self.stream_reads = 0
        self.error: Exception | None = None
        self.watch = FeedWatch()
        self.tails = FeedTails(newest=self._newest, page_after=self._tail_after, watch=self.watch)
        self._has_read = asyncio.Event()

    def add(self, event_type: str = STORED, *, body: bytes = b"{}") -> FeedEvent:
        """Add an event without a notification."""
        position = len(self.rows) + 1
        event = FeedEvent(place=place_at(position), type=event_type, body=body)
        self.rows.append(event)
        return event

    def commit(self, event_type: str = STORED, *, body: bytes = b"{}") -> FeedEvent:
        """Add an event, and notify its tenant."""
        event = self.add(event_type, body=body)
        self.watch.notify(str(TENANT))
        return event

    async def began(self) -> None:
        """Wait until the tail has read for the first time."""
        await self._until_reads(1)

    async def read_again(self) -> None:
        """Wait until the tail has read once more."""
        await self._until_reads(self.tail_reads + 1)

    async def _until_reads(self, count: int) -> None:
        async with asyncio.timeout(5):
            while self.tail_reads < count:
                self._has_read.clear()
                await self._has_read.wait()

    async def read(self, after: FeedPosition, *, types: Collection[str] = TYPES) -> Page:
        """Read a page for one stream."""
        self.stream_reads += 1
        return self._page(after, types=types, limit=4)

    async def _newest(self, _: TenantId) -> FeedPosition:
        if self.error is not None:
            raise self.error
        return place_at(len(self.rows))

    async def _tail_after(self, _: TenantId, after: FeedPosition) -> Page:
        self.tail_reads += 1
        self._has_read.set()
        return self._page(after, types=TYPES, limit=3)

    def _page(self, after: FeedPosition, *, types: Collection[str], limit: int) -> Page:
        if self.error is not None:
            raise self.error
        scanned = self.rows[after.position : after.position + limit]
        end = after.position + len(scanned)
        return Page(
            events=[event for event in scanned if event.type in types],
            end=place_at(end),
            has_more=end < len(self.rows),
        )


def place_at(position: int) -> FeedPosition:
    return FeedPosition(position=position, up_to=BEGAN_AT + timedelta(seconds=position))


class Client:
    """Follows the feed; takes what is sent at once, unless it is told to pause."""

    def __init__(
        self,
        feed: Feed,
        *,
        after: int,
        types: Collection[str] = TYPES,
        heartbeat: timedelta = sse.HEARTBEAT,
    ) -> None:
        self._feed = feed
        self._received: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.listener: FeedListener | None = None
        self.may_continue = asyncio.Event()
        self.may_continue.set()
        self._following = asyncio.create_task(
            self._follow(after=after, types=types, heartbeat=heartbeat)
        )

    async def _follow(self, *, after: int, types: Collection[str], heartbeat: timedelta) -> None:
        async def read(place: FeedPosition) -> Page:
            return await self._feed.read(place, types=types)

        with self._feed.tails.listening(TENANT) as listener:
            self.listener = listener
            await send_feed(
                listener,
                self._write,
                place=place_at(after),
                types=types,
                read=read,
                heartbeat=heartbeat,
            )
        await self._received.put(None)

    async def _write(self, data: bytes) -> None:
        await self._received.put(data)
        await self.may_continue.wait()

    async def next(self) -> bytes | None:
        """Return what is sent next; None at the end of the stream."""
        async with asyncio.timeout(5):
            return await self._received.get()

    async def events(self, count: int) -> list[bytes]:
        """Return the next events, without the ids and comments in between."""
        found: list[bytes] = []
        while len(found) < count:
            block = await self.next()
            assert block is not None, "the stream has ended"
            if b"\nevent: " in block:
                found.append(block)
        return found

    def has_received(self) -> bool:
        return not self._received.empty()

    async def leave(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    feed = Feed()
    async with feed.tails.running():
        yield feed
