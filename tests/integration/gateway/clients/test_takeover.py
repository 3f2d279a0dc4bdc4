"""A client that sends a chunk again while its first connection hangs, to one gateway or another."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import text

from dev.stack.object_store import ObjectStore, settings_in
from dev.stack.stack import Stack
from schemas.lifecycle import StagingKind
from schemas.settings import DatabaseSettings
from tests.integration.gateway.api import KIB64, MIB, Api, content_digest, problem
from tests.integration.gateway.clients.conftest import Gateway, running
from tests.integration.gateway.clients.raw import Answer, Connection
from tests.integration.gateway.process import api_of
from tests.integration.gateway.staged import InBucket, InDirectory, Staged
from tests.stack import fresh_name

pytestmark = pytest.mark.anyio

LOCK_WAIT_SECONDS = 4
"""A takeover takes 2.4 s at most on an idle machine; every refusal takes this time."""

OLD = random.Random(1).randbytes(4 * MIB)
NEW = random.Random(2).randbytes(4 * MIB)

over_both_stagings = pytest.mark.parametrize(
    "gateways", [StagingKind.DIRECTORY, StagingKind.OBJECTS], indirect=True, scope="module"
)
in_a_directory = pytest.mark.parametrize(
    "gateways", [StagingKind.DIRECTORY], indirect=True, scope="module"
)
at_the_same_or_another_gateway = pytest.mark.parametrize("place", ["same", "other"])


@dataclass(frozen=True, kw_only=True)
class Gateways:
    """Two gateway processes over one staging, and a client of each."""

    one: Gateway
    other: Gateway
    staged: Staged

    def at(self, place: str) -> Gateway:
        return {"same": self.one, "other": self.other}[place]

    async def put_at_both(self, upload_id: str, content: bytes) -> list[httpx.Response]:
        return await asyncio.gather(
            *(put(gateway, upload_id, content) for gateway in (self.one, self.other))
        )


@pytest.fixture(scope="module")
async def gateways(
    request: pytest.FixtureRequest,
    module_database: DatabaseSettings,
    buckets: Stack,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gateways]:
    directory = tmp_path_factory.mktemp("gateways")
    staged: Staged = InDirectory(directory / "staging")
    if request.param == StagingKind.OBJECTS:
        bucket = fresh_name()
        ObjectStore.from_settings(buckets.environment).create_bucket(bucket)
        store = settings_in(buckets.environment | {"S3_BUCKET": bucket})
        staged = InBucket(store, work_dir=directory / "work")
    settings = {"CHUNK_LOCK_WAIT": f"{LOCK_WAIT_SECONDS}s", **staged.settings}
    async with (
        running(module_database, settings=settings, directory=directory) as one,
        running(module_database, settings=settings, directory=directory) as other,
    ):
        yield Gateways(one=one, other=other, staged=staged)


@pytest.fixture
async def api(gateways: Gateways) -> AsyncIterator[Api]:
    async with api_of(gateways.one.process, gateways.one.key) as api:
        yield api


@dataclass(kw_only=True)
class Sending:
    """A connection that has sent the first bytes of `OLD` for chunk 0, and hangs."""

    connection: Connection
    sent: int

    async def send(self, size: int) -> None:
        """Send the next bytes; the gateway may have closed the connection."""
        with suppress(ConnectionError):
            self.connection.writer.write(OLD[self.sent : self.sent + size])
            self.sent += size
            await self.connection.writer.drain()

    async def send_slowly(self, *, until: int, piece: int, pause: float) -> None:
        while self.sent < until:
            await self.send(min(piece, until - self.sent))
            await asyncio.sleep(pause)


@asynccontextmanager
async def hanging(
    gateway: Gateway, upload_id: str, *, sent: int = 2 * MIB
) -> AsyncIterator[Sending]:
    earlier = len(gateway.process.logged("chunk.receiving"))
    async with gateway.connect() as connection:
        path = f"/api/v1/uploads/{upload_id}/chunks/0"
        await connection.request("PUT", path, f"Content-Length: {len(OLD)}", body=OLD[:sent])
        await gateway.process.logged_times("chunk.receiving", count=earlier + 1)
        yield Sending(connection=connection, sent=sent)


async def put(gateway: Gateway, upload_id: str, content: bytes, index: int = 0) -> httpx.Response:
    async with api_of(gateway.process, gateway.key) as api:
        return await api.put(upload_id, index, content, content_digest(content))


async def assert_takes_over(
    gateways: Gateways, api: Api, upload_id: str, *, place: str, old: Sending
) -> None:
    """Send `NEW` for the chunk that the old connection sends; that connection changes nothing."""
    answer = await put(gateways.at(place), upload_id, NEW)
    assert answer.status_code == 200, answer.text
    if isinstance(gateways.staged, InDirectory):
        ended = await old.connection.answer()
        assert (ended.status, ended.json["code"]) == (423, "chunk_in_progress")
        assert (ended.fields["retry-after"], ended.fields["connection"]) == ("1", "close")
    fingerprint = gateways.staged.fingerprint(upload_id)

    await old.send(len(OLD) - old.sent)
    if isinstance(gateways.staged, InBucket):
        refused = await old.connection.answer()
        assert refused.json["code"] in {"chunk_in_progress", "chunk_conflict"}

    assert gateways.staged.fingerprint(upload_id) == fingerprint
    assert (await api.finalize(upload_id)).status_code == 202
    assert await gateways.staged.chunks(api, upload_id) == {0: NEW}


@over_both_stagings
@at_the_same_or_another_gateway
async def test_a_repeated_chunk_takes_over_from_a_silent_request(
    gateways: Gateways, api: Api, place: str
) -> None:
    upload_id = await api.created(size=len(OLD), chunk_size=len(OLD))
    async with hanging(gateways.one, upload_id) as old:
        await assert_takes_over(gateways, api, upload_id, place=place, old=old)


@over_both_stagings
@at_the_same_or_another_gateway
async def test_a_repeated_chunk_takes_over_from_a_request_that_trickles(
    gateways: Gateways, api: Api, place: str
) -> None:
    upload_id = await api.created(size=len(OLD), chunk_size=len(OLD))
    async with hanging(gateways.one, upload_id) as old:
        trickling = asyncio.create_task(old.send_slowly(until=len(OLD), piece=1, pause=0.05))
        await assert_takes_over(gateways, api, upload_id, place=place, old=old)
        trickling.cancel()


@in_a_directory
async def test_a_request_at_a_good_rate_keeps_its_chunk(gateways: Gateways, api: Api) -> None:
    upload_id = await api.created(size=len(OLD), chunk_size=len(OLD))
    async with hanging(gateways.one, upload_id, sent=0) as old:
        sending = asyncio.create_task(old.send_slowly(until=len(OLD) - 1, piece=KIB64, pause=0.1))
        refused = await gateways.put_at_both(upload_id, NEW)
        await sending
        await old.send(1)

        assert (await old.connection.answer()).status == 200
    assert [problem(answer) for answer in refused] == [(423, "chunk_in_progress")] * 2
    assert [answer.headers["retry-after"] for answer in refused] == ["1", "1"]
    assert await gateways.staged.chunks(api, upload_id) == {0: OLD}


@in_a_directory
async def test_a_request_that_records_its_chunk_is_not_ended(gateways: Gateways, api: Api) -> None:
    upload_id = await api.created(size=len(OLD), chunk_size=len(OLD))
    async with hanging(gateways.one, upload_id, sent=len(OLD) - 1) as old:
        async with gateways.one.transaction() as session:
            await session.execute(
                text("SELECT FROM uploads WHERE id = CAST(:id AS uuid) FOR UPDATE"),
                {"id": upload_id},
            )
            await old.send(1)
            refused = await gateways.put_at_both(upload_id, NEW)

        assert (await old.connection.answer()).status == 200
    assert [problem(answer) for answer in refused] == [(423, "chunk_in_progress")] * 2
    assert problem(await put(gateways.other, upload_id, NEW)) == (409, "chunk_conflict")
    assert await gateways.staged.chunks(api, upload_id) == {0: OLD}


@over_both_stagings
async def test_a_request_that_disconnects_while_it_waits_leaves_the_chunk_free(
    gateways: Gateways, api: Api
) -> None:
    upload_id = await api.created(size=len(OLD), chunk_size=len(OLD))
    path = f"/api/v1/uploads/{upload_id}/chunks/0"
    async with hanging(gateways.one, upload_id):
        async with gateways.one.connect() as waiting:
            await waiting.request("PUT", path, f"Content-Length: {len(NEW)}", body=NEW[:MIB])

        answer = await put(gateways.one, upload_id, NEW)

    assert answer.status_code == 200, answer.text
    assert await gateways.staged.chunks(api, upload_id) == {0: NEW}


@in_a_directory
async def test_a_stopped_gateway_keeps_its_chunk_until_it_continues(
    gateways: Gateways, api: Api
) -> None:
    upload_id = await api.created(size=len(OLD), chunk_size=len(OLD))
    async with hanging(gateways.one, upload_id):
        gateways.one.process.process.send_signal(signal.SIGSTOP)
        refused = await put(gateways.other, upload_id, NEW)
        gateways.one.process.process.send_signal(signal.SIGCONT)

        answer = await put(gateways.other, upload_id, NEW)

    assert problem(refused) == (423, "chunk_in_progress")
    assert answer.status_code == 200, answer.text
    assert await gateways.staged.chunks(api, upload_id) == {0: NEW}


@over_both_stagings
async def test_racing_requests_never_mix_their_bytes(gateways: Gateways, api: Api) -> None:
    """Many first requests continue at about the moment at which they are ended."""
    moments, size = random.Random(3), 4 * KIB64
    contents = [(bytes([2 * n]) * size, bytes([2 * n + 1]) * size) for n in range(40)]
    upload_id = await api.created(size=len(contents) * size, chunk_size=size)

    async def race(index: int, old: bytes, new: bytes) -> tuple[Answer | None, httpx.Response]:
        places = moments.choices((gateways.one, gateways.other), k=2)
        first_bytes, silence = moments.randrange(size), moments.uniform(1.7, 2.5)
        async with places[0].connect() as connection:
            path = f"/api/v1/uploads/{upload_id}/chunks/{index}"
            await connection.request("PUT", path, f"Content-Length: {size}", body=old[:first_bytes])
            newer = asyncio.create_task(put(places[1], upload_id, new, index))
            await asyncio.sleep(silence)
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                connection.writer.write(old[first_bytes:])
                await connection.writer.drain()
                return await connection.answer(), await newer
            return None, await newer

    outcomes = await asyncio.gather(
        *(race(index, old, new) for index, (old, new) in enumerate(contents))
    )

    stored = await gateways.staged.chunks(api, upload_id)
    assert stored.keys() == set(range(len(contents)))
    for index, ((old, new), (first, newer)) in enumerate(zip(contents, outcomes, strict=True)):
        acknowledged = [
            content
            for content, answer in ((old, first and first.status), (new, newer.status_code))
            if answer == 200
        ]
        assert acknowledged == [stored[index]], (index, first, newer.text)
