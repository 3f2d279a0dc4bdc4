"""Cancelling and retrying jobs over HTTP, one by one and by a filter. Workers have tests of their own."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import delete, func, select, text, update

from schemas import object_keys
from schemas.api.scopes import Scope
from schemas.events.envelope import decode
from schemas.events.jobs import JobActionRequested
from schemas.events.uploads import StoredEvent
from schemas.ids import DocumentId, EventId, JobId, TenantId, UploadId
from schemas.lifecycle import DeadLetterState, DocumentStatus, JobKind, StepStatus, UploadStatus
from schemas.queues import EXPORTS
from schemas.steps import STEPS, StepName
from schemas.tables import steps
from schemas.tables.audit import AuditEntry
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.documents import Document, Revision
from schemas.tables.events import EventRecord, emit
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step, TenantSteps
from schemas.tables.uploads import Upload
from tests.factories.jobs import step_update
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve
from tests.integration.gateway.test_document_changes import read_document, reprocess
from tests.integration.gateway.test_lock_order import until_waiting

pytestmark = pytest.mark.anyio

ROUNDS = 24


async def cancel(api: Api, job_id: str) -> httpx.Response:
    return await api.ask("POST", f"/jobs/{job_id}/cancel")


async def retry(api: Api, job_id: str) -> httpx.Response:
    return await api.ask("POST", f"/jobs/{job_id}/retry")


async def act(
    api: Api,
    action: str,
    *,
    headers: dict[str, str] | None = None,
    **chosen: Any,  # noqa: ANN401  # any field of the filter
) -> httpx.Response:
    return await api.ask(
        "POST", "/jobs/bulk", json={"action": action, "filter": chosen}, headers=headers
    )


async def stored(api: Api, transaction: BeginSession) -> tuple[str, str]:
    """Add an upload that is stored, and whose document waits to be read, as a transfer does."""
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        await workers.store(session, job_id)
        job = await session.get_one(Job, UUID(job_id), populate_existing=True)
        document = Document(
            id=DocumentId(uuid4()),
            tenant_id=job.tenant_id,
            upload_id=UploadId(UUID(upload_id)),
            job_id=job.id,
            status=DocumentStatus.READING,
            filename="a.pdf",
            content_type="application/pdf",
            size=7,
            sha256="0" * 64,
            object_key="k",
            etag="e",
        )
        session.add(document)
        await session.flush()
        session.add(
            Revision(
                document_id=document.id,
                id=uuid4(),
                tenant_id=job.tenant_id,
                job_id=job.id,
                number=1,
                pipeline_version="1",
            )
        )
        event_id = emit(
            session,
            StoredEvent(
                upload_id=UploadId(UUID(upload_id)),
                job_id=job.id,
                document_id=document.id,
                filename="a.pdf",
                size=7,
                sha256="0" * 64,
                content_type="application/pdf",
                object_key="k",
                will_be_read=True,
            ),
            tenant_id=job.tenant_id,
            source="/test",
            now=(await session.scalars(select(func.now()))).one(),
        )
        for name in (StepName.METADATA, StepName.INGEST):
            steps.add_step(
                session,
                name,
                job_id=job.id,
                tenant_id=job.tenant_id,
                priority=job.priority,
                event_id=event_id,
            )
        await session.flush()
    return upload_id, job_id


async def fail_reading(transaction: BeginSession, job_id: str) -> None:
    """Fail the reading of a document whose metadata were found, as workers do."""
    async with transaction() as session:
        for name in (StepName.METADATA, StepName.INGEST):
            await session.execute(step_update(job_id, name, StepStatus.RUNNING))
        await session.execute(step_update(job_id, StepName.METADATA, StepStatus.COMPLETED))
        await session.execute(
            step_update(
                job_id,
                StepName.INGEST,
                StepStatus.FAILED,
                done=3,
                total=9,
                attempts=4,
                checkpoint={"deaths": 3},
                error_code="internal",
                error_detail="it failed",
                error_retryable=True,
            )
        )
        await session.execute(
            update(Document)
            .where(Document.job_id == UUID(job_id))
            .values(status=DocumentStatus.FAILED, error_code="internal", error_detail="it failed")
        )


async def referenced(api: Api, transaction: BeginSession) -> str:
    """Submit an object by its key; return the job."""
    await api.create(size=1)
    async with transaction() as session:
        tenant_id = TenantId((await session.scalars(select(Upload.tenant_id).limit(1))).one())
    answer = await api.ask(
        "POST", "/jobs", json={"object_key": f"{object_keys.incoming(tenant_id)}a.pdf"}
    )
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


async def steps_of(transaction: BeginSession, job_id: str) -> dict[StepName, Step]:
    async with transaction() as session:
        found = await session.scalars(
            select(Step).where(Step.job_id == UUID(job_id)).order_by(Step.ordinal)
        )
        return {step.name: step for step in found}


async def published(transaction: BeginSession, event_id: EventId | None) -> Sequence[str | None]:
    """Return the queues that an event was given to."""
    async with transaction() as session:
        queues = await session.scalars(
            select(OutboxMessage.queue)
            .where(OutboxMessage.event_id == event_id)
            .order_by(OutboxMessage.id)
        )
        return queues.all()


# Cancel


async def test_a_job_is_cancelled_while_its_file_is_transferred(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        await workers.advance(session, job_id, done=1)

    answers = [await cancel(api, job_id) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.json()["status"] for answer in answers} == {"cancelled"}
    assert (await api.get(f"/uploads/{upload_id}")).json()["status"] == "cancelled"
    found = await steps_of(transaction, job_id)
    assert found[StepName.TRANSFER].status is StepStatus.CANCELLED
    assert found[StepName.CLEANUP].status is StepStatus.QUEUED


async def test_a_job_that_is_cancelled_while_its_document_is_read_leaves_nothing_to_see(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, job_id = await stored(api, transaction)
    async with transaction() as session:
        await session.execute(step_update(job_id, StepName.INGEST, StepStatus.RUNNING, done=2))

    answer = await cancel(api, job_id)

    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert (job["status"], job["result"], job["error"]) == ("cancelled", None, None)
    assert (await api.get(f"/uploads/{upload_id}")).json()["status"] == "cancelled"
    assert (await api.get("/documents")).json()["items"] == []
    found = await steps_of(transaction, job_id)
    assert found[StepName.TRANSFER].status is StepStatus.COMPLETED
    assert found[StepName.INGEST].status is StepStatus.CANCELLED
    assert found[StepName.CLEANUP].status is StepStatus.QUEUED


async def test_a_cancelled_reprocessing_leaves_the_document(
    api: Api, transaction: BeginSession
) -> None:
    document_id = await read_document(api, transaction)
    job_id = (await reprocess(api, document_id)).json()["job_id"]

    assert (await cancel(api, job_id)).json()["status"] == "cancelled"

    assert (await api.get(f"/documents/{document_id}")).json()["status"] == "ingested"
    assert (await reprocess(api, document_id)).status_code == 202


async def test_an_export_is_cancelled_with_its_job(api: Api) -> None:
    export = (await api.ask("POST", "/exports", json={"kind": "jobs"})).json()

    assert (await cancel(api, export["job_id"])).json()["status"] == "cancelled"

    shown = await api.get(f"/exports/{export['export_id']}")
    assert shown.json()["status"] == "cancelled"


async def test_a_job_that_has_ended_is_not_cancelled(api: Api, transaction: BeginSession) -> None:
    _, completed = await api.finalized()
    _, failed = await stored(api, transaction)
    async with transaction() as session:
        await workers.store(session, completed)
    await fail_reading(transaction, failed)

    for job_id in (completed, failed):
        assert problem(await cancel(api, job_id)) == (409, "job_not_cancellable")
    assert (await api.get(f"/jobs/{failed}")).json()["status"] == "failed"
    assert (await api.get("/documents")).json()["items"] != []


@pytest.mark.parametrize("action", ["cancel", "retry"])
async def test_a_job_needs_the_scope_that_starts_its_kind(
    api: Api, make_key: MakeKey, transaction: BeginSession, action: str
) -> None:
    stranger = api.of(await make_key(tenant="globex"))
    _, upload = await api.finalized()
    document_id = await read_document(api, transaction)
    jobs = {
        Scope.UPLOADS_WRITE: upload,
        Scope.DOCUMENTS_WRITE: (await reprocess(api, document_id)).json()["job_id"],
        Scope.EXPORTS_WRITE: (await api.ask("POST", "/exports", json={"kind": "jobs"})).json()[
            "job_id"
        ],
    }

    for scope, job_id in jobs.items():
        path = f"/jobs/{job_id}/{action}"
        lacking = api.of(await make_key(scopes=tuple(each for each in Scope if each is not scope)))
        assert problem(await lacking.ask("POST", path)) == (403, "scope_missing")
        assert problem(await stranger.ask("POST", path)) == (404, "job_not_found")
        having = api.of(await make_key(scopes=(scope,)))
        assert (await having.ask("POST", path)).status_code == (200 if action == "cancel" else 409)


# Retry


async def test_a_job_that_failed_in_reading_is_not_transferred_again(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await stored(api, transaction)
    await fail_reading(transaction, job_id)
    before = await steps_of(transaction, job_id)

    answer = await retry(api, job_id)

    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["status"], job["stage"], job["error"]) == ("processing", "ingest", None)
    assert job["finished_at"] is None
    after = await steps_of(transaction, job_id)
    for name in (StepName.TRANSFER, StepName.METADATA):
        assert after[name].status is StepStatus.COMPLETED
        assert after[name].finished_at == before[name].finished_at
    ingest = after[StepName.INGEST]
    assert (ingest.status, ingest.attempts, ingest.error_code) == (StepStatus.QUEUED, 0, None)
    assert (ingest.done, ingest.total, ingest.checkpoint) == (0, None, None)
    # `upload.stored` is also a fact for webhooks, which was published before and is not repeated.
    assert await published(transaction, ingest.event_id) == [None, "document_processing"]
    (document,) = (await api.get("/documents")).json()["items"]
    assert document["status"] == "reading"


async def test_a_reading_whose_revision_is_deleted_begins_with_its_metadata(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await stored(api, transaction)
    await fail_reading(transaction, job_id)
    async with transaction() as session:
        await session.execute(delete(Revision))

    assert (await retry(api, job_id)).status_code == 202

    found = await steps_of(transaction, job_id)
    assert [found[name].status for name in (StepName.METADATA, StepName.INGEST)] == [
        StepStatus.QUEUED
    ] * 2


async def test_a_failed_transfer_of_chunks_cannot_be_retried(
    api: Api, transaction: BeginSession
) -> None:
    upload_id, job_id = await api.finalized()
    async with transaction() as session:
        await workers.fail(session, job_id, code="store_unavailable")

    assert problem(await retry(api, job_id)) == (409, "job_source_gone")

    assert (await api.get(f"/jobs/{job_id}")).json()["status"] == "failed"
    assert (await api.get(f"/uploads/{upload_id}")).json()["status"] == "failed"


async def test_a_failed_transfer_of_a_referenced_object_is_retried(
    api: Api, transaction: BeginSession
) -> None:
    job_id = await referenced(api, transaction)
    async with transaction() as session:
        await session.execute(update(Upload).values(size=9))
        await workers.fail(session, job_id, code="reference_missing", started_at=func.now())

    answer = await retry(api, job_id)

    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["status"], job["stage"], job["bytes_total"]) == ("processing", "transfer", 0)
    async with transaction() as session:
        upload = await session.get_one(Upload, UUID(job["upload_id"]))
    # The worker measures it again, and checks it against the quotas.
    assert (upload.status, upload.size) == (UploadStatus.FINALIZED, 0)


async def test_a_job_without_a_failed_step_is_not_retried(
    api: Api, transaction: BeginSession
) -> None:
    _, queued = await api.finalized()
    _, completed = await api.finalized()
    async with transaction() as session:
        await workers.store(session, completed)

    for job_id in (queued, completed):
        assert problem(await retry(api, job_id)) == (409, "job_not_retryable")


async def test_a_cancelled_upload_is_not_retried(api: Api, transaction: BeginSession) -> None:
    _, job_id = await stored(api, transaction)
    await cancel(api, job_id)

    assert problem(await retry(api, job_id)) == (409, "job_source_gone")


async def test_a_retry_waits_for_the_worker_that_cleans_up(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await stored(api, transaction)
    await fail_reading(transaction, job_id)
    async with transaction() as session:
        await session.execute(
            step_update(
                job_id,
                StepName.INGEST,
                lease_owner="a worker",
                lease_until=func.now() + timedelta(minutes=1),
            )
        )

    refused = await retry(api, job_id)

    assert problem(refused) == (409, "job_busy")
    assert int(refused.headers["retry-after"]) >= 1
    async with transaction() as session:
        await session.execute(step_update(job_id, StepName.INGEST, lease_until=func.now()))
    assert (await retry(api, job_id)).status_code == 202


async def test_a_cancelled_export_is_retried_unless_it_is_deleted(api: Api) -> None:
    export = (await api.ask("POST", "/exports", json={"kind": "jobs"})).json()
    await cancel(api, export["job_id"])

    assert (await retry(api, export["job_id"])).json()["status"] == "queued"

    await cancel(api, export["job_id"])
    await api.ask("DELETE", f"/exports/{export['export_id']}")
    assert problem(await retry(api, export["job_id"])) == (409, "job_source_gone")


async def test_an_expired_export_is_not_retried(api: Api, transaction: BeginSession) -> None:
    export = (await api.ask("POST", "/exports", json={"kind": "jobs"})).json()
    await cancel(api, export["job_id"])
    async with transaction() as session:
        await session.execute(update(Export).values(expires_at=func.now()))

    assert problem(await retry(api, export["job_id"])) == (409, "job_source_gone")


async def test_a_document_is_read_by_one_job_at_a_time(api: Api, transaction: BeginSession) -> None:
    document_id = await read_document(api, transaction)
    first = (await reprocess(api, document_id)).json()["job_id"]
    await cancel(api, first)
    second = (await reprocess(api, document_id)).json()["job_id"]

    refused = await retry(api, first)
    assert problem(refused) == (409, "job_busy")
    assert second in refused.text

    await cancel(api, second)
    assert (await retry(api, first)).status_code == 202


async def test_a_step_whose_event_is_no_longer_stored_is_not_retried(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await stored(api, transaction)
    await fail_reading(transaction, job_id)
    async with transaction() as session:
        await session.execute(delete(EventRecord).where(EventRecord.type == StoredEvent.TYPE))

    assert problem(await retry(api, job_id)) == (409, "job_source_gone")


async def test_a_retry_settles_the_dead_letter_of_the_event(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await stored(api, transaction)
    await fail_reading(transaction, job_id)
    event_id = (await steps_of(transaction, job_id))[StepName.INGEST].event_id
    async with transaction() as session:
        session.add(
            DeadLetter(
                queue=STEPS[StepName.INGEST].queue,
                fingerprint=b"1",
                event_id=event_id,
                body=b"{}",
                headers={},
                reason="rejected",
                deaths=1,
            )
        )

    assert (await retry(api, job_id)).status_code == 202

    async with transaction() as session:
        letter = (await session.scalars(select(DeadLetter))).one()
        entry = (
            await session.scalars(
                select(AuditEntry).where(AuditEntry.action == "dead_letter.replayed")
            )
        ).one()
    assert letter.state is DeadLetterState.REPLAYED
    assert entry.target == f"dead_letter/{letter.id}"
    assert entry.actor.startswith("api_key/")


# Both, and workers, at once


@pytest.mark.parametrize(("action", "status"), [("retry", 202), ("cancel", 409)])
async def test_a_worker_that_changes_two_steps_never_waits_for_an_action_on_their_job(
    api: Api, transaction: BeginSession, action: str, status: int
) -> None:
    """The second change of a job makes PostgreSQL check that its upload exists."""
    _, job_id = await stored(api, transaction)
    async with transaction() as working:
        await working.execute(select(Document.id).with_for_update(key_share=True))
        await working.execute(step_update(job_id, StepName.METADATA, StepStatus.COMPLETED))
        acting = asyncio.create_task(api.ask("POST", f"/jobs/{job_id}/{action}"))
        await until_waiting(transaction)

        await working.execute(step_update(job_id, StepName.INGEST, StepStatus.FAILED))

    assert (await acting).status_code == status


async def test_cancels_retries_and_workers_of_one_tenant_never_deadlock(
    api: Api, serve: Serve, transaction: BeginSession
) -> None:
    """Whatever comes first, each job is in one state, and the counters agree with the steps."""
    jobs = [(await stored(api, transaction))[1] for _ in range(ROUNDS)]
    for job_id in jobs[: ROUNDS // 2]:
        await fail_reading(transaction, job_id)

    async def complete(job_id: str) -> None:
        async with transaction() as session:
            # As a worker: the document, the step, the job.
            await session.execute(
                select(Document.id)
                .where(Document.job_id == UUID(job_id))
                .with_for_update(key_share=True)
            )
            for name in (StepName.METADATA, StepName.INGEST):
                await session.execute(
                    step_update(job_id, name, StepStatus.COMPLETED).where(
                        Step.status.in_((StepStatus.QUEUED, StepStatus.RUNNING))
                    )
                )

    # Two gateways: within one, the tenant lock would serialise the requests.
    async with serve() as other:
        gateways = itertools.cycle((api, other.of(api.key)))

        async def ask(action: str, job_id: str) -> httpx.Response:
            return await next(gateways).ask("POST", f"/jobs/{job_id}/{action}")

        calls: list[Awaitable[httpx.Response | None]] = [
            call
            for job_id in jobs
            for call in (ask("retry", job_id), complete(job_id), ask("cancel", job_id))
        ]
        # A request waits for the lock of its tenant for at most ten seconds, on a slow machine too.
        concurrency = asyncio.Semaphore(6)

        async def limited(call: Awaitable[httpx.Response | None]) -> httpx.Response | None:
            async with concurrency:
                return await call

        answers = await asyncio.gather(*map(limited, calls))

    refused = [
        answer.text
        for answer in answers
        if answer is not None and answer.status_code not in {200, 202, 409}
    ]
    assert refused == []
    async with transaction() as session:
        counted = await session.execute(
            select(TenantSteps.name, func.sum(TenantSteps.waiting + TenantSteps.in_broker))
            .group_by(TenantSteps.name)
            .having(func.sum(TenantSteps.waiting + TenantSteps.in_broker) > 0)
        )
        actual = await session.execute(
            select(Step.name, func.count())
            .where(Step.status.in_(("waiting", "queued", "running")))
            .group_by(Step.name)
        )
        half_cancelled = await session.scalar(
            text(
                "SELECT count(*) FROM jobs JOIN uploads ON uploads.id = jobs.upload_id"
                " WHERE (jobs.status = 'cancelled') <> (uploads.status = 'cancelled')"
            )
        )
    assert sorted(counted.all()) == sorted(actual.all())
    assert half_cancelled == 0


# By a filter


async def test_an_action_is_a_job_whose_order_says_what_to_do(
    api: Api, transaction: BeginSession
) -> None:
    answer = await act(api, "retry", stage="ingest", metadata={"case": "7"})

    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["stage"], job["status"]) == ("bulk", "bulk", "queued")
    assert answer.headers["location"] == job["status_url"]
    (step,) = job["steps"]
    assert (step["name"], step["unit"]) == ("bulk", "jobs")
    async with transaction() as session:
        body = (
            await session.scalars(
                select(EventRecord.body)
                .join(OutboxMessage, OutboxMessage.event_id == EventRecord.id)
                .where(OutboxMessage.queue == EXPORTS)
            )
        ).one()
    order = decode(body).data
    assert isinstance(order, JobActionRequested)
    assert (order.job_id, order.action) == (JobId(UUID(job["job_id"])), "retry")
    assert json.loads(order.filter) == {"stage": "ingest", "metadata": {"case": "7"}}
    assert set(order.kinds) == {*JobKind} - {JobKind.BULK}


async def test_a_repeated_action_with_a_key_returns_the_same_job(api: Api) -> None:
    key = {"Idempotency-Key": "once"}
    jobs = [(await act(api, "cancel", headers=key)).json()["job_id"] for _ in range(2)]

    assert jobs[0] == jobs[1]
    other = await act(api, "retry", headers=key)
    assert problem(other) == (422, "idempotency_key_reused")


async def test_an_action_leaves_the_kinds_alone_that_the_key_cannot_start(
    api: Api, make_key: MakeKey, transaction: BeginSession
) -> None:
    uploads_only = api.of(await make_key(scopes=(Scope.UPLOADS_WRITE,)))

    await act(uploads_only, "cancel")

    async with transaction() as session:
        body = (
            await session.scalars(
                select(EventRecord.body).where(EventRecord.type == JobActionRequested.TYPE)
            )
        ).one()
    order = decode(body).data
    assert isinstance(order, JobActionRequested)
    assert set(order.kinds) == {JobKind.UPLOAD, JobKind.BATCH}


async def test_an_action_can_be_cancelled(api: Api) -> None:
    job_id = (await act(api, "cancel")).json()["job_id"]

    assert (await cancel(api, job_id)).json()["status"] == "cancelled"


@pytest.mark.parametrize(
    "body",
    [
        {"action": "delete", "filter": {}},
        {"action": "cancel"},
        {"action": "cancel", "filter": {"colour": "red"}},
        {"action": "cancel", "filter": {"status": "sleeping"}},
    ],
    ids=str,
)
async def test_an_invalid_action_is_refused(shared_api: Api, body: dict[str, Any]) -> None:
    assert problem(await shared_api.ask("POST", "/jobs/bulk", json=body)) == (
        400,
        "invalid_request",
    )
