"""The feed as an event stream, and the tail that all streams of a tenant share."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from gateway import feed_tail
from gateway.events.errors import CursorExpired
from gateway.feed_tail import FeedEvent, FeedPosition
from gateway.http import paging, sse
from tests.unit.gateway.events.conftest import FAILED, STORED, TENANT, Client, Feed, place_at

pytestmark = pytest.mark.anyio

SHORT = timedelta(milliseconds=20)
OUTAGE = OperationalError("SELECT", {}, Exception("down"))


def id_of(position: int) -> bytes:
    return sse.position(paging.encode(place_at(position)))


def encoded(*events: FeedEvent) -> list[bytes]:
    return [event.encoded for event in events]


def test_an_event_has_its_cursor_its_type_and_one_line_of_data() -> None:
    event = FeedEvent(place=place_at(7), type=STORED, body=b'{"a":"two\\r\\nlines"}')

    identifier, name, data, *rest = event.encoded.split(b"\n")

    cursor = identifier.removeprefix(b"id: ").decode()
    assert paging.decode(cursor, to=FeedPosition) == place_at(7)
    assert (name, data, rest) == (b"event: upload.stored", b"data: " + event.body, [b"", b""])


async def test_a_stream_begins_with_the_id_of_its_place(feed: Feed) -> None:
    client = Client(feed, after=0)

    assert await client.next() == id_of(0)


async def test_one_read_serves_all_streams(feed: Feed) -> None:
    clients = [Client(feed, after=0) for _ in range(300)]
    await feed.began()
    reads = feed.tail_reads

    events = [feed.commit(), feed.commit(FAILED)]

    for client in clients:
        assert await client.events(2) == encoded(*events)
    assert (feed.tail_reads - reads, feed.stream_reads) == (1, 0)


async def test_a_stream_that_begins_in_the_past_gets_every_event_once(feed: Feed) -> None:
    past = [feed.add() for _ in range(10)]
    client = Client(feed, after=3)
    assert await client.events(7) == encoded(*past[3:])

    later = feed.commit()

    assert await client.events(1) == encoded(later)
    assert not client.has_received()


async def test_an_event_that_is_committed_before_the_tail_begins_is_sent_once(feed: Feed) -> None:
    client = Client(feed, after=0)
    early = feed.add()
    await feed.began()

    later = feed.commit()

    assert await client.events(2) == encoded(early, later)


async def test_only_the_chosen_types_are_sent(feed: Feed) -> None:
    past = [feed.add(FAILED), feed.add(STORED)]
    client = Client(feed, after=0, types={STORED})
    assert await client.events(1) == encoded(past[1])
    await feed.began()
    feed.commit(FAILED)

    wanted = feed.commit(STORED)

    assert await client.events(1) == encoded(wanted)


async def test_a_slow_client_misses_no_event_and_keeps_none_in_memory(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_tail, "KEPT_EVENTS", 5)
    slow, quick = Client(feed, after=0), Client(feed, after=0)
    await feed.began()
    slow.may_continue.clear()
    events = [feed.commit() for _ in range(30)]
    assert await quick.events(30) == encoded(*events)
    assert slow.listener is not None
    assert len(slow.listener.tail.kept) == 5

    slow.may_continue.set()

    assert await slow.events(30) == encoded(*events)
    assert feed.stream_reads > 0


async def test_the_tail_keeps_a_bounded_number_of_bytes(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_tail, "KEPT_BYTES", 1_000)
    client = Client(feed, after=0)
    await feed.began()

    events = [feed.commit(body=b"x" * size) for size in (400, 400, 400, 5_000, 400, 400)]

    assert await client.events(6) == encoded(*events)
    assert client.listener is not None
    assert client.listener.tail.kept == events[-2:]


async def test_events_leave_the_memory_after_a_time_without_events(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_tail, "READ_INTERVAL", SHORT)
    client = Client(feed, after=0)
    await feed.began()
    event = feed.commit()
    assert await client.events(1) == encoded(event)
    await feed.read_again()
    await feed.read_again()

    assert client.listener is not None
    assert client.listener.tail.kept == []
    later = feed.commit()
    assert await client.events(1) == encoded(later)


async def test_a_lost_notification_delays_an_event_only(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_tail, "READ_INTERVAL", SHORT)
    client = Client(feed, after=0)
    await feed.began()

    event = feed.add()

    assert await client.events(1) == encoded(event)


async def test_a_silent_stream_gets_the_id_of_the_end_of_the_feed(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_tail, "READ_INTERVAL", SHORT)
    client = Client(feed, after=0, types={STORED}, heartbeat=2 * SHORT)
    await feed.began()
    for _ in range(3):
        feed.commit(FAILED)

    async with asyncio.timeout(5):
        while await client.next() != id_of(3):
            pass


async def test_events_of_other_types_do_not_delay_the_next_byte(feed: Feed) -> None:
    client = Client(feed, after=0, types={STORED}, heartbeat=SHORT)
    assert await client.next() == id_of(0)
    stop = asyncio.Event()

    async def keep_busy() -> None:
        while not stop.is_set():
            feed.commit(FAILED)
            await asyncio.sleep(SHORT.total_seconds() / 10)

    busy = asyncio.create_task(keep_busy())

    block = await client.next()

    stop.set()
    await busy
    assert block is not None
    assert block.startswith(b"id: ")


async def test_a_long_way_without_a_chosen_event_is_not_silent(feed: Feed) -> None:
    for _ in range(9):
        feed.add(FAILED)
    client = Client(feed, after=0, types={STORED})

    blocks = [await client.next() for _ in range(4)]

    assert blocks == [id_of(0), id_of(4), id_of(8), id_of(9)]


async def test_a_stream_goes_on_after_an_outage(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.events.stream.OUTAGE_PAUSE", SHORT)
    past = [feed.add() for _ in range(3)]
    current = Client(feed, after=3)
    await feed.began()
    feed.error = OUTAGE
    behind = Client(feed, after=0)
    assert await behind.next() == id_of(0)
    assert await behind.next() == sse.COMMENT
    event = feed.commit()

    feed.error = None

    assert await current.events(1) == encoded(event)
    assert await behind.events(4) == encoded(*past, event)


async def test_the_end_of_the_process_ends_every_stream(feed: Feed) -> None:
    client = Client(feed, after=0)
    await feed.began()
    assert await client.next() == id_of(0)

    feed.watch.drain()
    feed.tails.drain()

    assert await client.next() is None
    late = Client(feed, after=0)
    assert await late.next() == id_of(0)
    assert await late.next() is None
    assert len(feed.tails) == 0


async def test_the_last_stream_of_a_tenant_ends_its_tail(feed: Feed) -> None:
    first, second = Client(feed, after=0), Client(feed, after=0)
    await feed.began()

    await first.leave()
    assert len(feed.tails) == 1
    await second.leave()

    assert len(feed.tails) == 0
    assert not any("feed-tail" in task.get_name() for task in asyncio.all_tasks())


async def test_an_unexpected_error_ends_the_streams_and_the_next_one_begins_anew(
    feed: Feed,
) -> None:
    client = Client(feed, after=0)
    await feed.began()
    assert await client.next() == id_of(0)
    feed.error = RuntimeError("unexpected")
    feed.watch.notify(str(TENANT))
    assert await client.next() is None

    feed.error = None
    event = feed.commit()
    again = Client(feed, after=0)

    assert await again.events(1) == encoded(event)


async def test_a_stream_whose_place_expires_ends(feed: Feed) -> None:
    feed.add()
    other = Client(feed, after=1)
    await feed.began()
    feed.error = CursorExpired()
    client = Client(feed, after=0)
    assert await client.next() == id_of(0)

    assert await client.next() is None

    assert await other.next() == id_of(1)
    assert not other.has_received()
