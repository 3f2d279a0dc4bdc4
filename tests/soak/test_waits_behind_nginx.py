"""Waits that are as long as the gateway grants, behind Debian's nginx with its defaults."""

import asyncio
from pathlib import Path

import httpx
import pytest

from schemas.settings import DatabaseSettings
from tests.integration.gateway import workers
from tests.integration.gateway.clients import nginx
from tests.integration.gateway.clients.conftest import running
from tests.integration.gateway.process import api_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

NGINX_TIMEOUT_SECONDS = 60
"""`proxy_read_timeout`: the longest pause of an answer."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_longest_wait_and_an_idle_stream_survive_nginx(
    database: DatabaseSettings, tmp_path: Path
) -> None:
    async with (
        running(database, settings={}, directory=tmp_path) as gateway,
        api_of(gateway.process, gateway.key) as api,
        nginx.in_front_of(gateway.port, directory=tmp_path) as proxy,
        httpx.AsyncClient(base_url=proxy, timeout=120, headers=gateway.authorization) as client,
    ):
        _, job_id = await api.finalized()
        polling = asyncio.create_task(client.get(f"/api/v1/jobs/{job_id}?wait=600"))
        following = asyncio.create_task(client.get(f"/api/v1/jobs/{job_id}/events"))

        polled = await polling
        await asyncio.sleep(NGINX_TIMEOUT_SECONDS - polled.elapsed.total_seconds() + 5)
        async with gateway.transaction() as session:
            await workers.store(session, job_id)
        followed = await following

    assert (polled.status_code, polled.json()["status"]) == (200, "queued")
    assert followed.status_code == 200
    assert "event: completed" in followed.text
