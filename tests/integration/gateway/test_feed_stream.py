"""The feed followed over real connections, as Server-Sent Events."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

import httpx
import pytest

from gateway.feed_tail import FeedPosition
from gateway.http import paging
from notifier import positions
from schemas.events.uploads import StoredEvent
from schemas.ids import DocumentId, JobId, TenantId, UploadId
from schemas.settings import DatabaseSettings
from schemas.tables.events import EventRecord
from tests.factories.deliveries import an_event_row
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.clients.raw import Connection
from tests.integration.gateway.conftest import MakeKey, Start
from tests.integration.gateway.log import tenant_of
from tests.integration.gateway.process import Process, api_of
from tests.integration.notifier.rows import engine_of

pytestmark = pytest.mark.anyio

STREAM: Final = "/api/v1/events/stream"

LISTENERS: Final = 200
REACHED_WITHIN: Final = timedelta(milliseconds=500)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a stream: an event, an id alone, or another field."""

    event_id: str
    name: str
    data: bytes

    @classmethod
    def parsed(cls, block: bytes) -> "Block":
        fields = dict(line.split(b": ", 1) for line in block.splitlines() if b": " in line)
        return cls(
            event_id=fields.get(b"id", b"").decode(),
            name=fields.get(b"event", b"").decode(),
            data=fields.get(b"data", b""),
        )


