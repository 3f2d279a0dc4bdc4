"""Clients that hang up while they wait for a job."""

import asyncio
from random import Random

import pytest

from tests.integration.gateway.api import Api
from tests.integration.gateway.clients.conftest import Gateway

pytestmark = pytest.mark.anyio

CLIENTS = 10
HANG_UPS = 60
"""Of so many some hit the moment in which the gateway reads the job."""


async def test_a_client_that_hangs_up_closes_no_connection_of_the_pool(
    gateway: Gateway, api: Api
) -> None:
    _, job_id = await api.finalized()
    random = Random(7)

    async def hang_up_again_and_again() -> None:
        for _ in range(HANG_UPS):
            async with gateway.connect() as connection:
                path = random.choice(["/events", "?wait=20", ""])
                await connection.request("GET", f"/api/v1/jobs/{job_id}{path}")
                await asyncio.sleep(random.uniform(0, 0.01))

    await asyncio.gather(*(hang_up_again_and_again() for _ in range(CLIENTS)))

    assert (await api.get(f"/jobs/{job_id}")).status_code == 200
    assert "query cancellation interrupted" not in gateway.process.log_file.read_text()
