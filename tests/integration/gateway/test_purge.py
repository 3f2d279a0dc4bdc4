import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete, func, select

from schemas.events.envelope import decode
from schemas.events.uploads import UploadCancelled
from schemas.ids import DocumentId, JobId, RevisionId, TenantId, UploadId
from schemas.lifecycle import StepStatus
from schemas.steps import StepName
from schemas.tables.documents import Document, Entity, Page, Revision
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Upload
from tests.factories.jobs import step_update
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve

pytestmark = pytest.mark.anyio

COMPLETED = "completed"
FAILED = "failed"
READING = "processing"


async def purge(api: Api, upload_id: str) -> httpx.Response:
    return await api.ask("DELETE", f"/uploads/{upload_id}", params={"purge": "true"})


async def stored(api: Api, transaction: BeginSession, *, status: str) -> tuple[str, str]:
    """Add an upload that is stored, and whose job has the given status."""
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        await workers.store(session, job_id, will_be_read=status != COMPLETED)
        if status == READING:
            await session.execute(step_update(job_id, StepName.INGEST, StepStatus.RUNNING))
        if status == FAILED:
            await workers.fail(session, job_id, name=StepName.INGEST, code="document_corrupt")
        tenant_id = (await session.scalars(select(Upload.tenant_id))).one()
        document_id, revision_id = DocumentId(uuid4()), RevisionId(uuid4())
        session.add(
            Document(
                id=document_id,
                tenant_id=TenantId(tenant_id),
                upload_id=UploadId(UUID(upload_id)),
                job_id=JobId(UUID(job_id)),
                filename="a.bin",
                content_type="application/pdf",
                size=7,
                sha256="0" * 64,
                object_key="k",
                etag="e",
                ingested_at=datetime.now(UTC),
            )
        )
        await session.flush()
        session.add(
            Revision(
                id=revision_id,
                document_id=document_id,
                tenant_id=TenantId(tenant_id),
                job_id=JobId(UUID(job_id)),
                number=1,
                pipeline_version="1",
            )
        )
        await session.flush()
        session.add(Page(revision_id=revision_id, number=1, text="text"))
        session.add(
            Entity(
                revision_id=revision_id,
                page=1,
                ordinal=0,
                label="X",
                text="t",
                normal_form="t",
                start=0,
                end=1,
            )
        )
    return upload_id, job_id


@asynccontextmanager
async def reading(transaction: BeginSession) -> AsyncIterator[None]:
    """Add a page in a transaction that stays open, as the worker that reads does."""
    async with transaction() as session:
        lock = select(Document.id).with_for_update(read=True, key_share=True)
        (await session.scalars(lock)).one()
        revision_id = (await session.scalars(select(Revision.id))).one()
        session.add(Page(revision_id=revision_id, number=2, text="text"))
        await session.flush()
        yield


async def rows_left(transaction: BeginSession) -> int:
    async with transaction() as session:
        counts = [
            await session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Document, Revision, Page, Entity)
        ]
    return sum(counts)


async def cancellations(transaction: BeginSession) -> list[UploadCancelled]:
    async with transaction() as session:
        bodies = await session.scalars(
            select(EventRecord.body).where(EventRecord.type == "upload.cancelled")
        )
        events = [decode(body).data for body in bodies]
    return [event for event in events if isinstance(event, UploadCancelled)]


@pytest.mark.parametrize("status", [COMPLETED, FAILED, READING])
async def test_a_purged_upload_becomes_cancelled_and_loses_its_document(
    api: Api, transaction: BeginSession, status: str
) -> None:
    upload_id, job_id = await stored(api, transaction, status=status)
    assert problem(await api.ask("DELETE", f"/uploads/{upload_id}")) == (
        409,
        "upload_already_settled",
    )
    before = (await api.get(f"/jobs/{job_id}")).json()

    answer = await purge(api, upload_id)

    assert answer.status_code == 200
    assert answer.json() == {"upload_id": upload_id, "status": "cancelled", "job_id": job_id}
    after = (await api.get(f"/jobs/{job_id}")).json()
    assert (after["status"], after["result"], after["error"]) == ("cancelled", None, None)
    assert after["progress"] >= before["progress"]
    assert after["finished_at"] is not None
    assert await rows_left(transaction) == 0
    assert (await api.get("/documents")).json()["items"] == []
    (event,) = await cancellations(transaction)
    assert (str(event.upload_id), str(event.job_id)) == (upload_id, job_id)
    async with transaction() as session:
        usage = (await session.scalars(select(TenantUsage))).one()
    assert (usage.bytes, usage.open_uploads) == (0, 0)


