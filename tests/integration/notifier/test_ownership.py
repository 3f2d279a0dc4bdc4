"""Which process owns a queue: two processes at once, processes that die, and answers that are lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import TypeAlias

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from structlog.testing import capture_logs

from notifier.delivery.statements import ownership
from notifier.delivery.store import DatabaseStore
from notifier.delivery.work import DueDelivery
from schemas.ids import DeliveryId, WebhookId
from schemas.lifecycle import DeliveryStatus
from schemas.settings import DatabaseSettings
from tests.integration.notifier.rows import Rows, an_event, engine_of, eventually, received
from tests.integration.notifier.stores import failed, finished, ids_of, lose_answer, process

pytestmark = pytest.mark.anyio

SOON = timedelta(minutes=5)

Pair: TypeAlias = tuple[DatabaseStore, DatabaseStore]


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    async with engine_of(database) as engine:
        yield engine


@pytest.fixture
async def pair(database: DatabaseSettings, engine: AsyncEngine) -> AsyncIterator[Pair]:
    """Two living processes."""
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(process(database, engine)) for _ in range(2)
        ]
        yield first, second


@asynccontextmanager
async def in_between(rows: Rows) -> AsyncIterator[AsyncSession]:
    """A transaction of another process, which is committed at the end of the block."""
    async with rows.transaction() as session:
        yield session


async def is_waiting_for_a_lock(rows: Rows) -> bool:
    async with rows.transaction() as session:
        waiting = await session.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
    return bool(waiting)


async def end_of(rows: Rows, store: DatabaseStore) -> None:
    """Let the lease of a process run out."""
    await rows.execute(
        "UPDATE deliverers SET alive_until = now() - interval '1 second' WHERE id = :id",
        id=store.owner,
    )


async def own_queue(rows: Rows, store: DatabaseStore) -> tuple[WebhookId, list[DueDelivery]]:
    """Add an endpoint with a delivery whose queue a process owns."""
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    recorded = await store.record_events([received(an_event(tenant_id=tenant_id))])
    assert str((await rows.queue(webhook_id)).owner) == store.owner
    return webhook_id, list(recorded.due)


async def test_deliveries_for_another_process_are_found_by_the_owner(
    rows: Rows, pair: Pair
) -> None:
    owner, other = pair
    webhook_id, known = await own_queue(rows, owner)
    tenant_id = (await rows.queue(webhook_id)).tenant_id
    recorded = await other.record_events([received(an_event(tenant_id=tenant_id))])
    assert (recorded.due, recorded.taken, recorded.unread) == ([], [], set())
    assert (await rows.queue(webhook_id)).due_at is not None
    assert await other.take(limit=10) == []
    (taken,) = await owner.take(limit=10)
    assert taken.webhook_id == webhook_id
    assert (await rows.queue(webhook_id)).due_at is None
    loaded = await owner.load({webhook_id: ids_of(known)}, limit=10)
    assert len(loaded.due) == 1
    assert (await other.load({webhook_id: ()}, limit=10)).lost == {webhook_id}


async def test_a_queue_that_gets_a_delivery_is_not_given_back(rows: Rows, pair: Pair) -> None:
    owner, other = pair
    webhook_id, (delivery,) = await own_queue(rows, owner)
    await owner.record([finished(delivery)])
    async with in_between(rows) as session:
        # As another process that has recorded an event, and has not committed.
        await session.execute(text("UPDATE delivery_queues SET due_at = now()"))
        releasing = asyncio.create_task(owner.release([webhook_id]))
        await eventually(partial(is_waiting_for_a_lock, rows))
    assert await releasing == set()
    assert [state.webhook_id for state in await owner.take(limit=10)] == [webhook_id]
    assert await other.take(limit=10) == []


async def test_a_delivery_for_a_queue_that_is_being_given_back_is_attempted_by_the_next_owner(
    rows: Rows, pair: Pair
) -> None:
    owner, other = pair
    webhook_id, (delivery,) = await own_queue(rows, owner)
    tenant_id = delivery.tenant_id
    await owner.record([finished(delivery)])
    async with in_between(rows) as session:
        # As the owner that gives the queue back, and has not committed.
        await session.execute(text("UPDATE delivery_queues SET owner = NULL, due_at = NULL"))
        recording = asyncio.create_task(
            other.record_events([received(an_event(tenant_id=tenant_id))])
        )
        await eventually(partial(is_waiting_for_a_lock, rows))
    recorded = await recording
    assert [state.webhook_id for state in recorded.taken] == [webhook_id]
    assert len(recorded.due) == 1
    assert str((await rows.queue(webhook_id)).owner) == other.owner
    assert await owner.release([webhook_id]) == {webhook_id}
    assert str((await rows.queue(webhook_id)).owner) == other.owner


async def test_an_endpoint_that_is_activated_while_its_event_is_recorded_gets_it(
    rows: Rows, pair: Pair
) -> None:
    store, _ = pair
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    await rows.execute("UPDATE webhooks SET paused_at = now()")
    async with in_between(rows) as session:
        await session.execute(text("UPDATE webhooks SET paused_at = NULL"))
        await session.execute(text("UPDATE delivery_queues SET due_at = now()"))
        recording = asyncio.create_task(
            store.record_events([received(an_event(tenant_id=tenant_id))])
        )
        await eventually(partial(is_waiting_for_a_lock, rows))
    recorded = await recording
    assert [delivery.webhook_id for delivery in recorded.due] == [webhook_id]
    assert recorded.unread == {webhook_id}


async def test_a_process_takes_the_queues_of_one_that_died(rows: Rows, pair: Pair) -> None:
    dead, living = pair
    webhook_id, _ = await own_queue(rows, dead)
    assert await living.keep_alive()
    assert await living.take(limit=10) == []
    await end_of(rows, dead)
    assert await living.keep_alive()
    (taken,) = await living.take(limit=10)
    assert taken.webhook_id == webhook_id
    assert len((await living.load({webhook_id: ()}, limit=10)).due) == 1
    former = dead.owner
    assert not await dead.keep_alive()
    assert dead.owner != former
    assert (await dead.load({webhook_id: ()}, limit=10)).lost == {webhook_id}
    assert await dead.keep_alive()


async def test_a_renewal_that_commits_in_time_keeps_the_queues(rows: Rows, pair: Pair) -> None:
    late, other = pair
    webhook_id, _ = await own_queue(rows, late)
    await end_of(rows, late)
    async with in_between(rows) as session:
        await session.execute(
            text("UPDATE deliverers SET alive_until = now() + interval '5 s' WHERE id = :id"),
            {"id": late.owner},
        )
        # It does not wait: a process that is late itself must not be kept from its own proof.
        assert await other.keep_alive()
    assert await other.keep_alive()
    assert str((await rows.queue(webhook_id)).owner) == late.owner
    assert await late.keep_alive()


async def test_a_process_that_counts_as_dead_records_for_the_others(rows: Rows, pair: Pair) -> None:
    dead, living = pair
    webhook_id, (delivery,) = await own_queue(rows, dead)
    unowned = await rows.add_webhook(delivery.tenant_id)
    await end_of(rows, dead)
    assert await living.keep_alive()
    recorded = await dead.record_events([received(an_event(tenant_id=delivery.tenant_id))])
    assert (recorded.due, recorded.taken) == ([], [])
    assert await dead.take(limit=10) == []
    assert {state.webhook_id for state in await living.take(limit=10)} == {webhook_id, unowned}
    loaded = await living.load({webhook_id: (), unowned: ()}, limit=10)
    assert len(loaded.due) == 3


async def test_a_dead_process_hears_of_it_even_if_its_registration_fails_at_first(
    rows: Rows, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = pair
    await rows.execute("UPDATE deliverers SET ended_at = now() WHERE id = :id", id=store.owner)
    original = ownership.register

    async def fail(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(ownership, "register", fail)
    with pytest.raises(psycopg.OperationalError):
        await store.keep_alive()
    monkeypatch.setattr(ownership, "register", original)
    assert not await store.keep_alive()
    assert await store.keep_alive()


async def test_a_queue_that_a_dead_process_took_late_is_freed(rows: Rows, pair: Pair) -> None:
    dead, living = pair
    webhook_id, _ = await own_queue(rows, dead)
    former = dead.owner
    await end_of(rows, dead)
    assert await living.keep_alive()
    # A statement that began before the end of its process commits after it.
    await rows.execute("UPDATE delivery_queues SET owner = :owner, due_at = NULL", owner=former)
    assert await living.take(limit=10) == []
    assert await living.keep_alive()
    assert [state.webhook_id for state in await living.take(limit=10)] == [webhook_id]


async def test_a_process_that_leaves_states_when_its_queues_are_due(rows: Rows, pair: Pair) -> None:
    leaving, other = pair
    now = datetime.now(UTC)
    done, (settled,) = await own_queue(rows, leaving)
    retried, (delivery,) = await own_queue(rows, leaving)
    waiting, _ = await own_queue(rows, leaving)
    paused, _ = await own_queue(rows, leaving)
    blocked, _ = await own_queue(rows, leaving)
    await leaving.record([finished(settled), failed(delivery, retry=now + SOON)])
    await rows.execute("UPDATE webhooks SET paused_at = now() WHERE id = :id", id=paused)
    await rows.execute(
        "UPDATE delivery_queues SET blocked_until = :until WHERE webhook_id = :id",
        until=now + 2 * SOON,
        id=blocked,
    )
    await leaving.leave()
    queues = {queue.webhook_id: queue for queue in await rows.queues()}
    assert {queue.owner for queue in queues.values()} == {None}
    assert (queues[done].due_at, queues[paused].due_at) == (None, None)
    assert queues[retried].due_at == now + SOON
    assert queues[blocked].due_at == now + 2 * SOON
    assert [state.webhook_id for state in await other.take(limit=10)] == [waiting]


@pytest.mark.parametrize("has_owner", [False, True], ids=["no owner", "owner that missed it"])
async def test_a_delivery_that_nobody_looks_for_is_found(
    rows: Rows, pair: Pair, *, has_owner: bool
) -> None:
    store, other = pair
    webhook_id, _ = await own_queue(rows, store)
    paused, _ = await own_queue(rows, store)
    idle = await rows.add_webhook(await rows.add_tenant())
    await rows.execute("UPDATE webhooks SET paused_at = now() WHERE id = :id", id=paused)
    await rows.execute("UPDATE deliveries SET next_attempt_at = now() - interval '1 minute'")
    if not has_owner:
        await rows.execute("UPDATE delivery_queues SET owner = NULL")
    with capture_logs() as logs:
        await other.remind()
    assert [line["queues"] for line in logs] == [1]
    queues = {queue.webhook_id: queue.due_at for queue in await rows.queues()}
    assert queues[webhook_id] is not None
    assert (queues[paused], queues[idle]) == (None, None)
    assert [state.webhook_id for state in await store.take(limit=10)] == [webhook_id]


async def test_an_attempt_of_a_former_owner_is_not_recorded(rows: Rows, pair: Pair) -> None:
    former, owner = pair
    webhook_id, (delivery,) = await own_queue(rows, former)
    await end_of(rows, former)
    await owner.keep_alive()
    await owner.take(limit=1)
    (again,) = (await owner.load({webhook_id: ()}, limit=1)).due
    assert again.delivery_id == delivery.delivery_id
    assert await owner.record([failed(again, retry=datetime.now(UTC) + SOON)])
    assert await former.record([finished(delivery)]) == set()
    (row,) = await rows.deliveries()
    assert (row.status, row.attempts_made) == ("pending", 1)
    assert len(await rows.attempts()) == 1


async def test_a_group_whose_answer_is_lost_is_loaded_when_it_is_repeated(
    rows: Rows, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = pair
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    group = [received(an_event(tenant_id=tenant_id)) for _ in range(3)]
    lost = lose_answer(monkeypatch)
    with pytest.raises(psycopg.OperationalError):
        await store.record_events(group)
    assert lost() == 1
    recorded = await store.record_events(group)
    assert (recorded.repeated, recorded.due, recorded.unread) == (3, [], {webhook_id})
    assert len((await store.load({webhook_id: ()}, limit=10)).due) == 3


async def test_a_queue_that_a_group_took_without_an_answer_is_returned_by_the_next_look(
    rows: Rows, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = pair
    tenant_id = await rows.add_tenant()
    webhook_id = await rows.add_webhook(tenant_id)
    assert await store.take(limit=10) == []
    lose_answer(monkeypatch)
    with pytest.raises(psycopg.OperationalError):
        await store.record_events([received(an_event(tenant_id=tenant_id))])
    assert [state.webhook_id for state in await store.take(limit=10)] == [webhook_id]
    assert await store.take(limit=10) == []


async def test_queues_whose_taking_lost_its_answer_are_returned_by_the_next(
    rows: Rows, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = pair
    webhook_id, _ = await own_queue(rows, other)
    await other.leave()
    lose_answer(monkeypatch)
    with pytest.raises(psycopg.OperationalError):
        await store.take(limit=10)
    assert str((await rows.queue(webhook_id)).owner) == store.owner
    assert [state.webhook_id for state in await store.take(limit=10)] == [webhook_id]


async def test_recording_and_giving_back_may_be_repeated_after_a_lost_answer(
    rows: Rows, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = pair
    webhook_id, (delivery,) = await own_queue(rows, store)
    attempts = [finished(delivery)]
    lose_answer(monkeypatch)
    with pytest.raises(psycopg.OperationalError):
        await store.record(attempts)
    assert await store.record(attempts) == {delivery.delivery_id}
    assert len(await rows.attempts()) == 1
    lose_answer(monkeypatch)
    with pytest.raises(psycopg.OperationalError):
        await store.release([webhook_id])
    assert await store.release([webhook_id]) == {webhook_id}


async def test_two_processes_deliver_every_event_once_to_each_endpoint(
    rows: Rows, pair: Pair
) -> None:
    """Both record the same events in another order, take and give back queues, and fail at random."""
    tenants = [await rows.add_tenant() for _ in range(3)]
    webhooks = [await rows.add_webhook(tenant_id) for tenant_id in tenants for _ in range(3)]
    events = [an_event(tenant_id=tenants[number % 3]) for number in range(150)]
    delivered: Counter[DeliveryId] = Counter()
    is_done = asyncio.Event()

    async def work(store: DatabaseStore, *, seed: int) -> None:
        random = Random(seed)
        mine = random.sample(events, len(events))
        while not is_done.is_set():
            due: list[DueDelivery] = []
            group, mine = mine[:20], mine[20:]
            if group:
                recorded = await store.record_events([received(event) for event in group])
                due += recorded.due
            await store.keep_alive()
            await store.take(limit=5)
            loaded = await store.load({each: ids_of(due) for each in webhooks}, limit=50)
            due += loaded.due
            attempts = [
                failed(each, retry=datetime.now(UTC)) if random.random() < 0.2 else finished(each)
                for each in due
            ]
            done = await store.record(attempts) if attempts else ()
            for each in attempts:
                if (
                    each.delivery.delivery_id in done
                    and each.settlement.status is DeliveryStatus.DELIVERED
                ):
                    delivered[each.delivery.delivery_id] += 1
            if random.random() < 0.5:
                await store.release(random.sample(webhooks, 4))
            if len(delivered) == 3 * len(events) and not mine:
                is_done.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for seed, store in enumerate(pair):
            group.create_task(work(store, seed=seed))
    assert len(delivered) == 450
    assert set(delivered.values()) == {1}
    assert all(delivery.status == "delivered" for delivery in await rows.deliveries())
    for tenant_id in tenants:
        ledger = await rows.ledger(tenant_id)
        assert (ledger.published, ledger.delivered, ledger.difference) == (150, 150, 0)
