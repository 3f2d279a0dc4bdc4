"""The image of a page: made once by a job, then a link to the store."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete, func, select, update

from schemas import object_keys
from schemas.api.scopes import Scope
from schemas.events.documents import RenderRequested
from schemas.events.envelope import decode
from schemas.ids import JobId
from schemas.lifecycle import RevisionState, StepStatus
from schemas.runtime import s3
from schemas.settings import ObjectStoreSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.documents import Document, PageImage, Revision
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from tests.factories.jobs import step_update
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve
from tests.integration.gateway.documents import ingested, revision_of
from tests.integration.gateway.test_lock_order import until_waiting

pytestmark = pytest.mark.anyio


async def image(api: Api, document_id: str, number: int = 2) -> httpx.Response:
    return await api.get(f"/documents/{document_id}/pages/{number}/image")


async def end(
    transaction: BeginSession,
    job_id: str,
    status: StepStatus = StepStatus.COMPLETED,
    **columns: Any,  # noqa: ANN401  # any column
) -> None:
    """End the step of a job that renders a page."""
    async with transaction() as session:
        await session.execute(step_update(job_id, StepName.RENDER, StepStatus.RUNNING))
        await session.execute(step_update(job_id, StepName.RENDER, status, **columns))


async def count(transaction: BeginSession, table: type) -> int:
    async with transaction() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_the_first_request_for_an_image_makes_its_job(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])

    answer = await image(api, document_id)

    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["stage"], job["progress"]) == ("render", "render", 0)
    assert (job["document_id"], job["upload_id"]) == (document_id, None)
    assert [(step["name"], step["status"]) for step in job["steps"]] == [("render", "queued")]
    assert answer.headers["location"] == job["status_url"]
    assert int(answer.headers["retry-after"]) > 0
    assert (await api.get(f"/jobs/{job['job_id']}")).json() == job
    revision_id = await revision_of(transaction, document_id)
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        event = (
            await session.scalars(
                select(EventRecord).where(EventRecord.type == RenderRequested.TYPE)
            )
        ).one()
        queue = await session.scalar(
            select(OutboxMessage.queue).where(OutboxMessage.event_id == event.id)
        )
    assert queue == "metadata_extraction"
    assert decode(event.body).data == RenderRequested(
        document_id=document.id,
        upload_id=document.upload_id,
        job_id=JobId(UUID(job["job_id"])),
        filename=document.filename,
        size=document.size,
        sha256=document.sha256,
        content_type=document.content_type,
        object_key=document.object_key,
        page=2,
        image_key=object_keys.page_image(document.upload_id, revision_id, number=2),
    )


async def test_a_repeated_request_returns_the_same_job(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])

    both = await asyncio.gather(*(image(api, document_id) for _ in range(2)))
    later = await image(api, document_id)

    assert [each.status_code for each in (*both, later)] == [202] * 3
    assert len({each.json()["job_id"] for each in (*both, later)}) == 1
    assert await count(transaction, PageImage) == 1


async def test_a_rendered_page_is_fetched_from_the_store(
    serve: Serve, transaction: BeginSession, object_store_settings: ObjectStoreSettings
) -> None:
    async with serve(store=object_store_settings) as api:
        document_id = await ingested(api, transaction, pages=["a", "b"], filename="契約.pdf")
        job = (await image(api, document_id)).json()
        revision_id = await revision_of(transaction, document_id)
        async with transaction() as session:
            document = await session.get_one(Document, UUID(document_id))
        store = s3.client(object_store_settings)
        store.put_object(
            Bucket=object_store_settings.s3_bucket,
            Key=object_keys.page_image(document.upload_id, revision_id, number=2),
            Body=b"\x89PNG",
        )
        store.close()
        await end(transaction, job["job_id"])

        answer = await image(api, document_id)
        async with transaction() as session:
            await session.execute(delete(Job))  # as the sweep does after `JOB_RETENTION`
        later = await image(api, document_id)

    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    assert later.status_code == 307
    async with httpx.AsyncClient(timeout=30) as client:
        picture = await client.get(answer.headers["location"])
    assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert "%E5%A5%91%E7%B4%84.pdf.png" in picture.headers["content-disposition"]


async def test_a_page_that_cannot_be_rendered_says_why(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])
    job = (await image(api, document_id)).json()
    await end(
        transaction,
        job["job_id"],
        StepStatus.FAILED,
        error_code="document_corrupt",
        error_detail="Page 2 cannot be rendered. The page is damaged.",
        error_retryable=False,
    )

    for _ in range(2):
        answer = await image(api, document_id)
        assert problem(answer) == (422, "document_corrupt")
        assert answer.json()["detail"] == "Page 2 cannot be rendered. The page is damaged."
    assert await count(transaction, PageImage) == 1


async def test_a_page_whose_workers_died_is_not_tried_again(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])
    job = (await image(api, document_id)).json()
    code = "attempts_exhausted"
    await end(transaction, job["job_id"], StepStatus.FAILED, error_code=code)

    assert problem(await image(api, document_id)) == (422, "document_crashed")


async def test_an_image_gets_a_new_job_after_a_fault_of_the_system(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])
    failed = (await image(api, document_id)).json()
    await end(transaction, failed["job_id"], StepStatus.FAILED, error_code="store_unavailable")

    again = await image(api, document_id)

    assert again.status_code == 202
    assert again.json()["job_id"] != failed["job_id"]
    assert (await image(api, document_id)).json() == again.json()
    assert await count(transaction, PageImage) == 1


async def test_a_page_beyond_the_document_is_not_found(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])

    assert problem(await image(api, document_id, 3)) == (404, "not_found")
    assert await count(transaction, PageImage) == 0


@pytest.mark.parametrize(
    "columns",
    [
        {"content_type": "text/plain; charset=utf-8"},
        {"content_type": "application/zip", "status": "stored"},
    ],
    ids=["text", "not read"],
)
async def test_a_document_without_images_says_so(
    api: Api, transaction: BeginSession, columns: dict[str, Any]
) -> None:
    document_id = await ingested(api, transaction, pages=["a"], **columns)

    answer = await image(api, document_id, 1)

    assert problem(answer) == (404, "not_found")
    assert "no image of page 1" in answer.json()["detail"]


async def test_a_document_that_could_not_be_read_has_no_images(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(
        api, transaction, pages=[], page_count=2, status="failed", error_code="document_timeout"
    )

    assert problem(await image(api, document_id)) == (409, "document_not_ready")


async def test_the_first_image_of_a_document_comes_from_its_reading(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(
        api,
        transaction,
        pages=[],
        page_count=None,
        status="reading",
        document_metadata=None,
    )
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        job = await session.get_one(Job, document.job_id)
        event_id = await session.scalar(
            select(steps.Step.event_id).where(steps.Step.job_id == job.id)
        )
        assert event_id is not None
        await workers.store(session, str(job.id), will_be_read=True)
        steps.add_step(
            session,
            StepName.METADATA,
            job_id=job.id,
            tenant_id=job.tenant_id,
            priority=job.priority,
            event_id=event_id,
        )

    for number in (1, 2):
        answer = await image(api, document_id, number)
        assert (answer.status_code, answer.json()["job_id"]) == (202, str(document.job_id))

    async with transaction() as session:
        await session.execute(update(Revision).values(page_count=2))
    # The reading makes the first image alone.
    assert (await image(api, document_id, 1)).json()["job_id"] == str(document.job_id)
    assert (await image(api, document_id, 2)).json()["kind"] == "render"

    # Without the image of the first page: its part of the description failed.
    async with transaction() as session:
        for status in (StepStatus.RUNNING, StepStatus.COMPLETED):
            await session.execute(step_update(document.job_id, StepName.METADATA, status))
    assert (await image(api, document_id, 1)).json()["kind"] == "render"


async def test_a_new_revision_gets_images_of_its_own(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])
    job = (await image(api, document_id)).json()
    await end(transaction, job["job_id"])
    async with transaction() as session:
        old = (await session.scalars(select(Revision))).one()
        reading = Job(id=JobId(uuid4()), tenant_id=old.tenant_id, kind="reprocess")
        session.add(reading)
        await session.flush()
        new = Revision(
            id=uuid4(),
            document_id=old.document_id,
            tenant_id=old.tenant_id,
            job_id=reading.id,
            number=2,
            pipeline_version="2",
            state=RevisionState.PUBLISHED,
            page_count=2,
        )
        session.add(new)
        await session.flush()
        await session.execute(update(Document).values(revision_id=new.id))

    again = await image(api, document_id)

    assert again.status_code == 202
    assert again.json()["job_id"] != job["job_id"]


async def test_a_document_has_a_limited_number_of_images(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(page_images_max=2) as api:
        document_id = await ingested(api, transaction, pages=["a", "b", "c"])
        first, second, third = [await image(api, document_id, number) for number in (1, 2, 3)]
        code = "store_unavailable"
        await end(transaction, second.json()["job_id"], StepStatus.FAILED, error_code=code)
        again = await image(api, document_id, 2)

    assert (first.status_code, second.status_code, again.status_code) == (202, 202, 202)
    assert problem(third) == (422, "document_limit")


async def test_too_much_waiting_work_refuses_an_image(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(tenant_waiting_max=1, tenant_steps_max=1) as api:
        document_id = await ingested(api, transaction, pages=["a", "b", "c"])
        answers = [await image(api, document_id, number) for number in (1, 2, 3)]

    assert [answer.status_code for answer in answers[:2]] == [202, 202]
    assert answers[1].json()["steps"][0]["status"] == "waiting"
    assert problem(answers[2]) == (429, "too_many_waiting")


async def test_a_key_that_reads_documents_gets_images(
    api: Api, make_key: MakeKey, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])
    reader = api.of(await make_key(scopes=(Scope.DOCUMENTS_READ,)))
    writer = api.of(await make_key(scopes=(Scope.DOCUMENTS_WRITE,)))
    stranger = api.of(await make_key(tenant="globex"))

    assert problem(await image(writer, document_id)) == (403, "scope_missing")
    assert problem(await image(stranger, document_id)) == (404, "document_not_found")
    assert (await image(reader, document_id)).status_code == 202


async def test_a_deleted_document_cancels_the_jobs_of_its_images(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b", "c"])
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        await workers.store(session, str(document.job_id))
    jobs = [(await image(api, document_id, number)).json() for number in (2, 3)]
    await end(transaction, jobs[0]["job_id"])

    answer = await api.ask("DELETE", f"/documents/{document_id}")

    assert answer.status_code == 204, answer.text
    statuses = [(await api.get(f"/jobs/{job['job_id']}")).json()["status"] for job in jobs]
    assert statuses == ["completed", "cancelled"]
    assert await count(transaction, PageImage) == 0


async def test_a_purge_waits_for_a_worker_that_ends_the_rendering_of_a_page(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b", "c"])
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        await workers.store(session, str(document.job_id))
    jobs = [(await image(api, document_id, number)).json()["job_id"] for number in (2, 3)]

    async with transaction() as working, asyncio.timeout(20):
        await working.execute(step_update(jobs[1], StepName.RENDER, StepStatus.RUNNING))
        deleting = asyncio.create_task(api.ask("DELETE", f"/documents/{document_id}"))
        await until_waiting(transaction, statement="%steps%")
        # Locks the counters of the tenant. The purge must not have locked them for the other job.
        await working.execute(step_update(jobs[1], StepName.RENDER, StepStatus.COMPLETED))

    assert (await deleting).status_code == 204
    statuses = [(await api.get(f"/jobs/{job_id}")).json()["status"] for job_id in jobs]
    assert statuses == ["cancelled", "completed"]


async def test_a_document_is_read_again_while_its_pages_are_rendered(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        await workers.store(session, str(document.job_id))
    rendering = (await image(api, document_id)).json()

    again = await api.ask("POST", f"/documents/{document_id}/reprocess")

    assert again.status_code == 202, again.text
    assert (await image(api, document_id)).json() == rendering


async def test_a_document_that_is_deleted_meanwhile_gets_no_job(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await ingested(api, transaction, pages=["a", "b"])
    async with transaction() as session:
        await session.execute(delete(Document).where(Document.id == UUID(document_id)))
        waiting = asyncio.create_task(image(api, document_id))
        # The request has seen the document, and waits for its lock.
        await until_waiting(transaction, statement="SELECT documents.id%")

    assert problem(await waiting) == (404, "document_not_found")
    assert await count(transaction, PageImage) == 0
