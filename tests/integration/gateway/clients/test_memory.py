"""What stalled clients cost the gateway, and the other clients."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import pytest

from dev.stack.object_store import settings_in
from gateway import db
from gateway.administration import keys
from schemas.api.scopes import Scope
from schemas.lifecycle import StagingKind
from schemas.settings import DatabaseSettings
from tests.integration.gateway.api import KIB64, MIB, Api, problem
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.clients.raw import Connection
from tests.integration.gateway.process import api_of
from tests.integration.gateway.staged import InBucket
from tests.stack import fresh_name

pytestmark = pytest.mark.anyio

BODIES = 200
SENT = 500 * 1024
"""Of each chunk of 1 MiB."""
COST_MAX = BODIES * KIB64 + 24 * MIB
"""The objects of the requests and their connections, and the buffers kept for later bodies."""


@pytest.fixture(scope="module", params=[StagingKind.DIRECTORY, StagingKind.OBJECTS])
def gateway_settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    limits = {"TENANT_BODIES_MAX": str(BODIES)}
    if request.param == StagingKind.DIRECTORY:
        return limits
    bucket = fresh_name()
    request.getfixturevalue("object_store").create_bucket(bucket)
    environment = request.getfixturevalue("buckets").environment
    store = settings_in(environment | {"S3_BUCKET": bucket})
    return limits | InBucket(store, work_dir=tmp_path_factory.mktemp("work")).settings


@pytest.fixture
async def stranger(gateway: Gateway, module_database: DatabaseSettings) -> AsyncIterator[Api]:
    """A client of another tenant."""
    engine = db.build_engine(module_database)
    async with db.Database(engine).transaction() as session:
        created = await keys.create(session, tenant="globex", scopes=tuple(Scope), actor="test")
    await engine.dispose()
    async with api_of(gateway.process, created.key) as stranger:
        yield stranger


@asynccontextmanager
async def stalled(gateway: Gateway, api: Api) -> AsyncIterator[list[Connection]]:
    """Yield connections that sent a part of their chunk, which the gateway has read."""
    upload_id = await api.created(size=BODIES * MIB, chunk_size=MIB)
    received = len(gateway.process.logged("chunk.receiving"))
    async with AsyncExitStack() as stack:
        connections = []
        for index in range(BODIES):
            connection = await stack.enter_async_context(gateway.connect())
            await connection.request(
                "PUT",
                f"/api/v1/uploads/{upload_id}/chunks/{index}",
                f"Content-Length: {MIB}",
                body=bytes(SENT),
            )
            connections.append(connection)
        await gateway.process.logged_times("chunk.receiving", count=received + BODIES)
        yield connections
    async with asyncio.timeout(10):
        while (await api.create(size=KIB64)).status_code == 429:  # noqa: ASYNC110  # a process
            await asyncio.sleep(0.05)


def resident(gateway: Gateway) -> int:
    return int(psutil.Process(gateway.process.process.pid).memory_info().rss)


async def resident_below(gateway: Gateway, limit: int) -> bool:
    """Return whether the memory of the gateway gets below a limit within a few seconds."""
    for _ in range(50):
        if resident(gateway) < limit:
            return True
        await asyncio.sleep(0.1)
    return False


async def warm_up(api: Api) -> None:
    """Send chunks over several connections, so that every thread has started."""
    upload_id = await api.created(size=32 * MIB, chunk_size=MIB)
    answers = await asyncio.gather(*(api.put(upload_id, index, bytes(MIB)) for index in range(32)))
    assert {answer.status_code for answer in answers} == {200}


async def test_a_stalled_body_costs_no_buffer_meanwhile_and_nothing_afterwards(
    gateway: Gateway, api: Api, stranger: Api
) -> None:
    await warm_up(api)
    idle = resident(gateway)

    async with stalled(gateway, api):
        assert await resident_below(gateway, idle + COST_MAX)

        upload_id = await stranger.created(size=KIB64)
        assert (await stranger.put(upload_id, 0, bytes(KIB64))).status_code == 200

    assert await resident_below(gateway, idle + COST_MAX)


async def test_a_stalled_body_that_goes_on_is_stored(gateway: Gateway, api: Api) -> None:
    async with stalled(gateway, api) as connections:
        for connection in connections[:5]:
            connection.writer.write(bytes(MIB - SENT))
            await connection.writer.drain()

            assert (await connection.answer()).status == 200


async def test_bodies_beyond_the_limit_of_a_tenant_are_refused_and_others_are_not(
    gateway: Gateway, api: Api, stranger: Api
) -> None:
    async with stalled(gateway, api):
        mine, other = await api.get("/jobs"), await stranger.created(size=KIB64)
        assert mine.status_code == 200
        refused = await api.create(size=KIB64)

        assert problem(refused) == (429, "too_many_bodies")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await stranger.put(other, 0, bytes(KIB64))).status_code == 200
