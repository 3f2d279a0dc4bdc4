import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Protocol
from uuid import uuid4

import pytest
from sqlalchemy import text

from notifier import db, relay
from notifier.broker import EventExchange, connect
from notifier.liveness import Pulse
from notifier.relay import Relay
from schemas import queues, topology
from schemas.events.envelope import encode
from schemas.events.uploads import UploadFinalized
from schemas.ids import EventId, JobId, UploadId, uuid7
from schemas.settings import BrokerSettings, DatabaseSettings, RelaySettings
from schemas.tables.outbox import WAKE_CHANNEL, OutboxMessage
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import ProxiedBroker, ProxiedDatabase, Start
from tests.integration.notifier.plans import plans_of, reads_of_events
from tests.integration.notifier.process import running
from tests.integration.notifier.rows import Rows, an_event, engine_of, eventually, record_of

pytestmark = pytest.mark.anyio

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NEVER = timedelta(hours=1)
PUBLISH_TIMEOUT = timedelta(seconds=10)


class RunRelay(Protocol):
    """Runs a relay as its process does, by default without a proxy."""

    def __call__(
        self,
        through: BrokerSettings | None = None,
        *,
        poll: timedelta = timedelta(seconds=1),
        batch: int = 100,
    ) -> AbstractAsyncContextManager[Relay]: ...


def finalized() -> UploadFinalized:
    return UploadFinalized(
        upload_id=UploadId(uuid4()), job_id=JobId(uuid4()), filename="a.pdf", size=1
    )


@pytest.fixture
def run_relay(database: DatabaseSettings, broker: BrokerSettings) -> RunRelay:
    @asynccontextmanager
    async def run(
        through: BrokerSettings | None = None,
        *,
        poll: timedelta = timedelta(seconds=1),
        batch: int = 100,
    ) -> AsyncIterator[Relay]:
        wake = db.WakeUp()
        async with (
            engine_of(database) as engine,
            await connect(through or broker, name="relay under test") as connection,
        ):
            loop = Relay(
                transaction=engine.begin,
                exchange=await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT),
                wake=wake,
                pulse=Pulse(),
                settings=RelaySettings(outbox_batch=batch, outbox_poll=poll),
            )
            async with (
                running(db.listen(database, channel=WAKE_CHANNEL, wake=wake.call, name="listener")),
                running(loop.run()),
            ):
                yield loop

    return run


async def test_a_committed_event_is_published_unchanged(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    event = an_event()
    async with run_relay():
        await rows.add_to_outbox(event, traceparent=TRACEPARENT)
        message = await events_bus.take(queues.NOTIFY)
    assert message.body == encode(event)
    assert message.message_id == str(event.id)
    assert message.type == message.routing_key == "upload.cancelled"
    assert message.content_type == "application/cloudevents+json"
    assert message.content_encoding == "utf-8"
    assert message.delivery_mode == 2
    assert message.app_id == "waybill"
    assert message.headers == {"traceparent": TRACEPARENT}
    assert message.timestamp is not None
    assert datetime.now(UTC) - message.timestamp < timedelta(minutes=1)


async def test_a_published_row_is_kept_with_its_time(rows: Rows, run_relay: RunRelay) -> None:
    async with run_relay():
        await rows.add_to_outbox(an_event())
        await eventually(rows.everything_is_published)
    (row,) = await rows.outbox()
    assert row.published_at is not None
    assert row.attempts == 1
    assert row.last_error is None


async def test_a_commit_wakes_the_relay_without_a_poll(rows: Rows, run_relay: RunRelay) -> None:
    async with run_relay(poll=NEVER):
        for _ in range(3):
            await rows.add_to_outbox(an_event())
            await eventually(rows.everything_is_published)


async def test_the_poll_finds_rows_without_a_notification(rows: Rows, run_relay: RunRelay) -> None:
    async with rows.transaction() as session:
        await session.execute(text("ALTER TABLE outbox DISABLE TRIGGER wake_relay"))
    async with run_relay(poll=timedelta(milliseconds=200)):
        await rows.add_to_outbox(an_event())
        await eventually(rows.everything_is_published)


async def test_a_lost_listening_connection_is_reopened(rows: Rows, run_relay: RunRelay) -> None:
    listeners = text(
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = 'listener' AND datname = current_database()"
    )

    async def listener() -> int | None:
        async with rows.transaction() as session:
            pid: int | None = await session.scalar(listeners)
            return pid

    async with run_relay(poll=NEVER):
        first = await eventually(listener)
        async with rows.transaction() as session:
            await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first})

        async def another() -> bool:
            return await listener() not in {None, first}

        await eventually(another)
        await rows.add_to_outbox(an_event())
        await eventually(rows.everything_is_published)