async def test_a_repeated_purge_returns_the_same_answer_and_emits_no_event(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, _ = await stored(api, transaction, status=COMPLETED)

    answers = await asyncio.gather(*(purge(api, upload_id) for _ in range(10)))
    answers.append(await api.ask("DELETE", f"/uploads/{upload_id}"))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(await cancellations(transaction)) == 1


async def test_a_purge_of_an_unsettled_upload_is_a_cancel(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"content")
    assert (await purge(api, upload_id)).status_code == 200
    upload_id, job_id = await api.finalized()
    assert (await purge(api, upload_id)).status_code == 200

    assert (await api.get(f"/jobs/{job_id}")).json()["status"] == "cancelled"
    assert len(await cancellations(transaction)) == 2


async def test_an_upload_that_failed_before_it_was_stored_cannot_be_purged(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        await workers.fail(session, job_id, code="staging_corrupt")

    assert problem(await purge(api, upload_id)) == (409, "upload_already_settled")
    job = (await api.get(f"/jobs/{job_id}")).json()
    assert (job["status"], job["error"]["code"]) == ("failed", "staging_corrupt")


async def test_a_purge_never_deadlocks_with_the_worker_that_reads(
    api: Api, transaction: BeginSession
) -> None:
    """The worker writes pages in one long transaction, and its progress in others."""
    upload_id, job_id = await stored(api, transaction, status=READING)
    async with reading(transaction):
        purging = asyncio.create_task(purge(api, upload_id))
        async with asyncio.timeout(5):
            assert (await api.get(f"/jobs/{job_id}", wait=5)).json()["status"] == "cancelled"
            async with transaction() as progress:
                await progress.execute(step_update(job_id, StepName.INGEST, done=2))
        assert not purging.done()

    assert (await purging).status_code == 200
    assert await rows_left(transaction) == 0


async def test_a_purge_that_times_out_is_completed_by_the_next_purge(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, _ = await stored(api, transaction, status=READING)
    async with reading(transaction):
        assert problem(await purge(api, upload_id)) == (503, "unavailable")
    assert await rows_left(transaction) == 5

    assert (await purge(api, upload_id)).status_code == 200
    assert await rows_left(transaction) == 0
    assert len(await cancellations(transaction)) == 1


async def test_a_waiting_purge_holds_no_connection(serve: Serve, transaction: BeginSession) -> None:
    async with serve(database_pool_size=1) as api:
        upload_id, job_id = await stored(api, transaction, status=READING)
        async with reading(transaction):
            purging = asyncio.create_task(purge(api, upload_id))
            async with asyncio.timeout(5):
                assert (await api.get(f"/jobs/{job_id}", wait=5)).json()["status"] == "cancelled"
                for _ in range(5):
                    await asyncio.sleep(0.1)
                    assert (await api.get(f"/jobs/{job_id}")).status_code == 200
            assert not purging.done()
        assert (await purging).status_code == 200


async def test_a_stored_upload_whose_job_is_no_longer_kept_is_purged_by_a_new_job(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, job_id = await stored(api, transaction, status=COMPLETED)
    async with transaction() as session:
        await session.execute(delete(Job))

    first, second = await purge(api, upload_id), await purge(api, upload_id)

    assert first.status_code == 200
    assert first.json() == second.json()
    new = first.json()["job_id"]
    assert new not in {None, job_id}
    job = (await api.get(f"/jobs/{new}")).json()
    assert (job["status"], job["upload_id"]) == ("cancelled", upload_id)
    assert [step["name"] for step in job["steps"]] == ["cleanup"]
    assert await rows_left(transaction) == 0
    (event,) = await cancellations(transaction)
    assert str(event.job_id) == new


async def test_another_tenants_upload_cannot_be_purged(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    upload_id, _ = await stored(api, transaction, status=COMPLETED)

    assert problem(await purge(stranger, upload_id)) == (404, "upload_not_found")
    assert await rows_left(transaction) == 4
