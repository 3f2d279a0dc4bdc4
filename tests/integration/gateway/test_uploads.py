import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from schemas import queues
from schemas.events.envelope import decode
from schemas.events.uploads import UploadCancelled
from schemas.lifecycle import StepStatus
from schemas.steps import StepName
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from schemas.tables.uploads import Chunk, Upload
from tests.factories.jobs import step_update
from tests.integration.gateway.api import KIB64, MIB, Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.staged import Staged, over_both_stagings
from tests.integration.gateway.workers import fail, store

pytestmark = [pytest.mark.anyio, over_both_stagings]


async def test_create_returns_the_chunk_size_and_the_urls(api: Api, staged: Staged) -> None:
    answer = await api.create(
        size=200_000, filename="Ärger ☂.pdf", content_type="application/pdf", metadata={"k": "v"}
    )

    assert answer.status_code == 201
    created = answer.json()
    upload_id = created["upload_id"]
    assert answer.headers["location"] == f"/api/v1/uploads/{upload_id}"
    assert (created["status"], created["chunk_size"], created["chunk_count"]) == ("open", KIB64, 4)
    assert created["chunk_url_template"] == f"/api/v1/uploads/{upload_id}/chunks/{{index}}"
    assert created["finalize_url"] == "/api/v1/upload"
    assert created["status_url"] == f"/api/v1/uploads/{upload_id}/status"
    assert "callback_secret" not in created
    assert staged.count(upload_id) == staged.files_at_creation
    manifest = (await api.get(f"/uploads/{upload_id}")).json()
    assert manifest["filename"] == "Ärger ☂.pdf"
    assert manifest["content_type"] == "application/pdf"
    assert manifest["metadata"] == {"k": "v"}
    assert (manifest["received_bytes"], manifest["chunks"]) == (0, [])


async def test_the_chunk_size_has_a_default(api: Api) -> None:
    answer = await api.ask("POST", "/uploads", json={"filename": "a", "size": 20 * MIB})

    assert (answer.json()["chunk_size"], answer.json()["chunk_count"]) == (8 * MIB, 3)


async def test_a_too_large_file_is_refused(serve: Serve) -> None:
    async with serve(upload_max_size=100) as api:
        assert (await api.create(size=100)).status_code == 201
        assert problem(await api.create(size=101)) == (413, "file_too_large")


async def test_cancelling_an_open_upload_deletes_its_chunks_and_emits_an_event(
    api: Api, staged: Staged, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"x" * 100_000)

    answer = await api.ask("DELETE", f"/uploads/{upload_id}")

    assert answer.status_code == 200
    assert answer.json() == {"upload_id": upload_id, "status": "cancelled", "job_id": None}
    assert staged.count(upload_id) == 0
    async with transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Chunk)) == 0
        (message,) = (await session.scalars(select(OutboxMessage))).all()
        record = (await session.scalars(select(EventRecord))).one()
    event = decode(record.body)
    assert (message.event_id, message.queue) == (record.id, None)
    assert record.type == event.type == "upload.cancelled"
    assert isinstance(event.data, UploadCancelled)
    assert (str(event.data.upload_id), event.data.job_id) == (upload_id, None)
    assert problem(await api.put(upload_id, 0, b"x" * KIB64)) == (409, "upload_not_open")
    assert problem(await api.finalize(upload_id)) == (409, "upload_not_open")


async def test_a_repeated_cancel_returns_the_same_answer_and_emits_no_event(
    api: Api, transaction: BeginSession
) -> None:
    for finalize in (False, True):
        upload_id = await api.sent(b"content")
        if finalize:
            await api.finalize(upload_id)
        first = await api.ask("DELETE", f"/uploads/{upload_id}")
        second = await api.ask("DELETE", f"/uploads/{upload_id}")

        assert first.status_code == second.status_code == 200
        assert first.json() == second.json()
    async with transaction() as session:
        types = (await session.scalars(select(EventRecord.type))).all()
    assert sorted(types) == ["upload.cancelled", "upload.cancelled", "upload.finalized"]


@pytest.mark.parametrize("finalize", [True, False])
async def test_ten_concurrent_cancels_have_the_effect_of_one_cancel(
    api: Api, transaction: BeginSession, *, finalize: bool
) -> None:
    upload_id = await api.sent(b"content")
    if finalize:
        await api.finalize(upload_id)

    answers = await asyncio.gather(*(api.ask("DELETE", f"/uploads/{upload_id}") for _ in range(10)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    async with transaction() as session:
        told = await session.scalar(
            select(func.count()).where(EventRecord.type == "upload.cancelled")
        )
    assert told == 1


@pytest.mark.parametrize("status", [StepStatus.WAITING, StepStatus.QUEUED, StepStatus.RUNNING])
async def test_cancelling_a_finalized_upload_cancels_its_job(
    api: Api, transaction: BeginSession, staged: Staged, status: StepStatus
) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        await session.execute(step_update(job_id, StepName.TRANSFER, status))

    answer = await api.ask("DELETE", f"/uploads/{upload_id}")

    assert answer.json() == {"upload_id": upload_id, "status": "cancelled", "job_id": job_id}
    job = (await api.get(f"/jobs/{job_id}")).json()
    assert job["status"] == "cancelled"
    assert job["finished_at"] is not None
    assert [(step["name"], step["status"]) for step in job["steps"]] == [
        ("transfer", "cancelled"),
        ("cleanup", "queued"),
    ]
    assert staged.count(upload_id) == 1, "a worker may be reading it"
    async with transaction() as session:
        published_to = await session.scalars(
            select(OutboxMessage.queue)
            .join(EventRecord, EventRecord.id == OutboxMessage.event_id)
            .where(EventRecord.type == "upload.cancelled")
        )
        assert set(published_to) == {None, queues.UPLOADS}


@pytest.mark.parametrize("ended", ["completed", "failed", "processing"])
async def test_a_stored_or_failed_upload_cannot_be_cancelled(
    api: Api, transaction: BeginSession, ended: str
) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        if ended == "failed":
            await fail(session, job_id, code="staging_corrupt")
        else:
            await store(session, job_id, will_be_read=ended == "processing")

    answer = await api.ask("DELETE", f"/uploads/{upload_id}")

    assert problem(answer) == (409, "upload_already_settled")
    assert (await api.get(f"/jobs/{job_id}")).json()["status"] == ended


async def test_an_upload_that_a_sweep_expired_is_answered_with_upload_expired(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"content")
    async with transaction() as session:
        await session.execute(update(Upload).values(status="expired"))

    assert problem(await api.finalize(upload_id)) == (410, "upload_expired")
    assert problem(await api.ask("DELETE", f"/uploads/{upload_id}")) == (
        409,
        "upload_already_settled",
    )


async def test_an_expired_upload_accepts_no_chunk_and_no_finalize(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"x" * 2 * KIB64)
    async with transaction() as session:
        await session.execute(
            update(Upload).values(expires_at=Upload.expires_at - timedelta(days=2))
        )

    assert problem(await api.put(upload_id, 0, b"x" * KIB64)) == (410, "upload_expired")
    assert problem(await api.finalize(upload_id)) == (410, "upload_expired")
    assert (await api.ask("DELETE", f"/uploads/{upload_id}")).status_code == 200
