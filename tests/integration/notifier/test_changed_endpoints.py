"""What the gateway changes of an endpoint applies to the next delivery of a running deliver process."""

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select

from gateway.administration import keys
from gateway.app import create_app
from gateway.settings import Settings
from schemas.api.scopes import Scope
from schemas.lifecycle import DeliveryStatus
from schemas.settings import DatabaseSettings
from schemas.tables.tenants import Tenant
from tests.factories.secret_keys import KEY
from tests.fakes import replies
from tests.fakes.receiver import Received, Receiver
from tests.integration.gateway.api import Api
from tests.integration.gateway.endpoints import change, register, registered
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.conftest import Start
from tests.integration.notifier.process import Process
from tests.integration.notifier.rows import Rows, an_event, eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(database: DatabaseSettings, rows: Rows, tmp_path: Path) -> AsyncIterator[Api]:
    """A client of the tenant acme, with all scopes."""
    settings = database.model_dump() | {
        "staging_dir": tmp_path / "staging",
        "staging_reserve": 0,
        "secret_keys": KEY,
        "webhook_allow_loopback": True,
        "ocr_engine": "none",
    }
    app: Any = create_app(Settings.model_validate(settings))
    async with rows.transaction() as session:
        key = await keys.create(session, tenant="acme", scopes=tuple(Scope), actor="test")
    async with (
        app.lifespan(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://gateway", timeout=60
        ) as http,
    ):
        yield Api(http, key.key)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A gateway, a process that delivers, and a receiver."""

    api: Api
    deliver: Process
    receiver: Receiver
    rows: Rows
    bus: Bus

    async def publish(self) -> None:
        """Publish an event of the tenant."""
        async with self.rows.transaction() as session:
            tenant_id = (await session.scalars(select(Tenant.id))).one()
        await self.bus.publish(an_event(tenant_id=tenant_id))

    async def arrived(self, count: int) -> Received:
        """Wait for the request number `count`, from 1."""
        return (await asyncio.to_thread(self.receiver.wait_for, count))[-1]


@pytest.fixture
async def site(
    api: Api,
    rows: Rows,
    *,
    events_bus: Bus,
    start: Start,
) -> AsyncIterator[Site]:
    deliver = await start("deliver")
    await deliver.until_alive()
    with Receiver() as receiver:
        yield Site(api=api, deliver=deliver, receiver=receiver, rows=rows, bus=events_bus)


def is_signed_by(request: Received, public_key: str) -> bool:
    """Return whether one of the signatures is of the private key, by the rules of `v1a`."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    head = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}."
    for signature in request.headers["webhook-signature"].split():
        version, _, text = signature.partition(",")
        if version == "v1a":
            # Raises InvalidSignature, which fails the test.
            key.verify(base64.b64decode(text), head.encode() + request.body)
            return True
    return False


async def test_a_rotation_applies_to_the_next_delivery(site: Site) -> None:
    created = (await register(site.api, url=site.receiver.url_of("/hook"))).json()
    rotation = f"/webhooks/{created['webhook_id']}/rotate-secret"
    await site.publish()
    (await site.arrived(1)).verified_with(created["secret"])

    rotated = (await site.api.ask("POST", rotation)).json()
    await site.publish()
    both = await site.arrived(2)
    assert len(both.headers["webhook-signature"].split()) == 2
    both.verified_with(created["secret"])
    both.verified_with(rotated["secret"])

    await site.api.ask("POST", rotation, json={"signature": "v1a", "overlap": 0})
    await site.publish()
    asymmetric = await site.arrived(3)
    public = await site.api.http.get(f"/api/v1/webhooks/{created['webhook_id']}/public-key")
    assert len(asymmetric.headers["webhook-signature"].split()) == 1
    assert is_signed_by(asymmetric, public.json()["public_key"])


async def test_url_headers_and_filters_apply_to_the_next_delivery(site: Site) -> None:
    webhook_id = await registered(
        site.api,
        url=site.receiver.url_of("/one"),
        event_types=["upload.*"],
        headers=[{"name": "X-Token", "value": "hunter2"}],
    )
    await site.publish()
    first = await site.arrived(1)
    await change(
        site.api,
        webhook_id,
        url=site.receiver.url_of("/two"),
        headers=[{"name": "X-Token"}, {"name": "X-Team", "value": "billing", "sensitive": False}],
    )
    await site.publish()
    second = await site.arrived(2)
    await change(site.api, webhook_id, event_types=["document.*"])
    await site.publish()
    await change(site.api, webhook_id, event_types=[])
    await site.publish()
    third = await site.arrived(3)

    assert [request.path for request in (first, second, third)] == ["/one", "/two", "/two"]
    assert first.headers["x-token"] == second.headers["x-token"] == "hunter2"
    assert "x-team" not in first.headers
    assert second.headers["x-team"] == "billing"
    assert "hunter2" not in site.deliver.log_file.read_text()


async def test_a_paused_endpoint_gets_its_events_once_it_is_active(site: Site) -> None:
    webhook_id = await registered(site.api, url=site.receiver.url_of("/hook"))
    await change(site.api, webhook_id, state="paused")
    await site.publish()
    await eventually(site.rows.deliveries)
    (delivery,) = await site.rows.deliveries()
    await change(site.api, webhook_id, state="active")
    await site.arrived(1)

    assert (delivery.status, delivery.attempts_made) == (DeliveryStatus.PENDING, 0)
    await eventually(site.rows.everything_is_settled)


async def test_the_deliveries_of_a_deleted_endpoint_are_settled_at_once(site: Site) -> None:
    # Every delivery waits for a retry.
    site.receiver.answer_with(replies.status(500))
    webhook_id = await registered(site.api, url=site.receiver.url_of("/hook"))
    for _ in range(3):
        await site.publish()
    await site.deliver.until(lambda: len(site.deliver.logged("delivery.attempted")) >= 3)

    await site.api.ask("DELETE", f"/webhooks/{webhook_id}")

    await eventually(site.rows.everything_is_settled)
    assert {(each.status, each.reason) for each in await site.rows.deliveries()} == {
        (DeliveryStatus.DISCARDED, "endpoint_deleted")
    }
