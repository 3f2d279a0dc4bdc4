"""Faults of staging in a directory: lost files, locks, a full disk."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select

from schemas.tables.uploads import Upload
from tests.integration.gateway.api import KIB64, Api, BeginSession, PausedBody, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.staged import InDirectory

pytestmark = pytest.mark.anyio


def wipe(staging_dir: Path, upload_id: str) -> None:
    (staging_dir / upload_id).unlink()


async def test_a_full_disk_refuses_an_upload_at_create(
    serve: Serve, staged: InDirectory, transaction: BeginSession
) -> None:
    async with serve(staging_reserve=2**60) as api:
        answer = await api.create(size=100, headers={"Idempotency-Key": "k"})

        assert problem(answer) == (507, "staging_full")
    assert staged.files() == {}
    async with transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Upload)) == 0


async def test_a_chunk_never_uses_the_reserve_and_a_stored_chunk_is_still_acknowledged(
    serve: Serve,
) -> None:
    async with serve() as api, serve(staging_reserve=2**60) as full:
        upload_id = await api.created(size=2 * KIB64)
        assert (await api.put(upload_id, 0, bytes(KIB64))).status_code == 200

        refused = await full.put(upload_id, 1, bytes(KIB64))
        again = await full.put(upload_id, 0, bytes(KIB64))

        assert problem(refused) == (507, "staging_full")
        assert again.status_code == 200
        assert (await api.put(upload_id, 1, bytes(KIB64))).status_code == 200


async def test_a_hostile_filename_never_becomes_a_path(api: Api, staged: InDirectory) -> None:
    upload_id = await api.created(size=5, filename="../../../etc/passwd")

    assert list(staged.files()) == [upload_id]
    assert (await api.get(f"/uploads/{upload_id}")).json()["filename"] == "../../../etc/passwd"


async def test_missing_staged_bytes_are_an_error(api: Api, staging_dir: Path) -> None:
    upload_id = await api.created(size=KIB64)
    wipe(staging_dir, upload_id)

    assert problem(await api.put(upload_id, 0, bytes(KIB64))) == (500, "staging_missing")


async def test_a_request_that_waits_too_long_for_a_locked_chunk_is_refused_with_retry_after(
    serve: Serve,
) -> None:
    body = PausedBody(bytes(KIB64))

    async with serve(chunk_lock_wait="50ms") as api:
        upload_id = await api.created(size=2 * KIB64)
        first = asyncio.create_task(api.put(upload_id, 0, body))
        await body.has_started.wait()

        refused = await api.put(upload_id, 0, bytes(KIB64))
        neighbour = await api.put(upload_id, 1, bytes(KIB64))
        body.may_continue.set()

        assert problem(refused) == (423, "chunk_in_progress")
        assert refused.headers["retry-after"] == "1"
        assert neighbour.status_code == 200
        assert (await first).status_code == 200
        assert (await api.put(upload_id, 0, bytes(KIB64))).status_code == 200


async def test_a_hanging_request_does_not_delay_the_refusal_of_another_request(
    serve: Serve,
) -> None:
    body = PausedBody(bytes(KIB64))

    async with serve(chunk_lock_wait="20s") as api:
        upload_id = await api.created(size=KIB64)
        first = asyncio.create_task(api.put(upload_id, 0, body))
        await body.has_started.wait()
        await api.ask("DELETE", f"/uploads/{upload_id}")

        async with asyncio.timeout(5):
            refused = await api.put(upload_id, 0, bytes(KIB64))
        body.may_continue.set()

        assert problem(refused) == (409, "upload_not_open")
        assert problem(await first) == (409, "upload_not_open")
