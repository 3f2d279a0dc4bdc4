"""Events of tenants with many endpoints, which get their deliveries in parts."""

import runpy
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

import schemas
from notifier.delivery.statements import fan_out, intake
from notifier.delivery.store import DatabaseStore
from schemas.events.examples import example_of
from schemas.ids import TenantId, WebhookId
from schemas.lifecycle import BatchEvents
from schemas.settings import DatabaseSettings
from tests.integration.notifier.dispatchers import RunDispatcher
from tests.integration.notifier.rows import Rows, an_event, engine_of, eventually, received
from tests.integration.notifier.stores import lose_answer, process
from tests.integration.notifier.test_store import events_of_upload, load_all

pytestmark = pytest.mark.anyio

ENDPOINTS = intake.DELIVERIES_MAX + 100
VERSIONS = Path(schemas.__path__[0]) / "migrations" / "versions"
PARTS = -(-ENDPOINTS // fan_out.PART)


@pytest.fixture
async def engine(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    async with engine_of(database) as engine:
        yield engine


@pytest.fixture
async def store(database: DatabaseSettings, engine: AsyncEngine) -> AsyncIterator[DatabaseStore]:
    async with process(database, engine) as store:
        yield store


async def a_crowd(rows: Rows, *, endpoints: int = ENDPOINTS) -> TenantId:
    """Add a tenant with many endpoints."""
    tenant_id = await rows.add_tenant()
    await rows.execute(
        "INSERT INTO webhooks (id, tenant_id, url)"
        " SELECT gen_random_uuid(), :tenant_id, 'http://127.0.0.1:9/' FROM generate_series(1, :endpoints)",
        tenant_id=tenant_id,
        endpoints=endpoints,
    )
    return tenant_id


async def test_an_event_to_many_endpoints_gets_its_deliveries_in_parts(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await a_crowd(rows)
    disabled = (await rows.queues())[0].webhook_id
    await rows.execute("UPDATE webhooks SET disabled_at = now() WHERE id = :id", id=disabled)
    event = an_event(tenant_id=tenant_id)
    recorded = await store.record_events([received(event)])
    assert (recorded.has_fan_outs, recorded.due) == (True, [])

    for part in range(1, PARTS + 1):
        assert await store.fan_out(after=None) == tenant_id
        ledger = await rows.ledger(tenant_id)
        assert ledger.published == min(part * fan_out.PART, ENDPOINTS)
        assert ledger.difference == 0
        assert ledger.waiting == (part < PARTS)

    assert await store.fan_out(after=None) is None
    assert (ledger.pending, ledger.discarded) == (ENDPOINTS - 1, 1)
    assert {queue.webhook_id for queue in await rows.queues() if queue.due_at is None} == {disabled}
    assert (await store.record_events([received(event)])).repeated == 1
    assert await store.fan_out(after=None) is None


async def test_an_event_of_a_document_of_a_batch_without_such_events_gets_no_delivery(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await a_crowd(rows)
    _, of_line = await rows.add_batch(tenant_id, events=BatchEvents.BATCH)
    stored = msgspec.structs.replace(example_of("upload.stored"), job_id=of_line)
    await store.record_events([received(an_event(tenant_id=tenant_id, data=stored))])

    while await store.fan_out(after=None) is not None:
        pass

    assert (await rows.ledger(tenant_id)).published == 0


async def test_a_part_whose_answer_is_lost_is_added_once(
    rows: Rows, store: DatabaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = await a_crowd(rows)
    await store.record_events([received(an_event(tenant_id=tenant_id))])
    lose_answer(monkeypatch)
    with pytest.raises(psycopg.OperationalError):
        await store.fan_out(after=None)
    while await store.fan_out(after=None):
        pass
    ledger = await rows.ledger(tenant_id)
    assert (ledger.published, ledger.pending) == (ENDPOINTS, ENDPOINTS)


async def test_tenants_take_turns(rows: Rows, store: DatabaseStore) -> None:
    tenants = sorted([await a_crowd(rows), await a_crowd(rows)])
    await store.record_events(
        [received(an_event(tenant_id=tenant_id)) for tenant_id in tenants for _ in range(2)]
    )
    served = [await store.fan_out(after=None)]
    for _ in range(2):
        served.append(await store.fan_out(after=served[-1]))
    assert served == [*tenants, None]


async def test_a_downgrade_adds_the_deliveries_that_are_left(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await a_crowd(rows)
    await store.record_events([received(an_event(tenant_id=tenant_id))])
    await store.fan_out(after=None)
    migration = runpy.run_path(str(VERSIONS / "0018_fan_outs.py"))
    await rows.execute(migration["FINISH"])
    ledger = await rows.ledger(tenant_id)
    assert (ledger.published, ledger.pending) == (ENDPOINTS, ENDPOINTS)
    assert {queue.due_at is None for queue in await rows.queues()} == {False}


async def test_events_to_few_endpoints_get_their_deliveries_at_once(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await a_crowd(rows, endpoints=intake.FEW_ENDPOINTS)
    group = [received(an_event(tenant_id=tenant_id)) for _ in range(150)]
    recorded = await store.record_events(group)
    assert not recorded.has_fan_outs
    assert len(recorded.due) == 150 * intake.FEW_ENDPOINTS


async def test_an_ordered_endpoint_waits_for_an_event_that_is_being_fanned_out(
    rows: Rows, store: DatabaseStore
) -> None:
    tenant_id = await a_crowd(rows)
    webhook_id = WebhookId(max(queue.webhook_id for queue in await rows.queues()))
    await rows.execute("UPDATE webhooks SET ordered = true WHERE id = :id", id=webhook_id)
    # Older than the time that an ordered delivery waits for an event that has not arrived.
    stored, ingested = events_of_upload(tenant_id, since=datetime.now(UTC) - timedelta(minutes=5))
    await rows.add_events(stored, ingested)
    await rows.execute("UPDATE events SET created_at = now() - interval '5 minutes'")
    await store.record_events([received(stored)])
    await store.record_events([received(ingested)])
    async with rows.transaction() as session:
        # Another process is at work on the earlier event.
        await session.execute(
            text("SELECT FROM fan_outs WHERE event_id = :id FOR UPDATE"), {"id": stored.id}
        )
        while await store.fan_out(after=None):
            pass
    await store.take(limit=ENDPOINTS)
    assert await load_all(store, webhook_id) == []
    while await store.fan_out(after=None):
        pass
    await rows.execute("UPDATE deliveries SET next_attempt_at = now() WHERE ordered")
    assert [delivery.event_id for delivery in await load_all(store, webhook_id)] == [stored.id]


async def test_a_dispatcher_delivers_an_event_to_many_endpoints(
    rows: Rows, run_dispatcher: RunDispatcher
) -> None:
    tenant_id = await a_crowd(rows)
    # The endpoints have no secret, so that nothing is sent: the attempts are recorded as failures.
    async with run_dispatcher() as dispatcher:
        await dispatcher.record_events([received(an_event(tenant_id=tenant_id))])

        async def attempted() -> bool:
            ledger = await rows.ledger(tenant_id)
            return ledger.published == ENDPOINTS and len(await rows.attempts()) >= ENDPOINTS

        await eventually(attempted, within=timedelta(seconds=60))
