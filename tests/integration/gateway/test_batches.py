"""Batches over HTTP: received line by line, listed, reported, paused, resumed and cancelled."""

import asyncio
import csv
import gzip
import io
import json
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import pytest
from sqlalchemy import func, select, update

from gateway.batches.receive import KEPT_BYTES, LEASE
from schemas import object_keys
from schemas.events.batches import BatchReceived
from schemas.events.envelope import decode
from schemas.ids import BatchId, JobId
from schemas.lifecycle import BatchStatus
from schemas.tables.batches import Batch, BatchLine
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import Api, BeginSession, PausedBody, content_digest, problem
from tests.integration.gateway.conftest import MakeKey, Serve, Start
from tests.integration.gateway.process import Process, api_of

pytestmark = pytest.mark.anyio

TYPE = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def prefix(api: Api, transaction: BeginSession) -> str:  # noqa: ARG001  # its key makes the tenant
    """The prefix of the objects that acme may submit."""
    return await prefix_of(transaction)


async def prefix_of(transaction: BeginSession) -> str:
    async with transaction() as session:
        tenant_id = (await session.scalars(select(Tenant.id).where(Tenant.name == "acme"))).one()
    return object_keys.incoming(tenant_id)


def body_of(lines: Iterable[dict[str, Any] | bytes]) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def objects(prefix: str, count: int) -> bytes:
    return body_of({"object_key": f"{prefix}{number}.pdf"} for number in range(count))


async def post(
    api: Api,
    body: bytes | AsyncIterator[bytes],
    *,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    **query: Any,  # noqa: ANN401  # any parameter
) -> httpx.Response:
    keyed = {"Idempotency-Key": key} if key else {}
    return await api.ask(
        "POST", "/batches", content=body, headers=TYPE | keyed | (headers or {}), params=query
    )


async def posted(api: Api, body: bytes, **query: Any) -> dict[str, Any]:  # noqa: ANN401  # any parameter
    answer = await post(api, body, **query)
    assert answer.status_code == 202, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


