"""Whole files in one request, and objects in the bucket by their keys."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import quotas
from gateway.uploads.oneshot.form import FRAME_BYTES_MAX
from schemas import object_keys
from schemas.events.envelope import decode
from schemas.events.uploads import UploadFinalized
from schemas.settings import QuotaSettings
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook
from tests.integration.gateway.api import KIB64, MIB, Api, BeginSession, pieces_of, problem
from tests.integration.gateway.conftest import MakeKey, Serve, Start
from tests.integration.gateway.process import api_of
from tests.integration.gateway.staged import Staged, over_both_stagings
from tests.integration.gateway.workers import fail, store

pytestmark = pytest.mark.anyio

CONTENT = random.Random(7).randbytes(3 * KIB64 + 777)
KEY = {"Idempotency-Key": "once"}
SMALL_CHUNKS: dict[str, Any] = {"chunk_size_default": KIB64}
ANSWER_FIELDS = {
    "success",
    "message",
    "job_id",
    "upload_id",
    "task_id",
    "filename",
    "status",
    "status_endpoint",
}


async def submit(
    api: Api,
    content: bytes = CONTENT,
    *,
    filename: str = "a.bin",
    fields: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    path: str = "/upload-async",
    content_type: str = "application/octet-stream",
) -> httpx.Response:
    return await api.ask(
        "POST",
        path,
        data=fields or {},
        files={"file": (filename, content, content_type)},
        headers=headers,
    )


async def submit_reference(api: Api, key: str, **options: Any) -> httpx.Response:  # noqa: ANN401  # whatever the API takes
    headers = options.pop("headers", None)
    return await api.ask("POST", "/jobs", json={"object_key": key, **options}, headers=headers)


async def upload_in(transaction: BeginSession) -> Upload:
    async with transaction() as session:
        return (await session.scalars(select(Upload))).one()


async def statuses(transaction: BeginSession) -> list[str]:
    async with transaction() as session:
        found = await session.scalars(select(Upload.status).order_by(Upload.created_at))
        return list(found.all())


async def count_of(
    transaction: BeginSession, table: type[Upload | Job | EventRecord | Webhook]
) -> int:
    async with transaction() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def usage_of(transaction: BeginSession) -> tuple[int, int]:
    async with transaction() as session:
        row = (await session.scalars(select(TenantUsage))).one()
        return row.bytes, row.open_uploads


async def own_prefix(transaction: BeginSession) -> str:
    async with transaction() as session:
        return object_keys.incoming((await session.scalars(select(Tenant.id))).one())


@over_both_stagings
@pytest.mark.parametrize("path", ["/upload-async", "/jobs"])
async def test_a_file_in_a_form_becomes_chunks_and_a_job(
    serve: Serve, staged: Staged, transaction: BeginSession, path: str
) -> None:
    async with serve(**SMALL_CHUNKS) as api:
        answer = await submit(api, filename="../Ünï.bin", path=path)

        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert body.keys() == ANSWER_FIELDS
        assert (body["success"], body["filename"], body["status"]) == (True, "../Ünï.bin", "queued")
        assert body["status_endpoint"] == f"/api/v1/jobs/{body['job_id']}"
        assert answer.headers["location"] == body["status_endpoint"]
        job = (await api.get(f"/jobs/{body['job_id']}")).json()
        assert (job["upload_id"], job["bytes_total"]) == (body["upload_id"], len(CONTENT))
        manifest = (await api.get(f"/uploads/{body['upload_id']}")).json()
    assert (manifest["size"], manifest["status"]) == (len(CONTENT), "finalized")
    assert manifest["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert manifest["content_type"] is None
    assert [(chunk["size"], chunk["sha256"]) for chunk in manifest["chunks"]] == [
        (len(piece), hashlib.sha256(piece).hexdigest()) for piece in pieces_of(CONTENT)
    ]
    assert manifest["chunk_count"] == 4
    assert staged.count(body["upload_id"]) > 0
    assert staged.scratch() == []
    async with transaction() as session:
        (encoded,) = (await session.scalars(select(EventRecord.body))).all()
    event = decode(encoded).data
    assert isinstance(event, UploadFinalized)
    assert (event.size, event.filename) == (len(CONTENT), "../Ünï.bin")
    assert await usage_of(transaction) == (len(CONTENT), 0)


@pytest.mark.parametrize("size", [0, 1, KIB64 - 1, KIB64, KIB64 + 1, 2 * KIB64, 3 * KIB64 - 2])
async def test_a_file_of_any_size_is_stored_in_the_right_number_of_chunks(
    serve: Serve, size: int
) -> None:
    content = CONTENT[:size]
    async with serve(**SMALL_CHUNKS) as api:
        answer = await submit(api, content)

        assert answer.status_code == 202, answer.text
        manifest = (await api.get(f"/uploads/{answer.json()['upload_id']}")).json()
    assert manifest["size"] == manifest["received_bytes"] == size
    assert [chunk["index"] for chunk in manifest["chunks"]] == list(range(-(-size // KIB64)))


@pytest.mark.parametrize("before", [True, False])
async def test_fields_may_precede_or_follow_the_file(
    serve: Serve, transaction: BeginSession, *, before: bool
) -> None:
    fields = {
        "sha256": (None, hashlib.sha256(CONTENT).hexdigest()),
        "callback_url": (None, "https://example.com/hook"),
        "note": (None, "kept"),
    }
    file = {"file": ("a.bin", CONTENT)}
    async with serve(**SMALL_CHUNKS) as api:
        answer = await api.ask(
            "POST", "/upload-async", files={**fields, **file} if before else {**file, **fields}
        )

    assert answer.status_code == 202, answer.text
    assert answer.json()["callback_secret"].startswith("whsec_")
    assert await count_of(transaction, Webhook) == 1
    upload = await upload_in(transaction)
    assert (upload.size, upload.client_metadata) == (len(CONTENT), {"note": "kept"})


@over_both_stagings
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"sha256": "0" * 64}, 422, "file_digest_mismatch"),
        ({"callback_url": "https://10.0.0.1/"}, 422, "webhook_url_refused"),
        ({"priority": "high"}, 400, "invalid_request"),
    ],
)
@pytest.mark.parametrize("before", [True, False])
async def test_a_refused_form_leaves_nothing(  # noqa: PLR0917  # fixtures and cases
    serve: Serve,
    transaction: BeginSession,
    staged: Staged,
    fields: dict[str, str],
    status: int,
    code: str,
    *,
    before: bool,
) -> None:
    texts = {name: (None, value) for name, value in fields.items()}
    file = {"file": ("a.bin", CONTENT)}
    async with serve(**SMALL_CHUNKS) as api:
        answer = await api.ask(
            "POST", "/upload-async", files={**texts, **file} if before else {**file, **texts}
        )

    assert problem(answer) == (status, code)
    assert await count_of(transaction, Job) == 0
    for upload_status in await statuses(transaction):
        assert upload_status == "cancelled"
        assert (await usage_of(transaction)) == (0, 0)
        assert await count_of(transaction, EventRecord) == 1
    assert staged.scratch() == []


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data; boundary=X", b""),
        ("multipart/form-data; boundary=X", b"nonsense"),
        ("multipart/form-data", b"--X--\r\n"),
        ("multipart/form-data; boundary=X", b"--X--\r\n"),
        ("text/plain", b"content"),
        ("application/x-www-form-urlencoded", b"file=content"),
    ],
)
@pytest.mark.parametrize("path", ["/upload-async", "/jobs"])
async def test_a_body_that_is_not_a_form_with_a_file_is_refused(
    shared_api: Api,
    shared_transaction: BeginSession,
    *,
    path: str,
    content_type: str,
    content: bytes,
) -> None:
    answer = await shared_api.ask(
        "POST", path, content=content, headers={"Content-Type": content_type}
    )

    assert problem(answer) == (400, "invalid_request")
    assert await count_of(shared_transaction, Upload) == 0


@pytest.mark.parametrize("path", ["/upload-async", "/jobs"])
async def test_a_form_needs_a_content_length(api: Api, path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"--X--"

    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    answer = await api.ask("POST", path, content=pieces(), headers=headers)

    assert problem(answer) == (411, "length_required")


async def test_a_form_reserves_exactly_the_size_of_its_file(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(quota_bytes=len(CONTENT), upload_max_size=len(CONTENT), **SMALL_CHUNKS) as api:
        assert problem(await submit(api, CONTENT + b"x")) == (413, "file_too_large")
        assert problem(await submit(api, CONTENT + bytes(FRAME_BYTES_MAX))) == (
            413,
            "file_too_large",
        )
        answers = await asyncio.gather(*(submit(api) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [202, 403, 403]
        assert problem(await submit(api, b"x")) == (403, "quota_exceeded")
    assert await usage_of(transaction) == (len(CONTENT), 0)


async def test_a_type_that_is_not_allowed_is_refused(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(allowed_types="application/pdf", **SMALL_CHUNKS) as api:
        declared = await submit(api, b"%PDF-1.7", content_type="image/png")
        hidden = await submit(api, b"\x89PNG\r\n\x1a\n", content_type="application/pdf")
        long = await submit(api, bytes(3 * KIB64))
        allowed = await submit(api, b"%PDF-1.7")

    assert problem(declared) == problem(hidden) == problem(long) == (415, "type_not_allowed")
    assert allowed.status_code == 202
    assert await statuses(transaction) == ["cancelled", "cancelled", "finalized"]


async def test_a_repeated_form_returns_the_same_job_and_needs_no_quota(
    serve: Serve, transaction: BeginSession
) -> None:
    fields = {"callback_url": "https://example.com/hook"}
    async with serve(quota_bytes=len(CONTENT) + 10, **SMALL_CHUNKS) as api:
        first = await submit(api, headers=KEY, fields=fields)
        again = await submit(api, headers=KEY, fields=fields)
        other = await submit(api, CONTENT[:-1], headers=KEY, fields=fields)
        renamed = await submit(api, filename="b", headers=KEY, fields=fields)
        noted = await submit(api, headers=KEY, fields={**fields, "note": "another"})

    assert first.status_code == again.status_code == 202
    assert first.json()["callback_secret"].startswith("whsec_")
    assert again.json() == first.json() | {"callback_secret": None}
    assert problem(other) == problem(renamed) == (422, "idempotency_key_reused")
    assert problem(noted) == (422, "idempotency_key_reused")
    assert await count_of(transaction, Upload) == await count_of(transaction, EventRecord) == 1


async def test_ten_concurrent_forms_with_one_key_create_one_job(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(**SMALL_CHUNKS) as api:
        answers = await asyncio.gather(*(submit(api, headers=KEY) for _ in range(10)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert await count_of(transaction, Job) == 1
    found = await statuses(transaction)
    assert found.count("finalized") == 1
    assert set(found) <= {"finalized", "cancelled"}
    assert await usage_of(transaction) == (len(CONTENT), 0)


async def test_a_client_may_wait_for_the_job_of_a_form(
    serve: Serve, transaction: BeginSession
) -> None:
    async def settle(worker: Callable[[AsyncSession, str], Awaitable[None]]) -> None:
        async with asyncio.timeout(10):
            # The client does not know its job before the answer.
            for _ in count():
                async with transaction() as session:
                    job_id = await session.scalar(select(Job.id).where(Job.status == "queued"))
                    if job_id is not None:
                        await worker(session, str(job_id))
                        return
                await asyncio.sleep(0.02)

    async with serve(uploads_async_enabled=False) as api:
        done, _ = await asyncio.gather(submit(api), settle(store))
        failed, _ = await asyncio.gather(
            submit(api, headers={"Prefer": "wait=20"}),
            settle(partial(fail, code="staging_corrupt", error_detail="it is broken")),
        )
        at_once = await submit(api, headers={"Prefer": "respond-async"})

    assert (done.status_code, done.json()["success"]) == (200, True)
    assert done.json()["status"] == "completed"
    assert (failed.status_code, failed.json()["success"]) == (200, False)
    assert failed.json()["message"] == "it is broken"
    assert failed.headers["preference-applied"] == "wait=20"
    assert (at_once.status_code, at_once.json()["status"]) == (202, "queued")
    assert at_once.headers["preference-applied"] == "respond-async"


async def test_finalize_answers_at_once_if_the_client_prefers_it(serve: Serve) -> None:
    async with serve(uploads_async_enabled=False) as api:
        upload_id = await api.sent(b"content")
        answer = await api.finalize(upload_id, headers={"Prefer": "respond-async"})

    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["preference-applied"] == "respond-async"


@over_both_stagings
async def test_a_client_that_disconnects_within_a_form_leaves_nothing(
    start: Start, make_key: MakeKey, staged: Staged, transaction: BeginSession
) -> None:
    process = await start(CHUNK_SIZE_DEFAULT="64KiB")
    key = await make_key()
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(
        b"POST /api/v1/upload-async HTTP/1.1\r\nHost: gateway\r\n"
        b"Authorization: Bearer " + key.encode() + b"\r\n"
        b"Content-Type: multipart/form-data; boundary=X\r\nContent-Length: 10000000\r\n\r\n"
        b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + CONTENT
    )
    await writer.drain()
    async with asyncio.timeout(20):
        for _ in count():
            if len(process.logged("chunk.receiving")) == 4:
                break
            await asyncio.sleep(0.02)
    assert await usage_of(transaction) > (9_000_000, 0)

    writer.transport.abort()

    await process.first_logged("upload.cancelled")
    await process.first_logged("http.request")
    assert await reader.read() == b""
    upload = await upload_in(transaction)
    assert upload.status == "cancelled"
    assert await usage_of(transaction) == (0, 0)
    assert await count_of(transaction, EventRecord) == 1
    assert staged.scratch() == []
    if upload.staging == "directory":
        assert staged.count(str(upload.id)) == 0
    assert process.logged("http.failed") == []


async def test_a_client_that_is_still_sending_receives_the_refusal(
    start: Start, make_key: MakeKey
) -> None:
    process = await start(UPLOAD_MAX_SIZE="1MiB")
    content = bytes(32 * MIB)
    async with api_of(process, await make_key()) as api:
        for _ in range(3):
            assert problem(await submit(api, content)) == (413, "file_too_large")
            wrong = await submit(api, content[: MIB // 2], fields={"priority": "high"})
            assert problem(wrong) == (400, "invalid_request")
        assert (await submit(api)).status_code == 202


async def test_memory_does_not_grow_with_the_file(start: Start, make_key: MakeKey) -> None:
    process = await start()
    size = 128 * MIB
    head = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    end = b"\r\n--X--\r\n"

    async def form() -> AsyncIterator[bytes]:
        yield head
        for _ in range(size // MIB):
            yield bytes(MIB)
        yield end

    async with api_of(process, await make_key()) as api:
        assert (await submit(api)).status_code == 202
        resident = psutil.Process(process.process.pid).memory_info
        before, peak = resident().rss, 0
        sending = asyncio.create_task(
            api.ask(
                "POST",
                "/upload-async",
                content=form(),
                headers={
                    "Content-Type": "multipart/form-data; boundary=X",
                    "Content-Length": str(len(head) + size + len(end)),
                },
            )
        )
        while not sending.done():
            peak = max(peak, resident().rss)
            await asyncio.sleep(0.02)
        answer = await sending

        assert answer.status_code == 202, answer.text
        manifest = (await api.get(f"/uploads/{answer.json()['upload_id']}")).json()
    assert manifest["size"] == size
    assert peak - before < 16 * MIB


async def test_a_reference_creates_a_job(api: Api, transaction: BeginSession) -> None:
    key = await own_prefix(transaction) + "2026/a.pdf"

    answer = await submit_reference(api, key, content_type="application/pdf", metadata={"k": "v"})

    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body.keys() == ANSWER_FIELDS
    assert body["filename"] == "a.pdf"
    upload = await upload_in(transaction)
    assert (upload.id, upload.status) == (UUID(body["upload_id"]), "finalized")
    assert (upload.staging, upload.source_key) == ("reference", key)
    assert (upload.size, upload.chunk_count, upload.client_metadata) == (0, 0, {"k": "v"})
    async with transaction() as session:
        (encoded,) = (await session.scalars(select(EventRecord.body))).all()
    event = decode(encoded).data
    assert isinstance(event, UploadFinalized)
    assert (str(event.job_id), event.size) == (body["job_id"], None)
    assert (await api.get(f"/jobs/{body['job_id']}")).json()["bytes_total"] == 0
    assert (await api.ask("DELETE", f"/uploads/{body['upload_id']}")).status_code == 200


async def test_another_tenants_object_is_refused(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    async with transaction() as session:
        tenants = (await session.scalars(select(Tenant))).all()
    theirs = next(tenant.id for tenant in tenants if tenant.name == "globex")

    for key in (f"incoming/{theirs}/a", "a", f"incoming/{theirs}/../x", "originals/x/y"):
        answer = await submit_reference(api, key)
        assert problem(answer) == (422, "reference_refused")
    assert (await submit_reference(stranger, f"incoming/{theirs}/a")).status_code == 202
    assert await count_of(transaction, Upload) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"object_key": ""}, "object_key"),
        ({"object_key": 5}, "object_key"),
        ({"filename": "a\nb"}, "filename"),
        ({"sha256": "zz"}, "sha256"),
        ({"metadata": {"k": 5}}, "metadata"),
        ({"priority": "high"}, "priority"),
        ({"importance": "high"}, "body"),
    ],
)
async def test_an_invalid_field_is_refused_and_named(
    shared_api: Api, wrong: dict[str, Any], field: str
) -> None:
    answer = await shared_api.ask("POST", "/jobs", json={"object_key": "incoming/x", **wrong})

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["errors"][0]["field"].startswith(field)


@pytest.mark.parametrize("content", [b"", b"{", b'{"object_key": "\xff"}', b"[" * 100_000])
async def test_malformed_json_is_refused(shared_api: Api, content: bytes) -> None:
    answer = await shared_api.ask(
        "POST", "/jobs", content=content, headers={"Content-Type": "application/json"}
    )

    assert problem(answer) == (400, "invalid_request")


async def test_a_too_large_json_body_is_refused(serve: Serve) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    async with serve(request_body_max=1000) as api:
        whole = await submit_reference(api, "incoming/" + "x" * 1000)
        headers = {"Content-Type": "application/json"}
        chunked = await api.ask("POST", "/jobs", content=pieces(), headers=headers)

    assert whole.status_code == chunked.status_code == 413


async def test_a_repeated_reference_returns_the_same_job(
    api: Api, transaction: BeginSession
) -> None:
    key = await own_prefix(transaction) + "a.pdf"

    first = await submit_reference(api, key, headers=KEY, callback_url="https://example.com/hook")
    again = await submit_reference(api, key, headers=KEY, callback_url="https://example.com/hook")
    other = await submit_reference(api, key + "x", headers=KEY)

    assert first.status_code == again.status_code == 202
    assert first.json()["callback_secret"].startswith("whsec_")
    assert again.json() == first.json() | {"callback_secret": None}
    assert problem(other) == (422, "idempotency_key_reused")
    assert await count_of(transaction, Job) == await count_of(transaction, EventRecord) == 1


async def test_a_reference_of_a_forbidden_type_or_over_the_quota_is_refused(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(allowed_types="application/pdf") as api:
        key = await own_prefix(transaction) + "a"
        refused = await submit_reference(api, key, content_type="image/png")
        assert problem(refused) == (415, "type_not_allowed")
        await api.finalized(b"%PDF-1.7")
        async with transaction() as session:
            await quotas.change(
                session,
                tenant="acme",
                changes=quotas.QuotaChanges(quota_bytes=1),
                settings=QuotaSettings(),
            )
        assert problem(await submit_reference(api, key)) == (403, "quota_exceeded")
