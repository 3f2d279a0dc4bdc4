"""The positions of events, and a reader of the feed beside writers that commit late."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Protocol

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from notifier import db, positions
from notifier.liveness import Pulse
from notifier.positions import Positions
from schemas.ids import EventId, TenantId
from schemas.settings import DatabaseSettings, RelaySettings
from schemas.tables.events import events_after
from schemas.tables.outbox import WAKE_CHANNEL
from tests.integration.notifier.conftest import ProxiedBroker, Start
from tests.integration.notifier.plans import plans_of, reads_of_events, rows_read
from tests.integration.notifier.process import running
from tests.integration.notifier.rows import Rows, an_event, engine_of, eventually, record_of

pytestmark = pytest.mark.anyio

WRITERS = 8
EVENTS_PER_WRITER = 40
PAGE = 100
NEVER = timedelta(hours=1)


class RunPositions(Protocol):
    """Assigns positions as the process of the relay does."""

    def __call__(
        self, *, poll: timedelta = timedelta(milliseconds=50)
    ) -> AbstractAsyncContextManager[None]: ...


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    async with engine_of(database) as opened:
        yield opened


@pytest.fixture
def run_positions(database: DatabaseSettings) -> RunPositions:
    @asynccontextmanager
    async def run(*, poll: timedelta = timedelta(milliseconds=50)) -> AsyncIterator[None]:
        wake = db.WakeUp()
        async with engine_of(database) as engine:
            loop = Positions(
                transaction=engine.begin,
                wake=wake,
                pulse=Pulse(),
                settings=RelaySettings(outbox_poll=poll),
            )
            async with (
                running(db.listen(database, channel=WAKE_CHANNEL, wake=wake.call, name="listener")),
                running(loop.run()),
            ):
                yield

    return run


class Feed:
    """A reader of a tenant's feed that continues after the last position of each page."""

    def __init__(self, engine: AsyncEngine, tenant_id: TenantId) -> None:
        self._engine = engine
        self._tenant_id = tenant_id
        self.positions: list[int] = []
        self.ids: list[EventId] = []

    async def read_page(self) -> int:
        async with self._engine.connect() as connection:
            page = (
                await connection.execute(
                    events_after(
                        self._tenant_id,
                        position=self.positions[-1] if self.positions else 0,
                        limit=PAGE,
                    )
                )
            ).all()
        self.positions += [row.position for row in page]
        self.ids += [row.id for row in page]
        return len(page)

    async def read_for_ever(self) -> None:
        while True:
            if not await self.read_page():
                await asyncio.sleep(0.005)


async def write(rows: Rows, tenant_id: TenantId, *, seed: int) -> list[EventId]:
    """Commit events one by one; some transactions stay open while others commit."""
    chance = random.Random(seed)  # reproducible
    ids = []
    for _ in range(EVENTS_PER_WRITER):
        event = an_event(tenant_id=tenant_id)
        async with rows.transaction() as session:
            session.add(record_of(event))
            await session.flush()
            delay = chance.choice((0, 0.001, 0.02))
            await asyncio.sleep(chance.uniform(1, 3) if chance.random() < 0.04 else delay)
        ids.append(event.id)
    return ids


async def test_a_reader_gets_every_event_once_and_in_order_beside_late_commits(
    rows: Rows, engine: AsyncEngine, run_positions: RunPositions
) -> None:
    tenant_id = await rows.add_tenant()
    feed = Feed(engine, tenant_id)
    async with run_positions(), run_positions(), AsyncExitStack() as reading:
        await reading.enter_async_context(running(feed.read_for_ever()))
        async with asyncio.TaskGroup() as writers:
            writing = [
                writers.create_task(write(rows, tenant_id, seed=seed)) for seed in range(WRITERS)
            ]
        written = {event_id for writer in writing for event_id in writer.result()}

        async def is_complete() -> bool:
            return len(feed.ids) >= len(written)

        await eventually(is_complete)
    assert await feed.read_page() == 0
    assert len(feed.ids) == len(written) == WRITERS * EVENTS_PER_WRITER
    assert set(feed.ids) == written
    assert feed.positions == sorted(set(feed.positions))


async def test_an_event_that_commits_late_follows_the_events_that_were_read(
    rows: Rows, engine: AsyncEngine
) -> None:
    tenant_id = await rows.add_tenant()
    late, early = an_event(tenant_id=tenant_id), an_event(tenant_id=tenant_id)
    feed = Feed(engine, tenant_id)
    async with rows.transaction() as session:
        session.add(record_of(late))
        await session.flush()
        await rows.add_events(early)
        await assign(engine)
        await feed.read_page()
    await assign(engine)
    await feed.read_page()
    assert feed.ids == [early.id, late.id]


