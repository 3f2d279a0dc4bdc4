import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest
from sqlalchemy import text

from notifier import db
from notifier.broker import EventExchange, connect
from notifier.liveness import Pulse
from notifier.relay import Relay
from schemas import topology
from schemas.events.envelope import encode
from schemas.events.uploads import UploadFinalized
from schemas.ids import JobId, UploadId
from schemas.settings import BrokerSettings, DatabaseSettings, RelaySettings
from schemas.tables.outbox import WAKE_CHANNEL
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import CutBroker, CutDatabase, Start
from tests.integration.notifier.process import running
from tests.integration.notifier.scene import Scene, an_event, engine_of, eventually

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NEVER = timedelta(hours=1)
PUBLISH_TIMEOUT = timedelta(seconds=10)


class RelayFor(Protocol):
    """Runs a relay as its process does; through the way given, or the test's own broker directly."""

    def __call__(
        self,
        through: BrokerSettings | None = None,
        *,
        poll: timedelta = timedelta(seconds=1),
        batch: int = 100,
    ) -> AbstractAsyncContextManager[Relay]: ...


@pytest.fixture
def a_relay(database: DatabaseSettings, broker: BrokerSettings) -> RelayFor:
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
            relay = Relay(
                transaction=engine.begin,
                exchange=await EventExchange.open(connection, publish_timeout=PUBLISH_TIMEOUT),
                wake=wake,
                pulse=Pulse(),
                settings=RelaySettings(outbox_batch=batch, outbox_poll=poll),
            )
            async with (
                running(db.listen(database, channel=WAKE_CHANNEL, wake=wake, name="listener")),
                running(relay.run()),
            ):
                yield relay

    return run


async def test_a_committed_event_is_published_as_it_was_written(
    scene: Scene, events_bus: Bus, a_relay: RelayFor
) -> None:
    event = an_event()
    async with a_relay():
        await scene.put_in_outbox(event, traceparent=TRACEPARENT)
        message = await events_bus.take(topology.NOTIFY)
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


async def test_a_published_row_is_kept_and_says_when(scene: Scene, a_relay: RelayFor) -> None:
    async with a_relay():
        await scene.put_in_outbox(an_event())
        await eventually(scene.everything_is_published)
    (row,) = await scene.outbox()
    assert row.published_at is not None
    assert row.attempts == 1
    assert row.last_error is None


async def test_the_commit_wakes_the_relay_without_a_poll(scene: Scene, a_relay: RelayFor) -> None:
    async with a_relay(poll=NEVER):
        for _ in range(3):
            await scene.put_in_outbox(an_event())
            await eventually(scene.everything_is_published, within=timedelta(seconds=5))


async def test_the_poll_finds_what_no_notification_announced(
    scene: Scene, a_relay: RelayFor
) -> None:
    async with scene.transaction() as session:
        await session.execute(text("ALTER TABLE outbox DISABLE TRIGGER wake_relay"))
    async with a_relay(poll=timedelta(milliseconds=200)):
        await scene.put_in_outbox(an_event())
        await eventually(scene.everything_is_published, within=timedelta(seconds=5))


async def test_a_lost_listening_connection_is_opened_again(scene: Scene, a_relay: RelayFor) -> None:
    listeners = text(
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name = 'listener' AND datname = current_database()"
    )

    async def listener() -> int | None:
        async with scene.transaction() as session:
            pid: int | None = await session.scalar(listeners)
            return pid

    async with a_relay(poll=NEVER):
        first = await eventually(listener)
        async with scene.transaction() as session:
            await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first})

        async def another() -> bool:
            return await listener() not in {None, first}

        await eventually(another)
        await scene.put_in_outbox(an_event())
        await eventually(scene.everything_is_published, within=timedelta(seconds=5))


async def test_an_event_nobody_consumes_is_kept_for_the_operator(
    scene: Scene, events_bus: Bus, a_relay: RelayFor
) -> None:
    event = an_event()
    async with a_relay():
        async with scene.transaction() as session:
            await session.execute(
                text(
                    "INSERT INTO outbox (event_id, routing_key, body)"
                    " VALUES (:id, 'upload.unheard_of', :body)"
                ),
                {"id": event.id, "body": encode(event)},
            )
        message = await events_bus.take(topology.UNROUTED.name)
    assert message.message_id == str(event.id)
    assert message.routing_key == "upload.unheard_of"
    assert await scene.everything_is_published()


async def test_a_refused_event_waits_and_holds_up_no_other(
    scene: Scene, events_bus: Bus, a_relay: RelayFor
) -> None:
    await events_bus.add_full_queue(routing_key="upload.finalized")
    refused = [
        an_event(
            data=UploadFinalized(
                upload_id=UploadId(event.data.upload_id),
                job_id=JobId(event.data.upload_id),
                filename="a.pdf",
                size=1,
            )
        )
        for event in (an_event(), an_event())
    ]
    others = [an_event() for _ in range(20)]
    async with a_relay():
        await scene.put_in_outbox(refused[0], *others, refused[1])
        taken = await events_bus.take_until(topology.NOTIFY, count=20)

        async def tried_twice() -> bool:
            return all(row.attempts >= 2 for row in await scene.outbox() if not row.published_at)

        await eventually(tried_twice)
    assert {message.message_id for message in taken} == {str(event.id) for event in others}
    waiting = [row for row in await scene.outbox() if row.published_at is None]
    assert {row.event_id for row in waiting} == {event.id for event in refused}
    for row in waiting:
        assert row.last_error == "PublishRefused: rejected by a queue"
        assert timedelta(0) < row.available_at - datetime.now(UTC) < timedelta(seconds=3)