async def test_an_unroutable_event_is_kept_in_the_unrouted_queue(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    event = an_event()
    record = record_of(event)
    record.type = "upload.unheard_of"
    async with run_relay():
        async with rows.transaction() as session:
            session.add_all((record, OutboxMessage(event_id=event.id)))
        message = await events_bus.take(topology.UNROUTED.name)
    assert message.message_id == str(event.id)
    assert message.routing_key == "upload.unheard_of"
    assert await rows.everything_is_published()


async def test_work_is_published_to_its_queue_alone(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    event = an_event(data=finalized())
    async with run_relay():
        await rows.add_to_outbox(event, queue=queues.UPLOADS, traceparent=TRACEPARENT)
        message = await events_bus.take(queues.UPLOADS)
    assert message.exchange == ""
    assert message.body == encode(event)
    assert message.message_id == str(event.id)
    assert message.type == "upload.finalized"
    assert message.headers == {"traceparent": TRACEPARENT}
    for queue in (queues.NOTIFY, queues.DOCUMENT_PROCESSING, topology.UNROUTED.name):
        assert await events_bus.depth(queue) == 0


async def test_an_event_can_be_published_as_a_fact_and_as_work(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    event = an_event()
    async with run_relay():
        await rows.add_to_outbox(event)
        async with rows.transaction() as session:
            session.add(OutboxMessage(event_id=event.id, queue=queues.UPLOADS))
        for queue in (queues.NOTIFY, queues.UPLOADS):
            assert (await events_bus.take(queue)).message_id == str(event.id)


async def test_work_precedes_the_facts_of_its_batch(rows: Rows, database: DatabaseSettings) -> None:
    facts = [an_event() for _ in range(3)]
    work = an_event()
    await rows.add_to_outbox(*facts)
    await rows.add_to_outbox(work, queue=queues.UPLOADS)
    async with engine_of(database) as engine, engine.begin() as connection:
        taken = await relay.take(connection, limit=10)
    assert [row.event_id for row in taken] == [event.id for event in (work, *facts)]


async def test_work_for_a_deleted_queue_waits_until_the_queue_is_declared_again(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    event = an_event(data=finalized())
    async with run_relay():
        await events_bus.delete(queues.UPLOADS)
        await rows.add_to_outbox(event, queue=queues.UPLOADS)

        async def was_refused() -> bool:
            return (await rows.outbox())[0].attempts > 0

        await eventually(was_refused)
        (row,) = await rows.outbox()
        assert row.published_at is None
        assert row.last_error is not None
        assert row.last_error.startswith("PublishRefused: returned: NO_ROUTE")
        await events_bus.declare_topology()
        assert (await events_bus.take(queues.UPLOADS)).message_id == str(event.id)
        await eventually(rows.everything_is_published)


async def test_a_row_without_its_event_is_refused_and_does_not_block_other_rows(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    async with rows.transaction() as session:
        session.add(OutboxMessage(event_id=EventId(uuid7(datetime.now(UTC)))))
    event = an_event()
    await rows.add_to_outbox(event)
    async with run_relay(batch=1):
        assert (await events_bus.take(queues.NOTIFY)).message_id == str(event.id)
    (row, _) = await rows.outbox()
    assert row.last_error == f"EventMissing: the table of events does not have {row.event_id}"


async def test_a_batch_looks_its_events_up_by_id_in_their_partition(
    rows: Rows, database: DatabaseSettings
) -> None:
    await rows.add_to_outbox(*(an_event() for _ in range(5)))
    async with engine_of(database) as engine:
        (plan,) = await plans_of(engine, partial(relay.take, limit=100))
    reads = reads_of_events(plan)
    assert len(reads) > 4
    assert [read["Actual Loops"] for read in reads if read["Actual Loops"]] == [5]


async def test_a_refused_event_waits_and_does_not_block_other_events(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    await events_bus.add_full_queue(routing_key="upload.finalized")
    refused = [an_event(data=finalized()) for _ in range(2)]
    others = [an_event() for _ in range(20)]
    async with run_relay():
        await rows.add_to_outbox(refused[0], *others, refused[1])
        taken = await events_bus.take_until(queues.NOTIFY, count=20)

        async def were_tried_twice() -> bool:
            return all(row.attempts >= 2 for row in await rows.outbox() if not row.published_at)

        await eventually(were_tried_twice)
    assert {message.message_id for message in taken} == {str(event.id) for event in others}
    waiting = [row for row in await rows.outbox() if row.published_at is None]
    assert {row.event_id for row in waiting} == {event.id for event in refused}
    for row in waiting:
        assert row.last_error == "PublishRefused: rejected by a queue"
        assert timedelta(0) < row.available_at - datetime.now(UTC) < timedelta(seconds=3)


async def test_rows_wait_for_the_broker_and_are_published_when_it_returns(
    rows: Rows, events_bus: Bus, run_relay: RunRelay, proxied_broker: ProxiedBroker
) -> None:
    async with run_relay(proxied_broker.settings, poll=timedelta(milliseconds=100)):
        await rows.add_to_outbox(an_event())
        await eventually(rows.everything_is_published)
        await proxied_broker.proxy.fail()
        await rows.add_to_outbox(*(an_event() for _ in range(50)))

        async def has_tried_to_connect_again() -> bool:
            return proxied_broker.proxy.failed >= 3

        # Each attempt would also show a wrong backoff of a row.
        await eventually(has_tried_to_connect_again)
        assert all(row.attempts <= 1 and row.last_error is None for row in await rows.outbox())
        await proxied_broker.proxy.accept()
        began = asyncio.get_running_loop().time()
        await events_bus.take_until(queues.NOTIFY, count=51)
        assert asyncio.get_running_loop().time() - began < 2
        await eventually(rows.everything_is_published)


async def test_repeated_connection_losses_lose_no_event(
    rows: Rows, events_bus: Bus, run_relay: RunRelay, proxied_broker: ProxiedBroker
) -> None:
    batch, drops = 20, 4
    events = [an_event() for _ in range(1000)]
    async with run_relay(proxied_broker.settings, batch=batch):
        await rows.add_to_outbox(*events)
        for remaining in range(800, 800 - 200 * drops, -200):

            async def enough_are_published(remaining: int = remaining) -> bool:
                return await rows.unpublished() <= remaining

            await eventually(enough_are_published)
            await proxied_broker.proxy.drop()
        taken = await events_bus.take_until(queues.NOTIFY, count=len(events))
        await eventually(rows.everything_is_published)
    assert {message.message_id for message in taken} == {str(event.id) for event in events}
    assert len(taken) + await events_bus.depth(queues.NOTIFY) <= len(events) + drops * batch


async def test_two_relays_publish_each_row_once(
    rows: Rows, events_bus: Bus, run_relay: RunRelay
) -> None:
    events = [an_event() for _ in range(400)]
    await rows.add_to_outbox(*events[:300])
    async with (
        run_relay(batch=10, poll=timedelta(milliseconds=20)),
        run_relay(batch=10, poll=timedelta(milliseconds=20)),
    ):
        for event in events[300:]:
            await rows.add_to_outbox(event)
        taken = await events_bus.take_until(queues.NOTIFY, count=len(events))
        await eventually(rows.everything_is_published)
    assert len(taken) == len(events)
    assert await events_bus.depth(queues.NOTIFY) == 0


async def test_a_killed_relay_repeats_at_most_one_batch(
    rows: Rows, events_bus: Bus, start: Start
) -> None:
    batch, kills = 100, 3
    events = [an_event() for _ in range(2000)]
    await rows.add_to_outbox(*events)
    for remaining in (1600, 1000, 400):
        relay = await start("relay", OUTBOX_BATCH=str(batch), LOG_LEVEL="INFO")

        async def enough_are_published(remaining: int = remaining) -> bool:
            return await rows.unpublished() <= remaining

        await eventually(enough_are_published)
        await relay.kill()
    last = await start("relay", OUTBOX_BATCH=str(batch), LOG_LEVEL="INFO")
    await eventually(rows.everything_is_published)
    assert await last.stop() == 0
    taken = await events_bus.take_until(queues.NOTIFY, count=len(events))
    copies = len(taken) + await events_bus.depth(queues.NOTIFY)
    assert {message.message_id for message in taken} == {str(event.id) for event in events}
    assert copies - len(events) <= kills * batch


async def test_on_sigterm_the_relay_repeats_nothing(
    rows: Rows, events_bus: Bus, start: Start
) -> None:
    events = [an_event() for _ in range(1000)]
    await rows.add_to_outbox(*events)
    relay = await start("relay", LOG_LEVEL="INFO")

    async def some_are_published() -> bool:
        return await rows.unpublished() < len(events)

    await eventually(some_are_published)
    assert await relay.stop() == 0
    published = len(events) - await rows.unpublished()
    assert await events_bus.depth(queues.NOTIFY) == published


async def test_the_relay_waits_for_the_database_at_its_start(
    rows: Rows, proxied_database: ProxiedDatabase, start: Start
) -> None:
    await proxied_database.proxy.refuse()
    url = proxied_database.settings.database_url.get_secret_value()
    relay = await start("relay", DATABASE_URL=url)

    async def has_logged_twice() -> bool:
        return len(relay.logged("database.unavailable")) >= 2

    await eventually(has_logged_twice)
    assert not relay.liveness_file.exists()
    await proxied_database.proxy.accept()
    await relay.until_alive()
    await rows.add_to_outbox(an_event())
    await eventually(rows.everything_is_published)
    assert await relay.stop() == 0


async def test_the_relay_can_be_stopped_while_it_waits_for_the_database(
    proxied_database: ProxiedDatabase, start: Start
) -> None:
    await proxied_database.proxy.refuse()
    url = proxied_database.settings.database_url.get_secret_value()
    relay = await start("relay", DATABASE_URL=url)

    async def is_waiting() -> bool:
        return bool(relay.logged("database.unavailable"))

    await eventually(is_waiting)
    assert await relay.stop() == 0