async def test_positions_follow_the_ids_within_a_batch(rows: Rows, engine: AsyncEngine) -> None:
    tenant_id = await rows.add_tenant()
    events = [an_event(tenant_id=tenant_id) for _ in range(20)]
    await rows.add_events(*reversed(events))
    feed = Feed(engine, tenant_id)
    assert await assign(engine, limit=15) == 15
    assert await assign(engine, limit=15) == 5
    await feed.read_page()
    assert feed.ids == sorted(event.id for event in events)


async def test_only_one_relay_assigns_positions_at_a_time(rows: Rows, engine: AsyncEngine) -> None:
    await rows.add_events(an_event())
    async with engine.begin() as first, engine.begin() as second:
        assert await positions.assign(first) == 1
        assert await positions.assign(second) is None
    assert await assign(engine) == 0


async def test_a_commit_wakes_the_loop_without_a_poll(
    rows: Rows, run_positions: RunPositions
) -> None:
    async with run_positions(poll=NEVER):
        for number in range(1, 4):
            await rows.add_to_outbox(an_event())
            await eventually(partial(have_positions, rows, number))


async def test_the_poll_finds_events_without_a_notification(
    rows: Rows, run_positions: RunPositions
) -> None:
    async with run_positions(poll=timedelta(milliseconds=200)):
        await rows.add_events(an_event())
        await eventually(partial(have_positions, rows, 1))


async def test_positions_are_assigned_while_the_broker_is_unreachable(
    rows: Rows, start: Start, proxied_broker: ProxiedBroker
) -> None:
    await proxied_broker.proxy.refuse()
    relay = await start(
        "relay", RABBITMQ_URL=proxied_broker.settings.rabbitmq_url.get_secret_value()
    )
    await rows.add_to_outbox(an_event())
    await eventually(partial(have_positions, rows, 1))
    assert not await rows.everything_is_published()
    assert not relay.liveness_file.exists()
    assert await relay.stop() == 0


async def test_a_page_of_the_feed_merges_the_partitions_in_the_order_of_the_index(
    rows: Rows, engine: AsyncEngine
) -> None:
    tenant_id = await rows.add_tenant()
    await fill(engine, tenant_id)
    (plan,) = await plans_of(
        engine,
        lambda connection: connection.execute(events_after(tenant_id, position=5000, limit=100)),
    )
    assert (plan["Node Type"], plan["Plans"][0]["Node Type"]) == ("Limit", "Merge Append")
    reads = reads_of_events(plan)
    assert {read["Node Type"] for read in reads} == {"Index Scan"}
    assert {read["Index Name"] for read in reads} <= await feed_indexes(engine)
    assert sum(rows_read(read) for read in reads) <= 100 + len(reads)


async def test_a_batch_reads_only_its_own_events(rows: Rows, engine: AsyncEngine) -> None:
    tenant_id = await rows.add_tenant()
    await fill(engine, tenant_id)
    # As in a burst, the statistics are older than these events.
    await rows.add_events(*(an_event(tenant_id=tenant_id) for _ in range(2 * positions.BATCH)))
    *_, plan = await plans_of(engine, positions.assign)
    assert sum(rows_read(read) for read in reads_of_events(plan)) == positions.BATCH


async def assign(engine: AsyncEngine, *, limit: int = positions.BATCH) -> int | None:
    async with engine.begin() as connection:
        return await positions.assign(connection, limit=limit)


async def have_positions(rows: Rows, count: int) -> bool:
    return [event.position is not None for event in await rows.events()] == [True] * count


async def fill(engine: AsyncEngine, tenant_id: TenantId) -> None:
    """Add ten thousand events of two weeks, a tenth of them of the tenant, all with a position."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO events (id, position, tenant_id, type, subject, body)"
                " SELECT (left(waybill_first_uuid7(now() + number * interval '1 minute')::text, 20)"
                "         || substr(gen_random_uuid()::text, 21))::uuid,"
                "        nextval('event_positions'),"
                "        CASE number % 10 WHEN 0 THEN :tenant_id ELSE gen_random_uuid() END,"
                "        'upload.stored', '', convert_to(repeat('x', 500), 'UTF8')"
                " FROM generate_series(1, 10000) AS number"
            ),
            {"tenant_id": tenant_id},
        )
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE events"))


async def feed_indexes(engine: AsyncEngine) -> set[str]:
    """Return the names of the partitions' parts of `ix_events_feed`."""
    async with engine.connect() as connection:
        names = await connection.scalars(
            text("SELECT relid::text FROM pg_partition_tree('ix_events_feed') WHERE isleaf")
        )
        return set(names)
