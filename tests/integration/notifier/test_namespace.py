"""A deliver process in a network where every forbidden target exists connects to none of them."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dev.stack.checkout import CHECKOUT
from schemas.settings import BrokerSettings, DatabaseSettings
from tests import namespaces
from tests.factories.secret_keys import KEY
from tests.integration.notifier import namespace_program
from tests.integration.notifier.bus import Bus
from tests.integration.notifier.forwarding import expose
from tests.integration.notifier.rows import Rows, an_event, eventually
from tests.namespaces import PUBLIC
from tests.webhook_urls import LOOPBACK, NOT_PUBLIC, REFUSED

pytestmark = pytest.mark.anyio


def targets() -> tuple[list[str], dict[str, list[str]]]:
    """Return the URLs of forbidden targets, and the addresses of the names in them."""
    names = {f"n{number}.example": [address] for number, address in enumerate(NOT_PUBLIC)}
    names |= {"mixed.example": [PUBLIC, "10.0.0.0"], "public.example": [PUBLIC]}
    # As rows: the gateway would refuse them.
    urls = [url for url, _ in REFUSED if "\0" not in url] + LOOPBACK
    urls += [f"http://{name}:8080/" for name in names if name != "public.example"]
    urls += [
        f"http://[{address}]:8080/" if ":" in address else f"http://{address}:8080/"
        for address in NOT_PUBLIC
    ]
    return urls, {name: [each.partition("%")[0] for each in found] for name, found in names.items()}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What a process in a namespace needs of the services outside."""

    environment: Mapping[str, str]
    forwards: Mapping[int, str]


@pytest.fixture
async def outside(
    database: DatabaseSettings, broker: BrokerSettings, tmp_path: Path
) -> AsyncIterator[Outside]:
    services = {
        "DATABASE_URL": database.database_url.get_secret_value(),
        "RABBITMQ_URL": broker.rabbitmq_url.get_secret_value(),
    }
    forwards = {}
    async with AsyncExitStack() as stack:
        for name, url in services.items():
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            socket = tmp_path / name
            await stack.enter_async_context(expose(parts.hostname, parts.port, at=socket))
            forwards[parts.port] = str(socket)
        yield Outside(
            environment={**services, "SECRET_KEYS": KEY, "PATH": os.defpath + ":/usr/sbin:/sbin"},
            forwards=forwards,
        )


@asynccontextmanager
async def deliver_in_a_namespace(
    outside: Outside, *, names: Mapping[str, list[str]], report: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    options = {"forwards": outside.forwards, "names": names, "report": str(report)}
    process = await asyncio.create_subprocess_exec(
        *(*namespaces.COMMAND, sys.executable, "-m", namespace_program.__name__),
        json.dumps(options),
        cwd=CHECKOUT,
        env=outside.environment,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def test_deliver_connects_to_no_forbidden_target(
    rows: Rows, events_bus: Bus, outside: Outside, tmp_path: Path
) -> None:
    if (reason := namespaces.unavailable()) is not None:
        pytest.skip(reason)
    urls, names = targets()
    tenant_id = await rows.add_tenant()
    for url in [*urls, "http://public.example:8080/", f"http://{PUBLIC}:8080/"]:
        await rows.add_webhook(tenant_id, url=url)
    report = tmp_path / "report.json"
    async with deliver_in_a_namespace(outside, names=names, report=report) as deliver:
        await events_bus.publish(an_event(tenant_id=tenant_id))

        async def every_delivery_is_attempted() -> bool:
            assert deliver.returncode is None
            deliveries = await rows.deliveries()
            attempted = [each for each in deliveries if each.attempts_made]
            return len(attempted) == len(urls) + 2

        await eventually(every_delivery_is_attempted, within=timedelta(minutes=1))
    attempts = await rows.attempts()
    assert {attempt.outcome for attempt in attempts} == {"delivered", "target_refused"}
    refused = [attempt for attempt in attempts if attempt.outcome == "target_refused"]
    # The owner learns why.
    assert all((attempt.error or "").startswith("webhook target refused: ") for attempt in refused)
    assert json.loads(report.read_text(encoding="utf-8")) == {PUBLIC: 2}
