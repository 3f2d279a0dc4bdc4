"""Exports over HTTP: requested, followed, downloaded, cancelled and deleted."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import func, select, update

from schemas import object_keys
from schemas.api.scopes import Scope
from schemas.events.envelope import decode
from schemas.events.exports import ExportRequested
from schemas.ids import ExportId, JobId, TenantId
from schemas.lifecycle import ExportKind, StepStatus
from schemas.runtime import s3
from schemas.settings import ObjectStoreSettings
from schemas.steps import StepName
from schemas.tables.events import EventRecord
from schemas.tables.export_kinds import KINDS
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from tests.factories.jobs import step_update
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve

pytestmark = pytest.mark.anyio


async def create(
    api: Api,
    *,
    key: str | None = None,
    **body: Any,  # noqa: ANN401  # any field of the API
) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else None
    return await api.ask("POST", "/exports", json={"kind": "documents", **body}, headers=headers)


async def created(api: Api, **body: Any) -> dict[str, Any]:  # noqa: ANN401  # any field of the API
    answer = await create(api, **body)
    assert answer.status_code == 202, answer.text
    export: dict[str, Any] = answer.json()
    return export


async def end(
    transaction: BeginSession,
    export: dict[str, Any],
    status: StepStatus = StepStatus.COMPLETED,
    **columns: Any,  # noqa: ANN401  # any column
) -> str:
    """End the step of an export, as a worker does; return the key of its file."""
    async with transaction() as session:
        row = await session.get_one(Export, UUID(export["export_id"]))
        key = object_keys.export_file(row.tenant_id, row.id, attempt=uuid4())
        if status is StepStatus.COMPLETED:
            row.rows, row.size, row.sha256, row.object_key = 2, 9, "0" * 64, key
        await session.execute(step_update(export["job_id"], StepName.EXPORT, StepStatus.RUNNING))
        await session.execute(step_update(export["job_id"], StepName.EXPORT, status, **columns))
    return key


async def test_a_new_export_waits_for_a_worker(api: Api, transaction: BeginSession) -> None:
    answer = await create(
        api,
        format="jsonl",
        filter={"status": "ingested", "created_after": "2026-01-01T00:00:00Z"},
        columns=["size", "filename"],
    )

    assert answer.status_code == 202, answer.text
    export = answer.json()
    assert answer.headers["location"] == export["status_url"]
    assert (export["status"], export["rows"], export["size"]) == ("queued", 0, None)
    assert export["filter"] == {"status": "ingested", "created_after": "2026-01-01T00:00:00Z"}
    assert export["columns"] == ["size", "filename"]
    assert export["filename"].startswith("documents-")
    assert export["filename"].endswith(".jsonl")
    assert export["expires_at"] is None
    assert (await api.get(f"/exports/{export['export_id']}")).json() == export
    job = (await api.get(f"/jobs/{export['job_id']}")).json()
    assert (job["kind"], job["stage"], job["status"]) == ("export", "export", "queued")
    async with transaction() as session:
        event = (
            await session.scalars(
                select(EventRecord).where(EventRecord.type == ExportRequested.TYPE)
            )
        ).one()
        queue = await session.scalar(
            select(OutboxMessage.queue).where(OutboxMessage.event_id == event.id)
        )
    assert queue == "exports"
    assert decode(event.body).data == ExportRequested(
        export_id=ExportId(UUID(export["export_id"])), job_id=JobId(UUID(export["job_id"]))
    )


async def test_all_columns_are_the_default(api: Api) -> None:
    for kind in ExportKind:
        export = await created(api, kind=kind)
        assert export["columns"] == [column.name for column in KINDS[kind].columns]
        assert (export["format"], export["bom"], export["raw"]) == ("csv", False, False)


async def test_a_repeated_request_returns_the_same_export(
    api: Api, transaction: BeginSession
) -> None:
    answers = await asyncio.gather(*(create(api, key="k") for _ in range(3)))

    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["export_id"] for answer in answers}) == 1
    other = await create(api, key="k", bom=True)
    assert problem(other) == (422, "idempotency_key_reused")
    async with transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({"kind": "pages"}, "kind", id="kind"),
        pytest.param({"format": "parquet"}, "format", id="format"),
        pytest.param({"columns": ["size", "password"]}, "columns", id="unknown column"),
        pytest.param({"columns": ["size", "size"]}, "columns", id="column twice"),
        pytest.param({"filter": {"label": "ORG"}}, "filter.label", id="filter of another kind"),
        pytest.param({"filter": {"status": "queued"}}, "filter.status", id="unknown status"),
        pytest.param({"filter": {"language": "d\x00"}}, "filter.language", id="NUL"),
        pytest.param({"filter": {"tenant_id": "x"}}, "tenant_id", id="unknown filter"),
        pytest.param({"format": "jsonl", "bom": True}, "bom", id="bom"),
        pytest.param({"format": "jsonl", "raw": True}, "raw", id="raw"),
    ],
)
async def test_a_request_that_no_export_can_serve_is_refused(
    shared_api: Api, shared_transaction: BeginSession, body: dict[str, Any], field: str
) -> None:
    answer = await create(shared_api, **body)

    assert problem(answer) == (400, "invalid_request")
    assert field in answer.text
    async with shared_transaction() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_exports_are_listed_newest_first(api: Api, stranger: Api) -> None:
    ids = [(await created(api))["export_id"] for _ in range(3)]
    await created(stranger)

    first = (await api.get("/exports", limit=2)).json()
    second = (await api.get("/exports", limit=2, cursor=first["next_cursor"])).json()

    assert [each["export_id"] for each in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None


async def test_the_file_is_fetched_from_the_store_under_its_name(
    serve: Serve, transaction: BeginSession, object_store_settings: ObjectStoreSettings
) -> None:
    async with serve(store=object_store_settings) as api:
        export = await created(api)
        key = await end(transaction, export)
        store = s3.client(object_store_settings)
        store.put_object(Bucket=object_store_settings.s3_bucket, Key=key, Body=b"size\r\n3\r\n")
        store.close()

        answer = await api.get(f"/exports/{export['export_id']}/file")
        shown = (await api.get(f"/exports/{export['export_id']}")).json()

    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    async with httpx.AsyncClient(timeout=30) as client:
        file = await client.get(answer.headers["location"])
    assert file.content == b"size\r\n3\r\n"
    assert file.headers["content-type"].startswith("text/csv")
    assert file.headers["content-disposition"] == f'attachment; filename="{export["filename"]}"'
    assert (shown["status"], shown["rows"], shown["size"]) == ("completed", 2, 9)
    assert shown["expires_at"] is not None


async def test_an_export_without_a_file_says_why(api: Api, transaction: BeginSession) -> None:
    export = await created(api)
    path = f"/exports/{export['export_id']}"

    assert problem(await api.get(f"{path}/file")) == (409, "export_not_ready")
    await end(
        transaction,
        export,
        StepStatus.FAILED,
        error_code="export_too_large",
        error_detail="the file would have more than 1 bytes",
        error_retryable=False,
    )

    assert problem(await api.get(f"{path}/file")) == (409, "export_not_ready")
    shown = (await api.get(path)).json()
    assert shown["status"] == "failed"
    assert shown["error"]["code"] == "export_too_large"


async def test_a_file_whose_time_is_over_is_gone(api: Api, transaction: BeginSession) -> None:
    export = await created(api)
    await end(transaction, export)
    async with transaction() as session:
        await session.execute(update(Export).values(expires_at=func.now() - timedelta(seconds=1)))

    answer = await api.get(f"/exports/{export['export_id']}/file")

    assert problem(answer) == (410, "export_expired")


async def test_progress_is_shown_in_rows(api: Api, transaction: BeginSession) -> None:
    export = await created(api)
    async with transaction() as session:
        await session.execute(
            step_update(export["job_id"], StepName.EXPORT, StepStatus.RUNNING, done=1234)
        )

    shown = (await api.get(f"/exports/{export['export_id']}")).json()

    assert (shown["status"], shown["rows"]) == ("processing", 1234)


async def test_an_unchanged_export_is_not_sent_again(api: Api, transaction: BeginSession) -> None:
    export = await created(api)
    path = f"/exports/{export['export_id']}"
    etag = (await api.get(path)).headers["etag"]
    known = {"If-None-Match": etag}

    unchanged = await api.ask("GET", path, headers=known)
    async with transaction() as session:
        await session.execute(
            step_update(export["job_id"], StepName.EXPORT, StepStatus.RUNNING, done=1)
        )
    changed = await api.ask("GET", path, headers=known)

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert (changed.status_code, changed.json()["rows"]) == (200, 1)


async def test_a_deleted_export_is_hidden_and_its_job_cancelled(
    api: Api, transaction: BeginSession
) -> None:
    export = await created(api)
    path = f"/exports/{export['export_id']}"

    assert (await api.ask("DELETE", path)).status_code == 204

    assert problem(await api.ask("DELETE", path)) == (404, "export_not_found")
    assert problem(await api.get(path)) == (404, "export_not_found")
    assert problem(await api.get(f"{path}/file")) == (404, "export_not_found")
    assert (await api.get("/exports")).json()["items"] == []
    assert (await api.get(f"/jobs/{export['job_id']}")).json()["status"] == "cancelled"
    async with transaction() as session:
        row = await session.get_one(Export, UUID(export["export_id"]))
        assert row.deleted_at is not None
        assert row.expires_at <= row.deleted_at


async def test_a_deleted_completed_export_keeps_its_job(
    api: Api, transaction: BeginSession
) -> None:
    export = await created(api)
    await end(transaction, export)

    assert (await api.ask("DELETE", f"/exports/{export['export_id']}")).status_code == 204

    assert (await api.get(f"/jobs/{export['job_id']}")).json()["status"] == "completed"


async def test_an_export_of_another_tenant_is_not_found(api: Api, stranger: Api) -> None:
    path = f"/exports/{(await created(api))['export_id']}"

    for answer in (
        await stranger.get(path),
        await stranger.get(f"{path}/file"),
        await stranger.ask("DELETE", path),
    ):
        assert problem(answer) == (404, "export_not_found")


async def test_exports_have_scopes_of_their_own(api: Api, make_key: MakeKey) -> None:
    others = api.of(
        await make_key(scopes=tuple(scope for scope in Scope if not scope.startswith("exports:")))
    )
    reader = api.of(await make_key(scopes=(Scope.EXPORTS_READ,)))
    export = await created(api)

    assert problem(await others.get("/exports")) == (403, "scope_missing")
    assert problem(await create(reader)) == (403, "scope_missing")
    answer = await reader.ask("DELETE", f"/exports/{export['export_id']}")
    assert problem(answer) == (403, "scope_missing")
    assert (await reader.get(f"/exports/{export['export_id']}")).status_code == 200


def test_the_keys_of_files_name_their_export() -> None:
    tenant_id, export_id = TenantId(uuid4()), ExportId(uuid4())
    key = object_keys.export_file(tenant_id, export_id, attempt=uuid4())

    assert key.startswith(object_keys.of_export(tenant_id, export_id))
    assert object_keys.export_of_file(key) == export_id
    assert object_keys.export_of_file(f"exports/{tenant_id}/{export_id}/x") is None
    assert object_keys.export_of_file(f"originals/{tenant_id}/{export_id}/{uuid4()}") is None
