"""`GET /events`: the feed, its cursors, and requests that wait for an event."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text

from gateway import feed_watch
from gateway.events import queries
from gateway.feed_tail import FeedPosition
from gateway.http import paging
from notifier import positions
from schemas.events.uploads import StoredEvent, UploadCancelled, UploadFinalized
from schemas.ids import DocumentId, JobId, TenantId, UploadId
from schemas.settings import DatabaseSettings
from schemas.tables.events import NO_FEED, EventRecord
from tests.factories.deliveries import an_event_row
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve
from tests.integration.gateway.log import tenant_of
from tests.integration.notifier.rows import engine_of, eventually

pytestmark = pytest.mark.anyio


class Feed:
    """The events of a tenant; positions are assigned as the relay does."""

    def __init__(
        self, api: Api, database: DatabaseSettings, transaction: BeginSession, tenant_id: TenantId
    ) -> None:
        self.api = api
        self.transaction = transaction
        self.tenant_id = tenant_id
        self._database = database
        self._time = datetime.now(UTC) - timedelta(minutes=1)

    async def add(self, *events: EventRecord) -> list[bytes]:
        """Add events and give them positions; return their bodies."""
        bodies = [event.body for event in events]
        async with self.transaction() as session:
            session.add_all(events)
        await self.assign()
        return bodies

    async def assign(self) -> None:
        async with engine_of(self._database) as engine, engine.begin() as connection:
            await positions.assign(connection)

    def event(self, **fields: Any) -> EventRecord:  # noqa: ANN401  # any column
        # Ids of one millisecond are in no order.
        self._time += timedelta(milliseconds=1)
        return an_event_row(self.tenant_id, at=self._time, **fields)

    async def page(self, **query: Any) -> dict[str, Any]:  # noqa: ANN401  # any query
        answer = await self.api.get("/events", **query)
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    async def all_ids(self, **query: Any) -> list[str]:  # noqa: ANN401  # any query
        """Read to the end of the feed."""
        found, page = list[str](), await self.page(**query)
        while True:
            found += ids_of(page)
            if not page["has_more"]:
                return found
            page = await self.page(**{**query, "after": page["next_cursor"]})


@pytest.fixture
async def feed(api: Api, database: DatabaseSettings, transaction: BeginSession) -> Feed:
    return Feed(api, database, transaction, await tenant_of(transaction, "acme"))


def ids_of(page: dict[str, Any]) -> list[str]:
    return [item["id"] for item in page["items"]]


def text_of(*events: EventRecord) -> list[str]:
    return [str(event.id) for event in events]


def a_fact(kind: str) -> StoredEvent | UploadFinalized | UploadCancelled:
    upload_id, job_id = UploadId(uuid4()), JobId(uuid4())
    match kind:
        case "upload.stored":
            return StoredEvent(
                upload_id=upload_id,
                job_id=job_id,
                document_id=DocumentId(uuid4()),
                filename="a.pdf",
                size=1,
                sha256="0" * 64,
                content_type="application/pdf",
                object_key="originals/x",
                will_be_read=True,
            )
        case "upload.finalized":
            return UploadFinalized(upload_id=upload_id, job_id=job_id, filename="a.pdf", size=1)
        case _:
            return UploadCancelled(upload_id=upload_id, filename="a.pdf")


async def test_events_come_in_the_order_of_positions_page_by_page(feed: Feed) -> None:
    events = [feed.event() for _ in range(5)]
    # The third was committed last.
    await feed.add(*events[:2], *events[3:])
    await feed.add(events[2])

    found = await feed.all_ids(limit=2)

    assert found == text_of(*events[:2], *events[3:], events[2])


async def test_an_event_has_the_bytes_of_its_webhook(feed: Feed) -> None:
    event = feed.event()
    (body,) = await feed.add(event)

    listed = await feed.api.get("/events")
    shown = await feed.api.get(f"/events/{event.id}")

    assert body in listed.content
    assert shown.content == body
    assert shown.headers["content-type"] == "application/cloudevents+json"


async def test_the_cursor_of_the_last_page_continues_with_later_events(feed: Feed) -> None:
    empty = await feed.page()
    assert (empty["items"], empty["has_more"]) == ([], False)
    first, second = feed.event(), feed.event()
    await feed.add(first)
    page = await feed.page(after=empty["next_cursor"])
    assert ids_of(page) == text_of(first)
    await feed.add(second)

    assert ids_of(await feed.page(after=page["next_cursor"])) == text_of(second)
    assert ids_of(await feed.page(after=page["next_cursor"])) == text_of(second)


async def test_latest_is_the_end_of_the_feed(feed: Feed) -> None:
    await feed.add(feed.event())
    end = await feed.page(after="latest")
    later = feed.event()
    await feed.add(later)

    assert end["items"] == []
    assert ids_of(await feed.page(after=end["next_cursor"])) == text_of(later)


async def test_events_without_a_position_for_no_client_or_of_another_tenant_are_not_in_the_feed(
    feed: Feed, stranger: Api
) -> None:
    order = feed.event(data=a_fact("upload.finalized"))
    test = feed.event(position=NO_FEED)
    await feed.add(order, test, feed.event())
    async with feed.transaction() as session:
        session.add(feed.event())

    assert len(await feed.all_ids()) == 1
    assert (await stranger.get("/events")).json()["items"] == []
    assert problem(await feed.api.get(f"/events/{order.id}")) == (404, "event_not_found")
    assert problem(await stranger.get(f"/events/{test.id}")) == (404, "event_not_found")
    assert (await feed.api.get(f"/events/{test.id}")).status_code == 200


async def test_types_are_chosen(feed: Feed) -> None:
    stored = feed.event(data=a_fact("upload.stored"))
    cancelled = feed.event(data=a_fact("upload.cancelled"))
    await feed.add(stored, cancelled)

    assert await feed.all_ids(types="upload.stored") == text_of(stored)
    assert await feed.all_ids(types=["upload.stored", "upload.cancelled"]) == text_of(
        stored, cancelled
    )
    assert await feed.all_ids(types="document.*") == []
    assert await feed.all_ids(types="upload.*") == text_of(stored, cancelled)


async def test_a_call_reads_a_bounded_number_of_events(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SCANNED_MAX", 3)
    others = [feed.event() for _ in range(7)]
    wanted = feed.event(data=a_fact("upload.stored"))
    await feed.add(*others, wanted)
    query = {"types": "upload.stored", "limit": 1}

    first = await feed.page(**query)

    assert (first["items"], first["has_more"]) == ([], True)
    assert await feed.all_ids(**query) == text_of(wanted)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"after": "x"}, "after"),
        ({"after": paging.encode(FeedPosition(position=1, up_to=datetime.now(UTC)))[:-3]}, "after"),
        ({"types": "upload.finalized"}, "types"),
        ({"types": "no.such"}, "types"),
        ({"limit": 0}, "limit"),
        ({"wait": -1}, "wait"),
    ],
    ids=str,
)
async def test_a_malformed_query_is_refused(
    shared_api: Api, query: dict[str, Any], field: str
) -> None:
    answer = await shared_api.get("/events", **query)

    assert problem(answer) == (400, "invalid_request")
    assert field in answer.text


async def test_a_cursor_before_deleted_events_is_refused(feed: Feed) -> None:
    async with feed.transaction() as session:
        names = (
            await session.scalars(
                text(
                    "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
                    " WHERE inhparent = 'events'::regclass AND relname <> 'events_default' ORDER BY relname"
                )
            )
        ).all()
    first_week = datetime.strptime(names[0], "events_%Y%m%d").replace(tzinfo=UTC)
    kept = FeedPosition(position=1, up_to=first_week)
    lost = FeedPosition(position=1, up_to=first_week - timedelta(seconds=1))
    ancient = FeedPosition(position=1, up_to=datetime(1, 1, 1, tzinfo=UTC))

    assert (await feed.api.get("/events", after=paging.encode(kept))).status_code == 200
    for place in (lost, ancient):
        answer = await feed.api.get("/events", after=paging.encode(place))
        assert problem(answer) == (410, "cursor_expired")
    assert (await feed.api.get("/events")).status_code == 200


async def test_a_cursor_ahead_of_every_partition_is_taken(feed: Feed) -> None:
    future = FeedPosition(position=1, up_to=datetime.now(UTC) + timedelta(days=365))

    assert (await feed.api.get("/events", after=paging.encode(future))).status_code == 200


# A request that waits


async def waiting(api: Api, feed: Feed, **query: Any) -> asyncio.Task[dict[str, Any]]:  # noqa: ANN401  # any query
    """Start a request; return once it waits."""
    task = asyncio.create_task(feed.page(wait=30, **query))
    watch = watch_of(api)

    async def is_waiting() -> bool:
        assert not task.done(), task.result()
        # Registered, and its first look is over: no connection of the pool is in use.
        return bool(watch._waits)  # noqa: SLF001  # not observable otherwise

    await eventually(is_waiting)
    return task


def watch_of(api: Api) -> feed_watch.FeedWatch:
    transport: Any = api.http._transport  # noqa: SLF001  # the application in this process
    watch: feed_watch.FeedWatch = transport.app.state.context.feed_watch
    return watch


async def test_a_waiting_request_gets_the_next_event(feed: Feed) -> None:
    request = await waiting(feed.api, feed)
    event = feed.event()
    await feed.add(event)

    page = await asyncio.wait_for(request, timeout=5)

    assert ids_of(page) == text_of(event)


async def test_a_waiting_request_ignores_other_types(feed: Feed) -> None:
    request = await waiting(feed.api, feed, types="upload.stored")
    await feed.add(feed.event())
    stored = feed.event(data=a_fact("upload.stored"))
    await feed.add(stored)

    assert ids_of(await asyncio.wait_for(request, timeout=5)) == text_of(stored)


async def test_an_event_that_exists_is_answered_at_once(feed: Feed) -> None:
    event = feed.event()
    await feed.add(event)

    page = await asyncio.wait_for(feed.page(wait=30), timeout=5)

    assert ids_of(page) == text_of(event)


async def test_a_wait_ends_with_its_time(feed: Feed) -> None:
    page = await asyncio.wait_for(feed.page(wait=1), timeout=10)

    assert (page["items"], page["has_more"]) == ([], False)


async def test_a_lost_notification_delays_an_event_only(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.events.feed.READ_INTERVAL", timedelta(milliseconds=200))
    request = await waiting(feed.api, feed)
    event = feed.event(position=2**40)  # without a notification
    async with feed.transaction() as session:
        session.add(event)

    assert ids_of(await asyncio.wait_for(request, timeout=5)) == text_of(event)


async def test_the_end_of_the_process_ends_a_wait(feed: Feed) -> None:
    request = await waiting(feed.api, feed)

    watch_of(feed.api).drain()

    assert (await asyncio.wait_for(request, timeout=5))["items"] == []
    assert (await asyncio.wait_for(feed.page(wait=30), timeout=5))["items"] == []


async def test_the_waits_of_a_key_are_limited(
    serve: Serve, database: DatabaseSettings, transaction: BeginSession, make_key: MakeKey
) -> None:
    async with serve(waits_per_key=1) as api:
        feed = Feed(api, database, transaction, await tenant_of(transaction, "acme"))
        request = await waiting(api, feed)

        refused = await api.get("/events", wait=30)
        other_key = await api.of(await make_key()).get("/events", wait=0)

        assert problem(refused) == (429, "too_many_waits")
        assert other_key.status_code == 200
        event = feed.event()
        await feed.add(event)
        assert ids_of(await asyncio.wait_for(request, timeout=5)) == text_of(event)


async def test_a_waiting_request_holds_no_transaction(feed: Feed) -> None:
    request = await waiting(feed.api, feed)

    async def is_idle() -> bool:
        async with feed.transaction() as session:
            states = await session.scalars(
                text(
                    "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND state LIKE '%in transaction%'"
                )
            )
            return not states.all()

    assert await eventually(is_idle)
    event = feed.event()
    await feed.add(event)
    await request
    async with feed.transaction() as session:
        assert await session.scalar(select(EventRecord.position).where(EventRecord.id == event.id))
