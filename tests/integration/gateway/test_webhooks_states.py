"""The states of an endpoint: active, paused, disabled, deleted."""

import asyncio

import pytest
from sqlalchemy import func, select

from gateway.webhooks import change as operations
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Delivery
from schemas.tables.webhooks import Webhook, WebhookSecret
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.endpoints import (
    acts,
    add_deliveries,
    change,
    deliveries,
    disable,
    is_due,
    queue_of,
    register,
    registered,
    set_queue,
    shown,
)

pytestmark = pytest.mark.anyio


async def test_a_paused_endpoint_goes_on_when_it_is_active_again(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api)

    paused = (await change(api, webhook_id, state="paused")).json()
    active = (await change(api, webhook_id, state="active")).json()

    assert (paused["state"], paused["enabled"]) == ("paused", True)
    assert (active["state"], active["enabled"]) == ("active", True)
    assert await is_due(transaction, webhook_id)


async def test_a_disabled_endpoint_is_enabled_without_its_failures(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api)
    await disable(transaction, webhook_id)
    await set_queue(
        transaction,
        webhook_id,
        failing_since=func.now(),
        blocked_until=func.now(),
        throttles=3,
        failures=9,
    )

    first = await api.ask("POST", f"/webhooks/{webhook_id}/enable")
    second = await api.ask("POST", f"/webhooks/{webhook_id}/enable")

    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    view = first.json()
    assert (view["state"], view["enabled"], view["disabled_reason"], view["disabled_at"]) == (
        "active",
        True,
        None,
        None,
    )
    queue = await queue_of(transaction, webhook_id)
    assert (queue.failing_since, queue.blocked_until) == (None, None)
    assert (queue.throttles, queue.failures) == (0, 0)
    assert await is_due(transaction, webhook_id)
    assert await acts(transaction, webhook_id) == [
        ("webhook.created", {}),
        ("webhook.enabled", {}),
    ]


async def test_a_patch_does_not_enable_a_disabled_endpoint(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api)
    await disable(transaction, webhook_id)

    for state in ("active", "paused"):
        answer = await change(api, webhook_id, state=state, description="changed")
        assert problem(answer) == (409, "webhook_disabled")
        assert f"/webhooks/{webhook_id}/enable" in answer.json()["detail"]
    assert problem(await change(api, webhook_id, state="disabled")) == (400, "invalid_request")

    assert (await change(api, webhook_id, description="ours")).json()["state"] == "disabled"
    assert (await shown(api, webhook_id))["description"] == "ours"


async def test_the_repeated_request_of_a_disabled_endpoint_shows_no_secret(
    api: Api, transaction: BeginSession
) -> None:
    key = {"Idempotency-Key": "a"}
    body = {"url": "https://example.com/hook"}
    created = (await api.ask("POST", "/webhooks", json=body, headers=key)).json()
    await disable(transaction, created["webhook_id"])

    answer = (await api.ask("POST", "/webhooks", json=body, headers=key)).json()

    assert (answer["webhook_id"], answer["secret"]) == (created["webhook_id"], None)
    assert (answer["state"], answer["enabled"]) == ("disabled", False)


async def test_a_deleted_endpoint_keeps_no_secret_and_discards_its_deliveries(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api, headers=[{"name": "X-Token", "value": "hunter2"}])
    await add_deliveries(transaction, webhook_id, count=3)
    await add_deliveries(transaction, webhook_id, status=DeliveryStatus.DELIVERED)

    answer = await api.ask("DELETE", f"/webhooks/{webhook_id}")

    assert answer.status_code == 204
    ended = [
        (delivery.status, delivery.reason, delivery.next_attempt_at)
        for delivery in await deliveries(transaction, webhook_id)
    ]
    assert sorted(ended, key=str) == [
        (DeliveryStatus.DELIVERED, None, None),
        *[(DeliveryStatus.DISCARDED, "endpoint_deleted", None)] * 3,
    ]
    assert await is_due(transaction, webhook_id)
    async with transaction() as session:
        assert (await session.scalars(select(WebhookSecret))).all() == []
        assert (await session.scalars(select(Webhook.headers))).one() is None
    assert [action for action, _ in await acts(transaction, webhook_id)] == [
        "webhook.created",
        "webhook.deleted",
    ]


async def test_a_delete_discards_a_bounded_number_of_deliveries(
    api: Api, transaction: BeginSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "DISCARDED_AT_ONCE", 2)
    webhook_id = await registered(api)
    await add_deliveries(transaction, webhook_id, count=3)

    await api.ask("DELETE", f"/webhooks/{webhook_id}")

    statuses = [delivery.status for delivery in await deliveries(transaction, webhook_id)]
    assert sorted(statuses) == ["discarded", "discarded", "pending"]


async def test_a_delete_does_not_wait_for_deliveries_that_are_being_recorded(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api)
    await add_deliveries(transaction, webhook_id, count=2)

    async with transaction() as session, asyncio.timeout(20):
        await session.execute(select(Delivery).limit(1).with_for_update())
        answer = await api.ask("DELETE", f"/webhooks/{webhook_id}")

    assert answer.status_code == 204
    statuses = [delivery.status for delivery in await deliveries(transaction, webhook_id)]
    assert sorted(statuses) == ["discarded", "pending"]


async def test_a_tenant_has_a_bounded_number_of_endpoints(serve: Serve) -> None:
    async with serve(webhook_endpoints_max=3) as api:
        answers = await asyncio.gather(*(register(api) for _ in range(8)))

        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert problem(refused) == (409, "too_many_webhooks")
        assert "3 endpoints" in refused.json()["detail"]
        # Callbacks of uploads do not count.
        assert (await api.create(size=1, callback_url="https://example.com/")).status_code == 201
        created = next(answer for answer in answers if answer.status_code == 201).json()
        await api.ask("DELETE", f"/webhooks/{created['webhook_id']}")
        assert (await register(api)).status_code == 201


async def test_two_gateways_together_keep_the_bound(serve: Serve) -> None:
    async with serve(webhook_endpoints_max=3) as one, serve(webhook_endpoints_max=3) as other:
        answers = await asyncio.gather(*(register(api) for _ in range(4) for api in (one, other)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5


async def test_a_repeated_request_at_the_bound_gets_its_endpoint(serve: Serve) -> None:
    key = {"Idempotency-Key": "a"}
    body = {"url": "https://example.com/hook"}
    async with serve(webhook_endpoints_max=1) as api:
        first = await api.ask("POST", "/webhooks", json=body, headers=key)
        second = await api.ask("POST", "/webhooks", json=body, headers=key)

    assert first.json()["webhook_id"] == second.json()["webhook_id"]
