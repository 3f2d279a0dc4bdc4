"""Reading a document again, and deleting it."""

import asyncio
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select

from schemas.api.scopes import Scope
from schemas.events.documents import ReprocessRequested
from schemas.events.envelope import decode
from schemas.ids import DocumentId, JobId, UploadId
from schemas.lifecycle import StepStatus
from schemas.policy import document_passwords
from schemas.steps import StepName
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from tests.factories.jobs import step_update
from tests.factories.secret_keys import KEYS
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve
from tests.integration.gateway.documents import ingested

pytestmark = pytest.mark.anyio

PASSWORD: Final = "hunter2"  # noqa: S105  # of a test


async def read_document(api: Api, transaction: BeginSession) -> str:
    """Add a document that is read, and whose job is completed."""
    document_id = await ingested(api, transaction, pages=["text"])
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        await workers.store(session, str(document.job_id))
    return document_id


async def reprocess(
    api: Api,
    document_id: str,
    *,
    headers: dict[str, str] | None = None,
    **body: Any,  # noqa: ANN401  # any field of the API
) -> httpx.Response:
    return await api.ask("POST", f"/documents/{document_id}/reprocess", json=body, headers=headers)


async def end(transaction: BeginSession, job_id: str) -> None:
    """Complete the steps of a job that reads a document again."""
    async with transaction() as session:
        for name in (StepName.METADATA, StepName.INGEST):
            for status in (StepStatus.RUNNING, StepStatus.COMPLETED):
                await session.execute(step_update(job_id, name, status))


async def test_a_document_is_read_again_by_a_job_of_two_steps(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)

    answer = await reprocess(api, document_id)

    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["status"], job["upload_id"]) == ("reprocess", "queued", None)
    assert [(step["name"], step["status"]) for step in job["steps"]] == [
        ("metadata", "queued"),
        ("ingest", "queued"),
    ]
    assert answer.headers["location"] == job["status_url"]
    assert (await api.get(f"/jobs/{job['job_id']}")).json() == job
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
        event = (
            await session.scalars(
                select(EventRecord).where(EventRecord.type == ReprocessRequested.TYPE)
            )
        ).one()
        queues = await session.scalars(
            select(OutboxMessage.queue).where(OutboxMessage.event_id == event.id)
        )
        assert sorted(queues.all(), key=str) == ["document_processing", "metadata_extraction"]
    assert decode(event.body).data == ReprocessRequested(
        document_id=document.id,
        upload_id=document.upload_id,
        job_id=JobId(UUID(job["job_id"])),
        filename=document.filename,
        size=document.size,
        sha256=document.sha256,
        content_type=document.content_type,
        object_key=document.object_key,
    )


async def test_a_request_without_a_body_reads_a_document_again(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)

    answer = await api.ask("POST", f"/documents/{document_id}/reprocess")

    assert answer.status_code == 202, answer.text
    assert answer.json()["document_id"] == document_id
    assert problem(await reprocess(api, document_id, other=1)) == (400, "invalid_request")


async def test_the_present_revision_is_shown_while_a_document_is_read_again(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)
    before = (await api.get(f"/documents/{document_id}")).json()

    await reprocess(api, document_id)

    assert (await api.get(f"/documents/{document_id}")).json() == before
    assert (await api.get(f"/documents/{document_id}/text")).text == "text"


async def test_a_repeated_request_with_a_key_returns_its_job(
    api: Api, transaction: BeginSession
) -> None:
    document_id, other = [await read_document(api, transaction) for _ in range(2)]
    once = {"Idempotency-Key": "once"}

    first = await reprocess(api, document_id, headers=once, password=PASSWORD)
    again = await reprocess(api, document_id, headers=once, password=PASSWORD)

    assert again.status_code == 202
    assert again.json()["job_id"] == first.json()["job_id"]
    for changed in (
        await reprocess(api, other, headers=once, password=PASSWORD),
        await reprocess(api, document_id, headers=once, password="other"),  # noqa: S106  # of a test
        await reprocess(api, document_id, headers=once),
    ):
        assert problem(changed) == (422, "idempotency_key_reused")


