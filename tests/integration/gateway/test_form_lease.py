"""The upload of a form expires soon after the gateway stops reading the form."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from pipeline.maintenance import expiry
from schemas.settings import DatabaseSettings
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Upload
from tests.eventually import eventually
from tests.integration.gateway.api import KIB64, Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve, Start

pytestmark = pytest.mark.anyio

LEASE = timedelta(seconds=2)
HEAD = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
CONTENT = bytes(2 * KIB64)
END = b"\r\n--X--\r\n"
HEADERS = {
    "Content-Type": "multipart/form-data; boundary=X",
    "Content-Length": str(len(HEAD + CONTENT + END)),
}


async def slowly(*, taking: timedelta, pieces: int = 16) -> AsyncIterator[bytes]:
    """Yield a form with equal pauses between the pieces of its file."""
    yield HEAD
    size = len(CONTENT) // pieces
    for start in range(0, len(CONTENT), size):
        await asyncio.sleep(taking.total_seconds() / pieces)
        yield CONTENT[start : start + size]
    yield END


async def submit(api: Api, body: AsyncIterator[bytes]) -> httpx.Response:
    return await api.ask("POST", "/upload-async", content=body, headers=HEADERS)


async def test_a_client_slower_than_the_lease_keeps_its_upload(serve: Serve) -> None:
    async with serve(form_lease=LEASE, chunk_size_default=KIB64) as api:
        answer = await submit(api, slowly(taking=3 * LEASE))

        assert answer.status_code == 202, answer.text
        job = (await api.get(f"/jobs/{answer.json()['job_id']}")).json()
    assert job["bytes_total"] == len(CONTENT)


@pytest.mark.usefixtures("clock_shift")
async def test_a_lease_is_renewed_by_the_clock_of_the_database(serve: Serve) -> None:
    async with serve(form_lease=LEASE, chunk_size_default=KIB64) as api:
        answer = await submit(api, slowly(taking=2 * LEASE))

    assert answer.status_code == 202, answer.text


async def test_a_form_is_read_for_at_most_the_lifetime_of_an_upload(serve: Serve) -> None:
    async with serve(form_lease=LEASE / 2, upload_ttl=LEASE, chunk_size_default=KIB64) as api:
        answer = await submit(api, slowly(taking=3 * LEASE))

    assert problem(answer) == (410, "upload_expired")


async def test_the_reserved_quota_of_a_killed_gateway_is_freed_soon(
    start: Start, make_key: MakeKey, transaction: BeginSession, database: DatabaseSettings
) -> None:
    process = await start(FORM_LEASE=f"{LEASE.total_seconds()}s", CHUNK_SIZE_DEFAULT=str(KIB64))
    async with httpx.AsyncClient(base_url=process.url, timeout=60, trust_env=False) as http:
        api = Api(http, await make_key())
        sending = asyncio.create_task(submit(api, slowly(taking=timedelta(minutes=1))))
        await process.first_logged("chunk.receiving")
        await process.kill()
        with pytest.raises(httpx.TransportError):
            await sending
    async with transaction() as session:
        left = await session.scalar(select(Upload.expires_at - func.now()))
        assert left is not None
        assert left <= LEASE
        reserved = (await session.scalars(select(TenantUsage.open_uploads))).one()
    assert reserved == 1

    engine = create_engine(database.database_url.get_secret_value())

    def swept() -> int:
        with Session(engine) as sweeping, sweeping.begin():
            return len(expiry.expire(sweeping, limit=10))

    await asyncio.to_thread(eventually, swept, until=lambda ended: ended == 1)
    engine.dispose()

    async with transaction() as session:
        usage = (await session.scalars(select(TenantUsage))).one()
    assert (usage.bytes, usage.open_uploads) == (0, 0)
