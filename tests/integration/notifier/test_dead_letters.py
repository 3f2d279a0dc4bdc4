from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import uuid4

import pytest
from sqlalchemy import text, update

from gateway.administration import dead_letters as administration
from notifier.broker import connect
from notifier.dead_letters import DeadLetterConsumer
from schemas import queues, topology
from schemas.events.envelope import CONTENT_TYPE, encode
from schemas.events.uploads import UploadFinalized
from schemas.ids import JobId, UploadId
from schemas.settings import BrokerSettings, DatabaseSettings
from schemas.tables.dead_letters import DeadLetter
from tests.integration.notifier import foreign
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import ProxiedDatabase, Start
from tests.integration.notifier.process import running
from tests.integration.notifier.rows import Rows, an_event, engine_of, eventually

pytestmark = pytest.mark.anyio

UPLOADS_DLQ = topology.dead_letter_queue(queues.UPLOADS)


class RunConsumer(Protocol):
    """Runs a consumer as its process does, by default without a proxy."""

    def __call__(
        self, *, recording_in: DatabaseSettings | None = None
    ) -> AbstractAsyncContextManager[DeadLetterConsumer]: ...


@pytest.fixture
def run_consumer(database: DatabaseSettings, broker: BrokerSettings) -> RunConsumer:
    @asynccontextmanager
    async def run(
        *, recording_in: DatabaseSettings | None = None
    ) -> AsyncIterator[DeadLetterConsumer]:
        async with (
            engine_of(recording_in or database) as engine,
            await connect(broker, name="consumer under test") as connection,
        ):
            consumer = DeadLetterConsumer(connection=connection, transaction=engine.begin)
            async with running(consumer.run()):
                await eventually(consumer.is_consuming)
                yield consumer

    return run