async def test_rows_wait_for_the_broker_and_leave_as_soon_as_it_is_back(
    scene: Scene, events_bus: Bus, a_relay: RelayFor, cut: CutBroker
) -> None:
    async with a_relay(cut.settings, poll=timedelta(milliseconds=100)):
        await scene.put_in_outbox(an_event())
        await eventually(scene.everything_is_published)
        await cut.way.refuse()
        await scene.put_in_outbox(*(an_event() for _ in range(50)))
        # Long enough for several attempts to connect, and for a row to be pushed back in vain.
        await asyncio.sleep(3)
        assert all(row.attempts <= 1 and row.last_error is None for row in await scene.outbox())
        await cut.way.accept()
        began = asyncio.get_running_loop().time()
        await events_bus.take_until(topology.NOTIFY, count=51)
        assert asyncio.get_running_loop().time() - began < 2
        await eventually(scene.everything_is_published)


async def test_a_connection_dropped_again_and_again_loses_nothing(
    scene: Scene, events_bus: Bus, a_relay: RelayFor, cut: CutBroker
) -> None:
    batch, drops = 20, 4
    events = [an_event() for _ in range(1000)]
    async with a_relay(cut.settings, batch=batch):
        await scene.put_in_outbox(*events)
        for remaining in range(800, 800 - 200 * drops, -200):

            async def enough_are_out(remaining: int = remaining) -> bool:
                return await scene.unpublished() <= remaining

            await eventually(enough_are_out)
            await cut.way.drop()
        taken = await events_bus.take_until(topology.NOTIFY, count=len(events))
        await eventually(scene.everything_is_published)
    assert {message.message_id for message in taken} == {str(event.id) for event in events}
    assert len(taken) + await events_bus.depth(topology.NOTIFY) <= len(events) + drops * batch


async def test_two_relays_publish_each_row_once(
    scene: Scene, events_bus: Bus, a_relay: RelayFor
) -> None:
    events = [an_event() for _ in range(400)]
    await scene.put_in_outbox(*events[:300])
    async with (
        a_relay(batch=10, poll=timedelta(milliseconds=20)),
        a_relay(batch=10, poll=timedelta(milliseconds=20)),
    ):
        for event in events[300:]:
            await scene.put_in_outbox(event)
        taken = await events_bus.take_until(topology.NOTIFY, count=len(events))
        await eventually(scene.everything_is_published)
    assert len(taken) == len(events)
    assert await events_bus.depth(topology.NOTIFY) == 0


async def test_a_relay_killed_while_draining_repeats_at_most_one_batch(
    scene: Scene, events_bus: Bus, start: Start
) -> None:
    batch, kills = 100, 3
    events = [an_event() for _ in range(2000)]
    await scene.put_in_outbox(*events)
    for remaining in (1600, 1000, 400):
        relay = await start("relay", OUTBOX_BATCH=str(batch), LOG_LEVEL="INFO")

        async def enough_are_out(remaining: int = remaining) -> bool:
            return await scene.unpublished() <= remaining

        await eventually(enough_are_out)
        await relay.kill()
    last = await start("relay", OUTBOX_BATCH=str(batch), LOG_LEVEL="INFO")
    await eventually(scene.everything_is_published)
    assert await last.stop() == 0
    taken = await events_bus.take_until(topology.NOTIFY, count=len(events))
    copies = len(taken) + await events_bus.depth(topology.NOTIFY)
    assert {message.message_id for message in taken} == {str(event.id) for event in events}
    assert copies - len(events) <= kills * batch


async def test_a_relay_asked_to_stop_repeats_nothing(
    scene: Scene, events_bus: Bus, start: Start
) -> None:
    events = [an_event() for _ in range(1000)]
    await scene.put_in_outbox(*events)
    relay = await start("relay", LOG_LEVEL="INFO")

    async def some_are_out() -> bool:
        return await scene.unpublished() < len(events)

    await eventually(some_are_out)
    assert await relay.stop() == 0
    published = len(events) - await scene.unpublished()
    assert await events_bus.depth(topology.NOTIFY) == published


async def test_a_relay_waits_for_a_database_that_is_not_there_yet(
    scene: Scene, cut_database: CutDatabase, start: Start
) -> None:
    await cut_database.way.refuse()
    url = cut_database.settings.database_url.get_secret_value()
    relay = await start("relay", DATABASE_URL=url)

    async def said_so() -> bool:
        return len(relay.logged("database.unavailable")) >= 2

    await eventually(said_so)
    assert not relay.liveness_file.exists()
    await cut_database.way.accept()
    await relay.alive()
    await scene.put_in_outbox(an_event())
    await eventually(scene.everything_is_published)
    assert await relay.stop() == 0


async def test_a_relay_can_be_stopped_while_it_waits_to_start(
    cut_database: CutDatabase, start: Start
) -> None:
    await cut_database.way.refuse()
    url = cut_database.settings.database_url.get_secret_value()
    relay = await start("relay", DATABASE_URL=url)

    async def waits() -> bool:
        return bool(relay.logged("database.unavailable"))

    await eventually(waits)
    assert await relay.stop() == 0