async def items_of(api: Api, batch: dict[str, Any], **query: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # any parameter
    answer = await api.get(f"/batches/{batch['batch_id']}/items", **query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def end(transaction: BeginSession, batch: dict[str, Any]) -> None:
    """End a batch as its worker does."""
    async with transaction() as session:
        await session.execute(
            update(Batch)
            .where(Batch.id == UUID(batch["batch_id"]))
            .values(
                status=BatchStatus.COMPLETED,
                completed=Batch.lines - Batch.rejected,
                finished_at=func.now(),
                expires_at=func.now() + timedelta(days=1),
            )
        )


async def test_the_lines_of_a_new_batch_wait_for_their_turn(
    api: Api, prefix: str, transaction: BeginSession
) -> None:
    body = body_of(
        [
            {"object_key": f"{prefix}a/b.pdf", "metadata": {"n": "1", "tab": "\t\\N \\."}},
            b"{",
            b"",
            {"object_key": f"{prefix}c.pdf", "filename": "d \U0001f9fe.pdf", "sha256": "0" * 64},
        ]
    )

    answer = await post(api, body, events="batch", metadata=["project:x", "n:0"])

    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert answer.headers["location"] == batch["status_url"]
    assert (batch["status"], batch["events"]) == ("processing", "batch")
    assert batch["metadata"] == {"project": "x", "n": "0"}
    assert batch["counts"] == {
        "lines": 3,
        "rejected": 1,
        "waiting": 2,
        "started": 0,
        "completed": 0,
        "failed": 0,
        "cancelled": 0,
    }
    assert batch["expires_at"] is None
    assert (await api.get(f"/batches/{batch['batch_id']}")).json() == batch
    items = await items_of(api, batch)
    assert [(item["line"], item["state"]) for item in items] == [
        (1, "waiting"),
        (2, "rejected"),
        (4, "waiting"),
    ]
    assert items[1]["error_code"] == "invalid_request"
    job = (await api.get(f"/jobs/{batch['job_id']}")).json()
    assert (job["kind"], job["stage"], job["status"]) == ("batch", "batch", "queued")
    assert (job["steps"][0]["total"], job["steps"][0]["unit"]) == (3, "lines")
    async with transaction() as session:
        sources = (await session.scalars(select(BatchLine.source).order_by(BatchLine.line))).all()
        event = (
            await session.scalars(select(EventRecord).where(EventRecord.type == BatchReceived.TYPE))
        ).one()
        queue = await session.scalar(
            select(OutboxMessage.queue).where(OutboxMessage.event_id == event.id)
        )
    assert sources == [
        {
            "object_key": f"{prefix}a/b.pdf",
            "filename": "b.pdf",
            "metadata": {"n": "1", "tab": "\t\\N \\."},
        },
        None,
        {
            "object_key": f"{prefix}c.pdf",
            "filename": "d \U0001f9fe.pdf",
            "sha256": "0" * 64,
        },
    ]
    assert queue == "batch_processing"
    assert decode(event.body).data == BatchReceived(
        batch_id=BatchId(UUID(batch["batch_id"])), job_id=JobId(UUID(batch["job_id"]))
    )


async def test_a_broken_line_rejects_itself_alone(serve: Serve, transaction: BeginSession) -> None:
    async with serve(batch_line_bytes_max=2000, allowed_types="application/pdf") as api:
        prefix = await prefix_of(transaction)
        good = {"object_key": f"{prefix}a.pdf"}
        broken: list[tuple[dict[str, Any] | bytes, str]] = [
            (b'{"object_key": "\xff\xfe"}', "invalid_request"),
            (b"\x00\x00", "invalid_request"),
            (b'{"\\u0000": 1}', "invalid_request"),
            (good | {"filename": "a\x00"}, "invalid_request"),
            (good | {"metadata": {"a": "\x00"}}, "invalid_request"),
            (b"[" * 1999, "invalid_request"),
            (b'{"object_key": "' + b"a" * 100_000 + b'"}', "line_too_long"),
            (good | {"upload_id": str(uuid4())}, "invalid_request"),
            ({"object_key": f"incoming/{uuid4()}/a"}, "reference_refused"),
            ({"object_key": f"{prefix}../a"}, "reference_refused"),
            (good | {"content_type": "image/png"}, "type_not_allowed"),
            ({"upload_id": str(uuid4())}, "upload_not_found"),
        ]
        body = (
            body_of(line for each, _ in broken for line in (good, each)) + json.dumps(good).encode()
        )

        batch = await posted(api, body)

        assert batch["counts"]["lines"] == 2 * len(broken) + 1
        assert batch["counts"]["rejected"] == len(broken)
        items = await items_of(api, batch)
        assert [item["error_code"] for item in items[1::2]] == [code for _, code in broken]
        assert {item["state"] for item in items[0::2]} == {"waiting"}
        assert [item["line"] for item in items] == list(range(1, len(items) + 1))
        rejected = await items_of(api, batch, state="rejected")
        assert rejected == items[1::2]
        assert all(item["error_detail"] for item in rejected)


async def test_a_line_names_an_open_upload_of_its_tenant_once(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    first, second = [await api.created(size=4) for _ in range(2)]
    finalized, _ = await api.finalized()
    expired = await api.created(size=4)
    foreign = await stranger.created(size=4)
    async with transaction() as session:
        await session.execute(
            update(Upload).where(Upload.id == UUID(expired)).values(expires_at=func.now())
        )
    ids = [first, first, second, finalized, expired, foreign, first.upper()]

    batch = await posted(api, body_of({"upload_id": each} for each in ids))

    items = await items_of(api, batch)
    assert [item["error_code"] for item in items] == [
        None,
        "line_repeated",
        None,
        "upload_not_open",
        "upload_expired",
        "upload_not_found",
        "line_repeated",
    ]
    assert [item["upload_id"] for item in items] == [each.lower() for each in ids]
    assert (batch["counts"]["waiting"], batch["counts"]["rejected"]) == (2, 5)


async def test_an_upload_is_named_once_also_in_another_piece_of_the_body(api: Api) -> None:
    upload_id = await api.created(size=4)
    line = {"upload_id": upload_id}

    batch = await posted(api, body_of([line] + [{}] * 4000 + [line]))

    assert batch["counts"]["waiting"] == 1
    last = (await api.get(f"/batches/{batch['batch_id']}/report")).text.splitlines()[-1]
    assert json.loads(last)["error_code"] == "line_repeated"


@pytest.mark.parametrize(
    ("body", "headers", "field"),
    [
        pytest.param(b"", {}, "body", id="empty"),
        pytest.param(b"\n \r\n\n", {}, "body", id="empty lines"),
        pytest.param(b"{}", {"Content-Type": "application/json"}, "Content-Type", id="JSON"),
        pytest.param(b"{}", {"Content-Type": ""}, "Content-Type", id="no type"),
        pytest.param(
            gzip.compress(b"{}"), {"Content-Encoding": "gzip"}, "Content-Encoding", id="gzip"
        ),
        pytest.param(
            b"{}", {"Content-Range": "bytes 0-1/2"}, "Content-Range", id="a part of a body"
        ),
    ],
)
async def test_a_body_without_lines_is_refused(
    shared_api: Api,
    shared_transaction: BeginSession,
    *,
    body: bytes,
    headers: dict[str, str],
    field: str,
) -> None:
    answer = await post(shared_api, body, headers=headers)

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["errors"][0]["field"] == field
    assert await batches(shared_transaction) == []


async def test_metadata_of_the_batch_is_checked(api: Api) -> None:
    for wrong in ("a", ":b", "a:\x00"):
        answer = await post(api, b"{}", metadata=wrong)
        assert problem(answer) == (400, "invalid_request")
        assert answer.json()["errors"][0]["field"] == "metadata"


async def batches(transaction: BeginSession) -> list[Batch]:
    async with transaction() as session:
        return list((await session.scalars(select(Batch))).all())


async def test_a_batch_that_is_too_large_is_refused_and_hidden(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(batch_lines_max=5000, batch_bytes_max=1_000_000) as api:
        prefix = await prefix_of(transaction)
        assert (await post(api, b"{}\n" * 5000)).status_code == 202
        for body in (b"{}\n" * 5001, objects(prefix, 3) + b" " * 1_000_000):
            assert problem(await post(api, body)) == (413, "batch_too_large")
        listed = (await api.get("/batches")).json()["items"]
        assert [batch["counts"]["lines"] for batch in listed] == [5000]
    found = await batches(transaction)
    # The lines of the first refused body were partly written; a sweep deletes them.
    assert [batch.status for batch in found].count(BatchStatus.RECEIVING) == 1
    async with transaction() as session:
        now = (await session.scalars(select(func.now()))).one()
    assert all(batch.expires_at <= now for batch in found if batch.status is BatchStatus.RECEIVING)


async def test_a_wrong_digest_keeps_nothing(api: Api, prefix: str) -> None:
    body = objects(prefix, 3)
    answer = await post(api, body, headers=content_digest(b"other"))
    assert problem(answer) == (400, "body_digest_mismatch")
    assert (await post(api, body, headers=content_digest(body))).status_code == 202
    listed = (await api.get("/batches")).json()["items"]
    assert len(listed) == 1


async def test_a_repeated_request_returns_the_same_batch(
    api: Api, prefix: str, transaction: BeginSession
) -> None:
    body = objects(prefix, 3000)

    answers = await asyncio.gather(*(post(api, body, key="k") for _ in range(3)))
    again = await post(api, body, key="k")

    assert [answer.status_code for answer in (*answers, again)] == [202] * 4
    assert len({answer.json()["batch_id"] for answer in (*answers, again)}) == 1
    for other in (
        await post(api, objects(prefix, 2), key="k"),
        await post(api, body, key="k", events="batch"),
        await post(api, body, key="k", metadata="a:b"),
    ):
        assert problem(other) == (422, "idempotency_key_reused")
    assert len((await api.get("/batches")).json()["items"]) == 1
    async with transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 1


async def test_batches_are_listed_newest_first(api: Api, prefix: str) -> None:
    made = [await posted(api, objects(prefix, 1)) for _ in range(3)]

    first = (await api.get("/batches", limit=2)).json()
    second = (await api.get("/batches", limit=2, cursor=first["next_cursor"])).json()

    assert first["items"] + second["items"] == made[::-1]
    assert second["next_cursor"] is None


async def test_lines_are_listed_page_by_page(api: Api, prefix: str) -> None:
    good = {"object_key": f"{prefix}a"}
    batch = await posted(api, body_of([good, b"{", good, b"[", good]))
    path = f"/batches/{batch['batch_id']}/items"

    found, cursor = [], None
    while True:
        page = (
            await api.get(path, limit=1, state="waiting", **({"cursor": cursor} if cursor else {}))
        ).json()
        found += [item["line"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert found == [1, 3, 5]
    assert problem(await api.get(path, cursor="x")) == (400, "invalid_request")
    assert problem(await api.get(path, state="lost")) == (400, "invalid_request")


async def test_the_report_has_every_line(api: Api, prefix: str) -> None:
    good = {"object_key": f'{prefix}=1 "a", b'}
    batch = await posted(api, body_of([good, b'{"=cmd": 1}'] * 1500))
    path = f"/batches/{batch['batch_id']}/report"

    lines = await api.get(path)
    table = await api.get(path, format="csv")
    head = await api.ask("HEAD", path)

    assert lines.headers["content-type"] == "application/jsonl"
    assert lines.headers["content-disposition"].endswith('.jsonl"')
    items = [json.loads(line) for line in lines.text.splitlines()]
    assert [item["line"] for item in items] == list(range(1, 3001))
    assert [item["state"] for item in items] == ["waiting", "rejected"] * 1500
    assert items[:50] == await items_of(api, batch)
    rows = list(csv.DictReader(io.StringIO(table.text, newline="")))
    assert [int(row["line"]) for row in rows] == list(range(1, 3001))
    assert rows[0]["object_key"] == good["object_key"]
    assert (head.status_code, head.content) == (200, b"")
    assert problem(await api.get(path, format="parquet")) == (400, "invalid_request")


async def test_a_batch_is_paused_and_resumed(
    api: Api, prefix: str, transaction: BeginSession
) -> None:
    batch = await posted(api, objects(prefix, 3))
    path = f"/batches/{batch['batch_id']}"

    paused = [(await api.ask("POST", f"{path}/pause")).json() for _ in range(2)]
    resumed = [(await api.ask("POST", f"{path}/resume")).json() for _ in range(2)]

    assert [each["status"] for each in (*paused, *resumed)] == [
        "paused",
        "paused",
        "processing",
        "processing",
    ]
    async with transaction() as session:
        # The release of the step, and one for the first resume.
        assert (
            await session.scalar(
                select(func.count())
                .select_from(OutboxMessage)
                .where(OutboxMessage.queue == "batch_processing")
            )
            == 2
        )
    await end(transaction, batch)
    for action in ("pause", "resume"):
        answer = await api.ask("POST", f"{path}/{action}")
        assert problem(answer) == (409, "batch_ended")


async def test_a_cancelled_batch_stays_cancelled(
    api: Api, prefix: str, transaction: BeginSession
) -> None:
    batch = await posted(api, objects(prefix, 3))
    path = f"/batches/{batch['batch_id']}"
    await api.ask("POST", f"{path}/pause")

    cancelled = [await api.ask("POST", f"{path}/cancel") for _ in range(2)]

    assert [answer.json()["status"] for answer in cancelled] == ["cancelled"] * 2
    for action in ("pause", "resume"):
        answer = await api.ask("POST", f"{path}/{action}")
        assert problem(answer) == (409, "batch_ended")
    assert (await api.get(f"/jobs/{batch['job_id']}")).json()["status"] == "cancelled"
    other = await posted(api, objects(prefix, 3))
    await end(transaction, other)
    answer = await api.ask("POST", f"/batches/{other['batch_id']}/cancel")
    assert problem(answer) == (409, "batch_ended")


async def test_batches_of_others_are_not_found(api: Api, prefix: str, stranger: Api) -> None:
    batch = await posted(api, objects(prefix, 1))
    path = f"/batches/{batch['batch_id']}"

    for method, rest in (
        ("GET", ""),
        ("GET", "/items"),
        ("GET", "/report"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/cancel"),
    ):
        answer = await stranger.ask(method, path + rest)
        assert problem(answer) == (404, "batch_not_found")
    assert (await stranger.get("/batches")).json()["items"] == []
    assert (await api.get(path)).json() == batch


async def test_too_many_batches_are_refused(serve: Serve, transaction: BeginSession) -> None:
    async with serve(tenant_batches_max=2) as api:
        body = objects(await prefix_of(transaction), 1)
        first, _ = [await posted(api, body) for _ in range(2)]

        refused = await post(api, body)

        assert problem(refused) == (429, "too_many_batches")
        assert int(refused.headers["retry-after"]) > 0
        await end(transaction, first)
        assert (await post(api, body)).status_code == 202


async def begun(process: Process, key: str, body: bytes) -> asyncio.StreamWriter:
    """Send the head of a request, and a part of its body; nothing waits for the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(
        b"POST /api/v1/batches HTTP/1.1\r\nHost: gateway\r\n"
        b"Authorization: Bearer " + key.encode() + b"\r\n"
        b"Content-Type: application/x-ndjson\r\nContent-Length: 100000000\r\n\r\n" + body
    )
    await writer.drain()
    return writer


async def test_a_body_that_breaks_off_leaves_nothing_visible(
    start: Start, make_key: MakeKey, transaction: BeginSession
) -> None:
    process, key = await start(), await make_key()
    prefix = await prefix_of(transaction)
    writer = await begun(process, key, objects(prefix, 2500))
    await process.first_logged("batch.receiving")

    writer.transport.abort()

    await process.first_logged("http.request")
    (batch,) = await batches(transaction)
    async with transaction() as session:
        now = (await session.scalars(select(func.now()))).one()
        assert await session.scalar(select(func.count()).select_from(Job)) == 0
        assert await session.scalar(select(func.count()).select_from(BatchLine)) == 2000
    assert batch.status is BatchStatus.RECEIVING
    assert batch.expires_at <= now
    async with api_of(process, key) as api:
        assert (await api.get("/batches")).json()["items"] == []
        assert problem(await api.get(f"/batches/{batch.id}")) == (404, "batch_not_found")
    assert process.logged("http.failed") == []


async def test_a_short_body_that_breaks_off_leaves_no_row(
    start: Start, make_key: MakeKey, transaction: BeginSession
) -> None:
    process, key = await start(), await make_key()
    writer = await begun(process, key, objects(await prefix_of(transaction), 5))

    writer.transport.abort()

    await process.first_logged("http.request")
    assert await batches(transaction) == []


async def test_a_batch_whose_lease_ended_is_not_completed(
    start: Start, make_key: MakeKey, transaction: BeginSession
) -> None:
    process, key = await start(), await make_key()
    prefix = await prefix_of(transaction)
    written = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield objects(prefix, 2500)
        await written.wait()
        yield objects(prefix, 1)

    async with api_of(process, key) as api:
        sending = asyncio.create_task(post(api, body()))
        await process.first_logged("batch.receiving")
        async with transaction() as session:
            await session.execute(update(Batch).values(expires_at=func.now()))
        written.set()

        assert problem(await sending) == (503, "unavailable")
        assert (await api.get("/batches")).json()["items"] == []


async def test_a_batch_is_sent_again_after_its_gateway_was_killed(
    start: Start, make_key: MakeKey, transaction: BeginSession
) -> None:
    killed, key = await start(), await make_key()
    body = objects(await prefix_of(transaction), 2500)
    writer = await begun(killed, key, body)
    await killed.first_logged("batch.receiving")

    await killed.kill()
    writer.transport.abort()

    async with api_of(await start(), key) as api:
        assert (await api.get("/batches")).json()["items"] == []
        first = await post(api, body, key="k")
        again = await post(api, body, key="k")
        assert first.json()["counts"]["waiting"] == 2500
        assert again.json() == first.json()
    left = {batch.status: batch for batch in await batches(transaction)}
    assert left.keys() == {BatchStatus.RECEIVING, BatchStatus.PROCESSING}
    async with transaction() as session:
        now = (await session.scalars(select(func.now()))).one()
    # Then a sweep deletes it.
    assert left[BatchStatus.RECEIVING].expires_at <= now + LEASE


async def test_the_bodies_of_batches_take_a_bounded_share_of_memory(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(body_memory_max=KEPT_BYTES * 2, body_memory_share=0.5) as api:
        body = objects(await prefix_of(transaction), 10)
        paused = PausedBody(body)
        sending = asyncio.create_task(post(api, aiter(paused)))
        await paused.has_started.wait()

        refused = await post(api, body)

        assert problem(refused) == (429, "too_many_bodies")
        paused.may_continue.set()
        assert (await sending).status_code == 202
        assert (await post(api, body)).status_code == 202


async def test_memory_does_not_grow_with_the_batch(
    start: Start, make_key: MakeKey, transaction: BeginSession
) -> None:
    process, key = await start(), await make_key()
    prefix = await prefix_of(transaction)
    piece = objects(prefix, 1000)

    async def body(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield piece

    async with api_of(process, key) as api:
        assert (await post(api, body(10))).status_code == 202
        resident = psutil.Process(process.process.pid).memory_info
        before = resident().rss
        answer = await post(api, body(100))
        assert answer.json()["counts"]["waiting"] == 100_000
        async with api.http.stream(
            "GET",
            f"/api/v1/batches/{answer.json()['batch_id']}/report",
            headers=api.authorization,
        ) as report:
            count = 0
            async for line in report.aiter_lines():
                count += bool(line)
        assert count == 100_000
        assert resident().rss - before < 16 * 1024 * 1024