async def test_a_rejected_message_is_recorded_with_its_event_and_its_death(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    upload_id, job_id = UploadId(uuid4()), JobId(uuid4())
    data = UploadFinalized(upload_id=upload_id, job_id=job_id, filename="a.pdf", size=1)
    event = an_event(upload_id=upload_id, data=data)
    async with run_consumer():
        await events_bus.dead_letter(
            encode(event),
            queue=queues.UPLOADS,
            message_id=str(event.id),
            headers={"x-waybill-attempt": 3},
        )
        (letter,) = await rows.until_dead_letters(1)
    assert letter.queue == queues.UPLOADS
    assert (letter.message_id, letter.content_type) == (str(event.id), CONTENT_TYPE)
    assert (letter.event_id, letter.event_type) == (event.id, "upload.finalized")
    assert (letter.tenant_id, letter.job_id) == (event.tenantid, job_id)
    assert letter.body == encode(event)
    assert (letter.reason, letter.deaths, letter.state) == ("rejected", 1, "waiting")
    assert letter.dead_lettered_at is not None
    assert abs(letter.dead_lettered_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert letter.headers["x-waybill-attempt"] == 3
    assert letter.headers["x-death"][0]["queue"] == queues.UPLOADS
    assert letter.settled_at is None
    assert await events_bus.depth(UPLOADS_DLQ) == 0


async def test_a_malformed_message_is_recorded_without_an_event(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    malformed = [b"", b"\xff\xfe", b"{}", b"a\x00b", b"[" * 100_000, encode(an_event())[:-1]]
    async with run_consumer():
        for body in malformed:
            await events_bus.dead_letter(body, queue=queues.NOTIFY)
        letters = await rows.until_dead_letters(len(malformed))
    assert sorted(letter.body for letter in letters) == sorted(malformed)
    for letter in letters:
        ids = (letter.event_id, letter.event_type, letter.tenant_id, letter.job_id)
        assert ids == (None, None, None, None)
        assert (letter.queue, letter.reason) == (queues.NOTIFY, "rejected")


async def test_properties_that_the_database_refuses_are_replaced(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    async with run_consumer():
        await events_bus.dead_letter(
            b"{}",
            queue=queues.NOTIFY,
            message_id="a\x00b",
            headers={"nul\x00": "a\x00b", "bytes": bytearray(b"\xff")},
        )
        (letter,) = await rows.until_dead_letters(1)
    assert letter.message_id == "a\ufffdb"
    assert letter.headers["nul\ufffd"] == "a\ufffdb"
    assert letter.headers["bytes"] == "\ufffd"


async def test_a_message_in_a_dead_letter_queue_without_a_death_is_recorded(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    async with run_consumer():
        await events_bus.publish_to(UPLOADS_DLQ, b"{}", headers={"x-death": "not a list"})
        (letter,) = await rows.until_dead_letters(1)
    assert (letter.queue, letter.reason, letter.deaths) == (queues.UPLOADS, "unknown", 0)
    assert letter.dead_lettered_at is None


async def test_a_repeated_message_adds_no_second_row(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    event, last = an_event(), an_event()
    async with run_consumer():
        for each in (event, event, last):
            await events_bus.publish_to(
                topology.UNROUTED.name, encode(each), message_id=str(each.id)
            )
        letters = await rows.until_dead_letters(2)
    assert [letter.event_id for letter in letters] == [event.id, last.id]


async def test_a_message_of_a_deleted_tenant_is_not_recorded(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    tenant_id = await rows.add_tenant()
    await rows.add_deletion(tenant_id)
    late, last = an_event(tenant_id=tenant_id), an_event()
    async with run_consumer():
        for each in (late, last):
            await events_bus.publish_to(
                topology.UNROUTED.name, encode(each), message_id=str(each.id)
            )
        (letter,) = await rows.until_dead_letters(1)
        assert letter.event_id == last.id

        async def is_empty() -> bool:
            return await events_bus.depth(topology.UNROUTED.name) == 0

        await eventually(is_empty)


async def test_a_message_that_dies_again_after_its_replay_adds_a_row(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    event = an_event()
    async with run_consumer():
        for count in (1, 2):
            await events_bus.publish_to(
                topology.UNROUTED.name, encode(event), message_id=str(event.id)
            )
            await rows.until_dead_letters(count)
            async with rows.transaction() as session:
                await session.execute(update(DeadLetter).values(state="replayed"))


async def test_messages_without_an_id_are_told_apart_by_their_bodies(
    rows: Rows, broker: BrokerSettings, run_consumer: RunConsumer
) -> None:
    async with run_consumer():
        for body in (b"1", b"1", b"2"):
            foreign.publish(broker, topology.UNROUTED.name, body)
        letters = await rows.until_dead_letters(2)
    assert [letter.body for letter in letters] == [b"1", b"2"]


async def test_an_unroutable_event_is_recorded(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    event = an_event()
    async with run_consumer():
        await events_bus.publish_raw(encode(event), routing_key="upload.unheard_of")
        (letter,) = await rows.until_dead_letters(1)
    assert (letter.queue, letter.reason) == (topology.UNROUTED.name, "unrouted")
    assert (letter.event_id, letter.deaths) == (event.id, 0)
    assert await events_bus.depth(topology.UNROUTED.name) == 0


async def test_nothing_is_consumed_during_an_outage_of_the_database(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer, proxied_database: ProxiedDatabase
) -> None:
    async with run_consumer(recording_in=proxied_database.settings) as consumer:
        await proxied_database.proxy.refuse()
        for _ in range(30):
            await events_bus.publish_raw(encode(an_event()), routing_key="upload.unheard_of")

        async def has_stopped() -> bool:
            return not await consumer.is_consuming()

        async def all_are_queued() -> bool:
            return await events_bus.depth(topology.UNROUTED.name) == 30

        await eventually(has_stopped)
        await eventually(all_are_queued)
        await proxied_database.proxy.accept()
        letters = await rows.until_dead_letters(30)
        await eventually(consumer.is_consuming)
    # A message that was requeued repeatedly would have a count of its deliveries.
    assert all(letter.headers.get("x-delivery-count", 0) <= 1 for letter in letters)
    assert len(letters) == 30
    assert await events_bus.depth(topology.UNROUTED.name) == 0


async def test_a_message_that_cannot_be_recorded_stays_in_its_queue(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer
) -> None:
    async with rows.transaction() as session:
        await session.execute(
            text("ALTER TABLE dead_letters ADD CONSTRAINT refused CHECK (body <> 'refused')")
        )
    async with run_consumer():
        await events_bus.dead_letter(b"refused", queue=queues.UPLOADS)
        await events_bus.dead_letter(b"accepted", queue=queues.UPLOADS)
        (letter,) = await rows.until_dead_letters(1)
    assert letter.body == b"accepted"
    async with rows.transaction() as session:
        await session.execute(text("ALTER TABLE dead_letters DROP CONSTRAINT refused"))
    async with run_consumer():
        letters = await rows.until_dead_letters(2)
    assert letters[-1].body == b"refused"


async def test_a_replayed_message_reaches_its_work_queue_and_no_other(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer, start: Start
) -> None:
    event = an_event()
    async with run_consumer():
        await events_bus.dead_letter(encode(event), queue=queues.UPLOADS, message_id=str(event.id))
        (letter,) = await rows.until_dead_letters(1)
    async with rows.transaction() as session:
        await administration.replay(session, [letter.id], actor="tests")
    await start("relay")
    message = await events_bus.take(queues.UPLOADS)
    assert (message.message_id, message.type) == (str(event.id), event.type)
    assert message.body == encode(event)
    await eventually(rows.everything_is_published)
    assert await events_bus.depth(queues.NOTIFY) == 0


async def test_a_replayed_unroutable_event_is_published_to_the_exchange_again(
    rows: Rows, events_bus: Bus, run_consumer: RunConsumer, start: Start
) -> None:
    event = an_event()
    async with run_consumer():
        await events_bus.publish_raw(encode(event), routing_key="upload.unheard_of")
        (letter,) = await rows.until_dead_letters(1)
    async with rows.transaction() as session:
        await administration.replay(session, [letter.id], actor="tests")
    await start("relay")
    message = await events_bus.take(queues.NOTIFY)
    assert (message.message_id, message.routing_key) == (str(event.id), event.type)
    assert message.body == encode(event)


async def test_the_deliverer_records_what_no_queue_and_no_consumer_accepts(
    rows: Rows, events_bus: Bus, start: Start
) -> None:
    event = an_event()
    deliver = await start("deliver")
    await deliver.until_alive()
    # The deliverer rejects it.
    await events_bus.publish_raw(b"hunter2", routing_key="upload.cancelled")
    await rows.until_dead_letters(1)
    await events_bus.publish_raw(encode(event), routing_key="upload.unheard_of")
    letters = await rows.until_dead_letters(2)
    assert await deliver.stop() == 0
    assert [letter.queue for letter in letters] == [queues.NOTIFY, topology.UNROUTED.name]
    malformed, unrouted = deliver.logged("dead_letter.received")
    assert (malformed["level"], malformed["reason"]) == ("error", "rejected")
    assert (malformed["queue"], malformed["dead_letter_id"]) == (queues.NOTIFY, letters[0].id)
    assert (unrouted["event_id"], unrouted["tenant_id"]) == (str(event.id), str(event.tenantid))
    assert "hunter2" not in deliver.log_file.read_text()
