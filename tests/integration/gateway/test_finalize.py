import asyncio
import hashlib
from typing import Any

import pytest
from sqlalchemy import func, select, update

from schemas import queues
from schemas.events.envelope import decode
from schemas.events.uploads import UploadFinalized
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import KIB64, Api, BeginSession, pieces_of, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.staged import over_both_stagings
from tests.integration.gateway.workers import RESULT, store

pytestmark = [pytest.mark.anyio, over_both_stagings]

CONTENT = b"".join(bytes([number]) * KIB64 for number in range(4)) + b"end"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def declared(content: bytes) -> list[dict[str, Any]]:
    return [
        {"index": index, "size": len(piece), "sha256": hashlib.sha256(piece).hexdigest()}
        for index, piece in enumerate(pieces_of(content))
    ]


async def count_of(transaction: BeginSession, table: type[Job | OutboxMessage]) -> int:
    async with transaction() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_finalize_creates_a_job_and_an_event(api: Api, transaction: BeginSession) -> None:
    upload_id = await api.sent(CONTENT, filename="a.pdf")

    answer = await api.finalize(upload_id, headers={"traceparent": TRACEPARENT})

    assert answer.status_code == 202
    job = answer.json()
    assert (job["upload_id"], job["status"], job["stage"]) == (upload_id, "queued", "transfer")
    assert (job["progress"], job["bytes_total"]) == (0, len(CONTENT))
    assert answer.headers["location"] == job["status_url"] == f"/api/v1/jobs/{job['job_id']}"
    assert int(answer.headers["retry-after"]) > 0
    async with transaction() as session:
        (message,) = (await session.scalars(select(OutboxMessage))).all()
        record = (await session.scalars(select(EventRecord))).one()
        upload = (await session.scalars(select(Upload))).one()
    event = decode(record.body)
    assert (message.event_id, message.queue) == (record.id, queues.UPLOADS)
    assert record.traceparent == TRACEPARENT
    assert (record.upload_id, str(record.job_id)) == (upload.id, job["job_id"])
    assert (event.type, event.subject) == ("upload.finalized", upload_id)
    assert event.tenantid == upload.tenant_id
    assert isinstance(event.data, UploadFinalized)
    assert str(event.data.job_id) == job["job_id"]
    assert (event.data.filename, event.data.size) == ("a.pdf", len(CONTENT))
    assert (upload.status, upload.finalized_at is not None) == ("finalized", True)


async def test_a_malformed_traceparent_is_dropped(api: Api, transaction: BeginSession) -> None:
    upload_id = await api.sent(CONTENT)

    answer = await api.finalize(upload_id, headers={"traceparent": "nonsense"})

    assert answer.status_code == 202
    async with transaction() as session:
        assert (await session.scalars(select(EventRecord.traceparent))).one() is None


