"""A chunk that a proxy or a client sends again after its upload was finalized."""

import hashlib
import random
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.integration.gateway import workers
from tests.integration.gateway.api import KIB64, Api, content_digest, pieces_of, problem
from tests.integration.gateway.clients.conftest import Gateway

pytestmark = pytest.mark.anyio

CONTENT = random.Random(7).randbytes(2 * KIB64 + 5)
PIECES = pieces_of(CONTENT)

Settle: TypeAlias = Callable[[AsyncSession, str], Awaitable[None]]


async def complete(session: AsyncSession, job_id: str) -> None:
    await workers.store(session, job_id)


async def fail(session: AsyncSession, job_id: str) -> None:
    await workers.fail(session, job_id, code="file_digest_mismatch")


async def assert_answered_as_before(api: Api, upload_id: str) -> None:
    """Send a stored chunk twice more: its own bytes, then other bytes."""
    same = await api.put(upload_id, 1, PIECES[1], content_digest(PIECES[1]))
    other = await api.put(upload_id, 1, PIECES[0])
    damaged = await api.put(upload_id, 1, PIECES[0], content_digest(PIECES[1]))

    sha256 = hashlib.sha256(PIECES[1]).hexdigest()
    assert same.status_code == 200, same.text
    assert same.headers["etag"] == f'"{sha256}"'
    assert same.json() == {
        "upload_id": upload_id,
        "index": 1,
        "size": len(PIECES[1]),
        "sha256": sha256,
    }
    assert problem(other) == (409, "chunk_conflict")
    assert problem(damaged) == (400, "chunk_digest_mismatch")


async def test_a_repeated_chunk_of_a_finalized_upload_gets_its_first_answer(api: Api) -> None:
    upload_id, _ = await api.finalized(CONTENT)

    await assert_answered_as_before(api, upload_id)


@pytest.mark.parametrize("outcome", [complete, fail])
async def test_a_repeated_chunk_gets_its_first_answer_after_its_staged_bytes_are_gone(
    gateway: Gateway, api: Api, outcome: Settle
) -> None:
    upload_id, job_id = await api.finalized(CONTENT)
    async with gateway.transaction() as session:
        await outcome(session, job_id)
    await assert_answered_as_before(api, upload_id)

    (gateway.staging_dir / upload_id).unlink()
    await assert_answered_as_before(api, upload_id)


async def test_a_repeated_chunk_of_a_cancelled_upload_is_refused(api: Api) -> None:
    upload_id, _ = await api.finalized(CONTENT)
    await api.ask("DELETE", f"/uploads/{upload_id}")

    assert problem(await api.put(upload_id, 1, PIECES[1])) == (409, "upload_not_open")
