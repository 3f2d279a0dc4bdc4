"""The health of an endpoint, from its last attempts."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from gateway.webhooks import health
from schemas.lifecycle import DeliveryStatus
from tests.integration.gateway.api import Api, BeginSession
from tests.integration.gateway.endpoints import add_deliveries, registered, set_queue, shown

pytestmark = pytest.mark.anyio

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


async def test_health_shows_successes_latency_and_the_last_error(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api)
    for number in range(20):
        await add_deliveries(
            transaction,
            webhook_id,
            status=DeliveryStatus.DELIVERED,
            attempts=[
                {
                    "started_at": START + timedelta(seconds=number),
                    "duration_us": (number + 1) * 1_500,
                    "outcome": "delivered",
                    "status_code": 200,
                }
            ],
        )
    await add_deliveries(
        transaction,
        webhook_id,
        attempts=[
            {
                "started_at": START + timedelta(minutes=1),
                "duration_us": 20_000_000,
                "outcome": "timed_out",
                "error": "no answer within 20 s",
            },
            {
                "started_at": START + timedelta(minutes=2),
                "duration_us": 300,
                "outcome": "throttled",
                "status_code": 503,
            },
        ],
    )
    await set_queue(
        transaction,
        webhook_id,
        failing_since=START + timedelta(minutes=1),
        blocked_until=START + timedelta(hours=1),
    )

    found = (await shown(api, webhook_id))["health"]

    assert found == {
        "attempts": 22,
        "success_share": pytest.approx(20 / 22),
        # The attempt that timed out was not answered.
        "latency_p95_ms": 28.5,
        "last_error": {
            "at": "2026-11-20T12:02:00Z",
            "outcome": "throttled",
            "status_code": 503,
            "error": None,
        },
        "last_delivered_at": "2026-11-20T12:00:19Z",
        "backlog": 1,
        "failing_since": "2026-11-20T12:01:00Z",
        "blocked_until": "2026-11-20T13:00:00Z",
    }


async def test_failures_are_seen_behind_a_long_backlog(
    api: Api, transaction: BeginSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ATTEMPTS", 5)
    monkeypatch.setattr(health, "BACKLOG_MAX", 8)
    webhook_id = await registered(api)
    await add_deliveries(
        transaction,
        webhook_id,
        count=2,
        attempts=[{"outcome": "timed_out", "error": "no answer within 20 s"}],
    )
    async with transaction() as session:
        # Later events, which no attempt is made for yet, have later ids.
        await session.execute(
            text(
                "INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, status)"
                " SELECT ('ffffffff-ffff-4fff-bfff-' || lpad(n::text, 12, '0'))::uuid, tenant_id, id,"
                " gen_random_uuid(), 'upload.stored', 'pending'"
                " FROM webhooks CROSS JOIN generate_series(1, 20) AS n"
            )
        )

    found = (await shown(api, webhook_id))["health"]

    assert (found["attempts"], found["success_share"], found["backlog"]) == (2, 0.0, 8)
    assert found["last_error"]["outcome"] == "timed_out"


async def test_the_cost_of_health_does_not_grow_with_the_log(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api)
    async with transaction() as session:
        await session.execute(
            text(
                """
                INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, status, attempts_made, next_attempt_at)
                SELECT gen_random_uuid(), tenant_id, id, gen_random_uuid(), 'upload.stored', status, attempts, now()
                FROM webhooks CROSS JOIN generate_series(1, 20000)
                CROSS JOIN (VALUES ('delivered', 1), ('pending', 0), ('pending', 1)) AS kinds (status, attempts)
                """
            )
        )
        await session.execute(
            text(
                "INSERT INTO attempts (delivery_id, number, started_at, duration_us, outcome)"
                " SELECT id, 1, now(), 1000, 'delivered' FROM deliveries WHERE attempts_made = 1"
            )
        )
    async with transaction() as session:
        await session.execute(text("ANALYZE deliveries, attempts, delivery_queues"))
        await session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        statement = health.HEALTH
        for name in ("webhook_id", "attempts", "delivered", "backlog"):
            statement = statement.replace(f"%({name})s", f":{name}")
        plan = (
            await session.execute(
                text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"),
                {
                    "webhook_id": webhook_id,
                    "attempts": health.ATTEMPTS,
                    "delivered": "delivered",
                    "backlog": 1_000,
                },
            )
        ).scalar_one()[0]["Plan"]

    assert (await shown(api, webhook_id))["health"]["backlog"] == 1_000
    # 60,000 deliveries and 40,000 attempts have more than 1,500 pages.
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 1_500