class Stream:
    """The blocks of one connection."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._bytes = answer.aiter_bytes()
        self._held = b""

    async def block(self) -> Block | None:
        """Return the next block; None at the end of the stream."""
        async with asyncio.timeout(10):
            while b"\n\n" not in self._held:
                more = await anext(self._bytes, None)
                if more is None:
                    return None
                self._held += more
        block, self._held = self._held.split(b"\n\n", 1)
        return Block.parsed(block)

    async def place(self) -> str:
        """Return the id of the next block with an id."""
        while (block := await self.block()) and not block.event_id:
            pass
        assert block is not None, "the stream has ended"
        return block.event_id

    async def event(self) -> Block:
        """Return the next event."""
        while (block := await self.block()) and not block.name:
            pass
        assert block is not None, "the stream has ended"
        return block


class Feed:
    """The events of a tenant; positions are assigned as the relay does."""

    def __init__(
        self, database: DatabaseSettings, transaction: BeginSession, tenant_id: TenantId
    ) -> None:
        self._database = database
        self._transaction = transaction
        self._tenant_id = tenant_id
        self._time = datetime.now(UTC) - timedelta(minutes=1)

    async def of(self, tenant: str) -> "Feed":
        """Return the feed of another tenant."""
        tenant_id = await tenant_of(self._transaction, tenant)
        return Feed(self._database, self._transaction, tenant_id)

    async def add(self, count: int = 1) -> list[bytes]:
        """Add events with positions; return their bodies."""
        return await self._added([self._event() for _ in range(count)])

    async def add_stored(self) -> bytes:
        """Add an `upload.stored`; the other events are `upload.failed`."""
        stored = StoredEvent(
            upload_id=UploadId(uuid4()),
            job_id=JobId(uuid4()),
            document_id=DocumentId(uuid4()),
            filename="a.pdf",
            size=1,
            sha256="0" * 64,
            content_type="application/pdf",
            object_key="originals/x",
            will_be_read=True,
        )
        return (await self._added([self._event(data=stored)]))[0]

    async def _added(self, events: Sequence[EventRecord]) -> list[bytes]:
        bodies = [event.body for event in events]
        async with self._transaction() as session:
            session.add_all(events)
        async with engine_of(self._database) as engine, engine.begin() as connection:
            await positions.assign(connection)
        return bodies

    def _event(self, data: StoredEvent | None = None) -> EventRecord:
        # Ids of one millisecond are in no order.
        self._time += timedelta(milliseconds=1)
        return an_event_row(self._tenant_id, at=self._time, data=data)


@pytest.fixture
async def feed(served: Api, database: DatabaseSettings, transaction: BeginSession) -> Feed:  # noqa: ARG001  # creates the tenant
    return Feed(database, transaction, await tenant_of(transaction, "acme"))


@asynccontextmanager
async def following(api: Api, *, last: str = "", **query: str) -> AsyncIterator[Stream]:
    """Open a stream; in the block it has the id of the place where it begins."""
    headers = api.authorization | ({"Last-Event-ID": last} if last else {})
    async with api.http.stream("GET", STREAM, headers=headers, params=query) as answer:
        assert answer.status_code == 200, await answer.aread()
        stream = Stream(answer)
        await stream.place()
        yield stream


async def test_a_stream_sends_new_events_as_webhooks_carry_them(served: Api, feed: Feed) -> None:
    await feed.add()
    async with following(served) as stream:
        assert stream.answer.headers["content-type"].startswith("text/event-stream")
        assert stream.answer.headers["cache-control"] == "no-store"
        assert stream.answer.headers["x-accel-buffering"] == "no"
        (body,) = await feed.add()
        stored = await feed.add_stored()

        first, second = await stream.event(), await stream.event()

    assert (first.name, first.data) == ("upload.failed", body)
    assert (second.name, second.data) == ("upload.stored", stored)


async def test_a_reconnected_client_gets_every_event_once(served: Api, feed: Feed) -> None:
    async with following(served) as stream:
        bodies = await feed.add(2)
        first = await stream.event()
    bodies += await feed.add(150)

    async with following(served, last=first.event_id, after="latest") as stream:
        bodies += await feed.add(1)
        rest = [await stream.event() for _ in bodies[1:]]

    assert [event.data for event in (first, *rest)] == bodies


async def test_a_client_that_got_no_event_resumes_where_it_began(served: Api, feed: Feed) -> None:
    async with served.http.stream("GET", STREAM, headers=served.authorization) as answer:
        place = await Stream(answer).place()
    (body,) = await feed.add()

    async with following(served, last=place) as stream:
        assert (await stream.event()).data == body


async def test_stream_and_pages_share_their_cursors(served: Api, feed: Feed) -> None:
    bodies = await feed.add(3)
    page = (await served.get("/events", limit=1)).json()

    async with following(served, after=page["next_cursor"]) as stream:
        second = await stream.event()
    rest = await served.get("/events", after=second.event_id)

    assert second.data == bodies[1]
    assert bodies[2] in rest.content
    assert bodies[1] not in rest.content


async def test_only_the_chosen_types_are_sent(served: Api, feed: Feed) -> None:
    async with following(served, types="upload.stored") as stream:
        await feed.add(3)
        stored = await feed.add_stored()

        assert (await stream.event()).data == stored


async def test_a_stream_has_no_events_of_another_tenant(
    served: Api, feed: Feed, make_key: MakeKey
) -> None:
    stranger = served.of(await make_key(tenant="globex"))
    theirs = await feed.of("globex")
    async with following(stranger) as stream:
        await feed.add()
        (body,) = await theirs.add()

        assert (await stream.event()).data == body


@pytest.mark.parametrize(
    ("query", "last", "field"),
    [
        ({"after": "x"}, "", "after"),
        ({}, "x", "Last-Event-ID"),
        ({"types": "no.such"}, "", "types"),
    ],
    ids=str,
)
async def test_a_malformed_place_is_refused(
    api: Api, query: dict[str, str], last: str, field: str
) -> None:
    headers = {"Last-Event-ID": last} if last else {}
    answer = await api.ask("GET", "/events/stream", headers=headers, params=query)

    assert problem(answer) == (400, "invalid_request")
    assert field in answer.text


async def test_a_place_before_deleted_events_is_refused(api: Api) -> None:
    place = FeedPosition(position=1, up_to=datetime(2000, 1, 1, tzinfo=UTC))
    last = {"Last-Event-ID": paging.encode(place)}

    assert problem(await api.ask("GET", "/events/stream", headers=last)) == (410, "cursor_expired")


async def test_a_stream_beyond_the_limit_of_its_key_or_of_the_process_is_refused(
    start: Start, make_key: MakeKey
) -> None:
    process = await start(WAITS_PER_KEY="1", WAITS_MAX="2")
    async with api_of(process, await make_key()) as api, following(api):
        second = await api.get("/events/stream")
        other = api.of(await make_key())
        async with following(other):
            third = await api.of(await make_key()).get("/events", wait=5)
            page = await other.get("/events")

    assert problem(second) == (429, "too_many_waits")
    assert problem(third) == (503, "system_busy")
    assert int(third.headers["retry-after"]) > 0
    assert page.status_code == 200


async def test_a_stopping_gateway_ends_its_streams(start: Start, make_key: MakeKey) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api, following(api) as stream:
        stopping = asyncio.create_task(process.stop())
        assert await stream.block() is None

    async with asyncio.timeout(10):
        assert await stopping == 0
    assert process.logged("http.failed") == []


async def test_an_event_reaches_every_listener_within_half_a_second(
    start: Start, make_key: MakeKey, database: DatabaseSettings, transaction: BeginSession
) -> None:
    process = await start(WAITS_PER_KEY=str(LISTENERS), LOG_LEVEL="INFO")
    key = await make_key()
    feed = Feed(database, transaction, await tenant_of(transaction, "acme"))
    async with AsyncExitStack() as end:
        listeners = await listening(process, key=key, end=end)
        p95 = []
        for _ in range(3):
            took = [asyncio.create_task(seconds_to_event(each)) for each in listeners]
            await feed.add()
            p95.append(sorted(await asyncio.gather(*took))[LISTENERS * 95 // 100])

    # Another process may have had the processor during one of the events.
    assert min(p95) < REACHED_WITHIN.total_seconds(), p95


async def listening(process: Process, *, key: str, end: AsyncExitStack) -> list[Connection]:
    """Open so many streams; each has the id of its place."""
    connections = []
    for _ in range(LISTENERS):
        connection = await end.enter_async_context(Connection(port=process.port, key=key))
        await connection.request("GET", STREAM)
        connections.append(connection)
    for connection in connections:
        async with asyncio.timeout(10):
            await connection.reader.readuntil(b"\nid: ")
            await connection.reader.readuntil(b"\n\n")
    return connections


async def seconds_to_event(connection: Connection) -> float:
    """Return how long the next event took, from now on: from before its commit."""
    began = time.monotonic()
    async with asyncio.timeout(10):
        await connection.reader.readuntil(b"\nevent: ")
        await connection.reader.readuntil(b"\n\n")
    return time.monotonic() - began