async def test_fifty_concurrent_finalizes_create_one_job(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = await api.sent(CONTENT)

    answers = await asyncio.gather(*(api.finalize(upload_id) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert await count_of(transaction, Job) == 1
    assert await count_of(transaction, OutboxMessage) == 1


@pytest.mark.parametrize("status", ["stored", "failed", "cancelled"])
async def test_a_later_finalize_returns_the_same_job(
    api: Api, transaction: BeginSession, status: str
) -> None:
    upload_id, job_id = await api.finalized(CONTENT)
    async with transaction() as session:
        await session.execute(update(Upload).values(status=status))

    answer = await api.finalize(upload_id)

    assert (answer.status_code, answer.json()["job_id"]) == (202, job_id)
    assert await count_of(transaction, OutboxMessage) == 1


async def test_finalize_names_the_missing_chunks(api: Api, transaction: BeginSession) -> None:
    upload_id = await api.created(size=len(CONTENT))
    for index in (0, 3):
        await api.put(upload_id, index, pieces_of(CONTENT)[index])

    answer = await api.finalize(upload_id)

    assert problem(answer) == (409, "upload_incomplete")
    assert "lacks 3 of 5 chunks: 1, 2, 4" in answer.json()["detail"]
    assert await count_of(transaction, Job) == 0
    for index in (1, 2, 4):
        await api.put(upload_id, index, pieces_of(CONTENT)[index])
    assert (await api.finalize(upload_id)).status_code == 202


async def test_the_declared_chunks_must_equal_the_stored_chunks_in_order(api: Api) -> None:
    upload_id = await api.sent(CONTENT)
    chunks = declared(CONTENT)

    for wrong in (
        chunks[::-1],
        chunks[:-1],
        [*chunks, chunks[0]],
        [{**chunks[0], "sha256": "0" * 64}, *chunks[1:]],
        [{**chunks[0], "size": 1}, *chunks[1:]],
        [],
    ):
        assert problem(await api.finalize(upload_id, chunks=wrong)) == (422, "manifest_mismatch")
    assert (await api.finalize(upload_id, chunks=chunks)).status_code == 202


async def test_a_manifest_of_twenty_thousand_chunks_fits_the_body_limit(api: Api) -> None:
    upload_id = await api.sent(CONTENT)
    chunks = [
        {"index": 10_000_000 + index, "size": 10_000_000, "sha256": "0" * 64}
        for index in range(20_000)
    ]

    answer = await api.finalize(upload_id, chunks=chunks)

    assert problem(answer) == (422, "manifest_mismatch")


async def test_a_digest_that_differs_from_the_digest_of_create_is_refused(
    api: Api, transaction: BeginSession
) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    upload_id = await api.sent(CONTENT, sha256=sha256)

    answer = await api.finalize(upload_id, sha256="0" * 64)

    assert problem(answer) == (422, "file_digest_mismatch")
    assert await count_of(transaction, Job) == 0
    assert (await api.finalize(upload_id, sha256=sha256)).status_code == 202


async def test_a_digest_declared_at_finalize_is_stored_for_the_transfer(
    api: Api, transaction: BeginSession
) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    upload_id = await api.sent(CONTENT)

    await api.finalize(upload_id, sha256=sha256)

    async with transaction() as session:
        assert (await session.scalars(select(Upload.sha256))).one() == sha256


async def test_a_digest_declared_after_the_first_finalize_is_refused(api: Api) -> None:
    upload_id = await api.sent(CONTENT)
    first = await api.finalize(upload_id)

    answer = await api.finalize(upload_id, sha256=hashlib.sha256(CONTENT).hexdigest())

    assert problem(answer) == (422, "file_digest_mismatch")
    assert (await api.finalize(upload_id)).json()["job_id"] == first.json()["job_id"]


async def test_a_concurrent_chunk_and_finalize_never_leave_a_missing_chunk(api: Api) -> None:
    for _ in range(10):
        upload_id = await api.created(size=2 * KIB64)
        await api.put(upload_id, 0, bytes(KIB64))

        put, finalize = await asyncio.gather(
            api.put(upload_id, 1, bytes(KIB64)), api.finalize(upload_id)
        )

        assert put.status_code == 200
        stored = await api.stored(upload_id)
        assert finalize.status_code == 409 or stored == [0, 1]


async def test_an_open_upload_has_no_job_status(api: Api) -> None:
    upload_id = await api.created(size=5)

    assert problem(await api.get(f"/uploads/{upload_id}/status")) == (404, "job_not_found")


async def test_a_client_may_wait_for_the_settled_job(
    serve: Serve, transaction: BeginSession
) -> None:
    async def complete(upload_id: str) -> None:
        # The job of this upload: another case has left a completed one.
        made = select(Job.id).where(Job.upload_id == upload_id)
        job_id = None
        while job_id is None:
            await asyncio.sleep(0.1)
            async with transaction() as session:
                job_id = await session.scalar(made)
                if job_id is not None:
                    await store(session, str(job_id))

    cases: tuple[tuple[dict[str, Any], dict[str, str]], ...] = (
        ({}, {"Prefer": "respond-async, wait=20"}),
        ({"uploads_async_enabled": False}, {}),
    )
    for setting, headers in cases:
        async with serve(**setting) as api:
            upload_id = await api.sent(CONTENT)
            async with asyncio.timeout(10):
                answer, _ = await asyncio.gather(
                    api.finalize(upload_id, headers=headers), complete(upload_id)
                )
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["progress"]) == ("completed", 100)
        assert answer.json()["result"] == RESULT
        assert answer.headers.get("preference-applied") == ("wait=20" if headers else None)


async def test_preferences_may_be_sent_on_several_lines(api: Api) -> None:
    upload_id = await api.sent(CONTENT)

    answer = await api.http.post(
        "/api/v1/upload",
        json={"upload_id": upload_id},
        headers=[
            *api.authorization.items(),
            ("Prefer", "respond-async"),
            ("Prefer", "wait=0"),
        ],
    )

    assert answer.headers["preference-applied"] == "respond-async, wait=0"


async def test_a_shorter_preferred_wait_is_honoured(serve: Serve) -> None:
    async with serve(uploads_async_enabled=False) as api:
        upload_id = await api.sent(CONTENT)
        async with asyncio.timeout(10):
            answer = await api.finalize(upload_id, headers={"Prefer": "wait=1"})

    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")


async def test_a_wait_that_ends_before_the_job_settles_is_answered_with_202(serve: Serve) -> None:
    async with serve(wait_max="100ms", sync_wait_max="100ms", uploads_async_enabled=False) as api:
        upload_id = await api.sent(CONTENT)
        async with asyncio.timeout(5):
            answer = await api.finalize(upload_id)

    assert answer.status_code == 202
    assert "retry-after" in answer.headers