async def test_a_document_is_read_by_one_job_at_a_time(api: Api, transaction: BeginSession) -> None:
    unread = await ingested(api, transaction, pages=[])
    assert problem(await reprocess(api, unread)) == (409, "document_busy")
    document_id = await read_document(api, transaction)

    both = await asyncio.gather(*(reprocess(api, document_id) for _ in range(2)))
    first, second = sorted(both, key=lambda answer: answer.status_code)

    assert (first.status_code, problem(second)) == (202, (409, "document_busy"))
    assert first.json()["job_id"] in second.json()["detail"]
    await end(transaction, first.json()["job_id"])
    assert (await reprocess(api, document_id)).status_code == 202


async def test_a_password_is_kept_until_the_document_is_read_again(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)

    job = (await reprocess(api, document_id, password=PASSWORD)).json()

    async with transaction() as session:
        kept = (await session.scalars(select(DocumentPassword))).one()
        document = await session.get_one(Document, UUID(document_id))
    assert kept.upload_id == document.upload_id
    assert document_passwords.decrypt(kept.secret, upload_id=kept.upload_id, keys=KEYS) == PASSWORD
    await end(transaction, job["job_id"])
    async with transaction() as session:
        assert await session.scalar(select(func.count()).select_from(DocumentPassword)) == 0


async def test_too_much_waiting_work_refuses_a_reprocess(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(tenant_waiting_max=1, tenant_steps_max=1) as api:
        first, second, third = [await read_document(api, transaction) for _ in range(3)]
        assert (await reprocess(api, first)).status_code == 202
        waiting = (await reprocess(api, second)).json()
        refused = await reprocess(api, third)

    assert {step["status"] for step in waiting["steps"]} == {"waiting"}
    assert problem(refused) == (429, "too_many_waiting")
    assert int(refused.headers["retry-after"]) > 0


async def test_a_document_of_another_tenant_is_neither_read_again_nor_deleted(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)

    for one in (document_id, str(uuid4())):
        assert problem(await reprocess(stranger, one)) == (404, "document_not_found")
        assert problem(await stranger.ask("DELETE", f"/documents/{one}")) == (
            404,
            "document_not_found",
        )
    assert (await api.get(f"/documents/{document_id}")).status_code == 200


async def test_a_change_needs_the_scope_documents_write(
    api: Api, make_key: MakeKey, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)
    others = tuple(scope for scope in Scope if scope is not Scope.DOCUMENTS_WRITE)
    reader = api.of(await make_key(scopes=others))

    assert problem(await reprocess(reader, document_id)) == (403, "scope_missing")
    assert problem(await reader.ask("DELETE", f"/documents/{document_id}")) == (
        403,
        "scope_missing",
    )


async def test_a_deleted_document_leaves_its_events_alone(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)
    job = (await reprocess(api, document_id, password=PASSWORD)).json()
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))

    answer = await api.ask("DELETE", f"/documents/{document_id}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert problem(await api.get(f"/documents/{document_id}")) == (404, "document_not_found")
    assert (await api.get(f"/jobs/{job['job_id']}")).json()["status"] == "cancelled"
    assert (await api.get(f"/uploads/{document.upload_id}")).json()["status"] == "cancelled"
    async with transaction() as session:
        for table in (Document, Revision, Page, DocumentPassword):
            assert await session.scalar(select(func.count()).select_from(table)) == 0
        types = await session.scalars(
            select(EventRecord.type).where(EventRecord.upload_id == document.upload_id)
        )
        assert sorted(types.all()) == [
            "document.reprocess_requested",
            "upload.cancelled",
            "upload.finalized",
        ]
        cleanup = await session.scalar(select(Step.status).where(Step.name == StepName.CLEANUP))
        assert cleanup == StepStatus.QUEUED
    again = await api.ask("DELETE", f"/documents/{document_id}")
    assert problem(again) == (404, "document_not_found")


async def test_a_document_is_deleted_while_it_is_read(api: Api, transaction: BeginSession) -> None:
    document_id = await ingested(api, transaction, pages=["text"], status="reading")
    async with transaction() as session:
        document = await session.get_one(Document, DocumentId(UUID(document_id)))
        await workers.store(session, str(document.job_id), will_be_read=True)
        await session.execute(step_update(document.job_id, StepName.INGEST, StepStatus.RUNNING))

    answer = await api.ask("DELETE", f"/documents/{document_id}")

    assert answer.status_code == 204, answer.text
    job = (await api.get(f"/jobs/{document.job_id}")).json()
    assert (job["status"], job["result"]) == ("cancelled", None)
    assert problem(await api.get(f"/uploads/{UploadId(uuid4())}")) == (404, "upload_not_found")
