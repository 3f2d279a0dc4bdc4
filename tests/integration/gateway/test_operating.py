"""Commands, health checks, logs, outages and stopping."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from dev.stack.checkout import CHECKOUT
from schemas.api.scopes import Scope
from schemas.lifecycle import UploadStatus
from schemas.settings import DatabaseSettings, OcrEngineName
from schemas.tables.engines import ALIVE_FOR, LiveEngine
from schemas.tables.tenants import Tenant
from tests.factories import ended
from tests.factories.secret_keys import KEY
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve, Start
from tests.integration.gateway.process import api_of, run_command, run_gateway
from tests.integration.notifier import proxy

pytestmark = pytest.mark.anyio


def remove(directory: Path) -> None:
    shutil.rmtree(directory)


async def refused(port: int) -> None:
    """Wait until the port refuses connections."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.transport.abort()
            await asyncio.sleep(0.02)


async def test_the_duplicates_of_a_tenant_are_reused_or_refused(
    make_key: MakeKey, database: DatabaseSettings
) -> None:
    await make_key(tenant="acme")
    url = database.database_url.get_secret_value()

    printed = [
        await run_command("tenants", "duplicates", *arguments, DATABASE_URL=url)
        for arguments in (("acme",), ("acme", "refuse"), ("acme",), ("acme", "reuse"))
    ]
    unknown = await run_command("tenants", "duplicates", "nobody", "refuse", DATABASE_URL=url)

    assert [out for _, out, _ in printed] == [
        "duplicates: reuse\n",
        "duplicates: refuse\n",
        "duplicates: refuse\n",
        "duplicates: reuse\n",
    ]
    assert unknown[0] == 1
    assert "there is no tenant 'nobody'" in unknown[2]


async def test_the_documents_of_a_tenant_are_kept_for_a_time_or_for_good(
    make_key: MakeKey, database: DatabaseSettings
) -> None:
    await make_key(tenant="acme")
    url = database.database_url.get_secret_value()

    printed = [
        await run_command("tenants", "retention", *arguments, DATABASE_URL=url)
        for arguments in (
            ("acme",),
            ("acme", "--documents", "90d"),
            ("acme",),
            ("acme", "--documents", "none"),
        )
    ]
    refused = [
        await run_command("tenants", "retention", *arguments, DATABASE_URL=url)
        for arguments in (("nobody", "--documents", "1d"), ("acme", "--documents", "90"))
    ]

    assert [out for _, out, _ in printed] == [
        "documents: none\n",
        "documents: 90d\n",
        "documents: 90d\n",
        "documents: none\n",
    ]
    assert [code for code, _, _ in refused] == [1, 2]
    assert "there is no tenant 'nobody'" in refused[0][2]


async def test_a_dry_run_counts_what_the_sweeps_delete(
    make_key: MakeKey, transaction: BeginSession, database: DatabaseSettings
) -> None:
    await make_key(tenant="acme")
    url = database.database_url.get_secret_value()
    async with transaction() as session:
        await session.run_sync(_add_old_rows)

    code, out, err = await run_command("retention", "--dry-run", "--json", DATABASE_URL=url)
    table = await run_command("retention", "--dry-run", DATABASE_URL=url, JOB_RETENTION="36500d")
    without_flag = await run_command("retention", DATABASE_URL=url)

    assert (code, err) == (0, "")
    counts = {each["area"]: (each["rows"], each["oldest"]) for each in json.loads(out)}
    oldest = "2026-01-01T00:00:00+00:00"
    assert counts.pop("jobs") == (2, oldest)
    assert counts.pop("uploads") == (1, oldest)
    assert counts.pop("documents") == (1, oldest)
    assert set(counts.values()) == {(0, None)}
    assert [line.split() for line in table[1].splitlines()[:2]] == [
        ["AREA", "ROWS", "OLDEST", "KEPT", "FOR"],
        ["jobs", "0", "-", "JOB_RETENTION=36500d"],
    ]
    assert without_flag[0] == 2


def _add_old_rows(session: Session) -> None:
    tenant_id = session.scalars(select(Tenant.id)).one()
    ended.keep_documents_for(session, tenant_id, timedelta(days=90))
    ended.add_document(session, tenant_id)
    ended.add_document(session, tenant_id, at=ended.yesterday(session))
    ended.add_job(session, tenant_id)
    ended.add_upload(session, tenant_id, status=UploadStatus.EXPIRED, is_finalized=False)


async def test_a_created_key_works_is_listed_and_can_be_revoked(
    serve: Serve, database: DatabaseSettings
) -> None:
    async def command(*arguments: str) -> str:
        url = database.database_url.get_secret_value()
        code, out, err = await run_command(*arguments, DATABASE_URL=url)
        assert (code, err) == (0, "")
        return out

    created = await command("keys", "create", "umbrella", "--scope", "uploads:read")
    found = re.fullmatch(r"id: (\S+)\nprefix: (\S+)\nkey: (wb_[A-Za-z0-9_-]{43})\n", created)
    assert found
    key_id, prefix, key = found.groups()
    assert key.startswith(prefix)
    listed = await command("keys", "list", "umbrella")
    async with serve(api_key_cache="1ms") as api:
        caller = api.of(key)
        assert (await caller.get("/jobs")).json()["items"] == []
        assert problem(await caller.create(size=1)) == (403, "scope_missing")
        revoked = await command("keys", "revoke", key_id)
        assert problem(await caller.get("/jobs")) == (401, "unauthenticated")

    header, row = listed.splitlines()
    assert re.split("  +", header) == [
        *("TENANT", "ID", "PREFIX", "NAME", "CREATED AT", "LAST USED AT", "EXPIRES AT"),
        *("REVOKED AT", "STATE", "SCOPES"),
    ]
    assert row.split()[:4] == ["umbrella", key_id, prefix, "-"]
    assert row.split()[5:] == ["-", "-", "-", "active", "uploads:read"]
    assert key not in listed
    assert await command("keys", "revoke", key_id) == revoked
    assert revoked.split()[1] in await command("keys", "list")
    assert "umbrella" in await command("tenants", "list")


async def test_the_order_to_delete_a_tenant_revokes_its_keys_and_refuses_new_ones(
    serve: Serve, make_key: MakeKey, database: DatabaseSettings
) -> None:
    async def command(*arguments: str) -> tuple[int | None, str, str]:
        url = database.database_url.get_secret_value()
        return await run_command(*arguments, DATABASE_URL=url)

    async with serve(api_key_cache="1ms") as api:
        deleted, other = (
            api.of(await make_key(tenant="leaving")),
            api.of(await make_key(tenant="staying")),
        )
        await deleted.created(size=1)
        counted = await command("tenants", "delete", "leaving", "--dry-run")
        assert (await deleted.get("/jobs")).status_code == 200
        ordered = [
            await command("tenants", "delete", "leaving", "--yes", "--no-wait") for _ in range(2)
        ]

        assert problem(await deleted.get("/jobs")) == (401, "unauthenticated")
        assert (await other.get("/jobs")).status_code == 200
    refused = await command("keys", "create", "leaving")
    unknown = await command("tenants", "delete", "nobody", "--yes")
    neither = await command("tenants", "delete", "staying")

    assert [line.split() for line in counted[1].splitlines()] == [
        ["TABLE", "ROWS"],
        ["api_keys", "1"],
        ["tenant_usage", "1"],
        ["tenants", "1"],
        ["uploads", "1"],
    ]
    assert [code for code, _, _ in ordered] == [0, 0]
    assert ordered[0] == ordered[1]
    assert refused[0] == 1
    assert "the tenant 'leaving' is being deleted" in refused[2]
    assert (unknown[0], neither[0]) == (1, 2)
    assert "there is no tenant 'nobody'" in unknown[2]
    assert "give either --dry-run or --yes" in neither[2]


async def test_an_unknown_key_cannot_be_revoked(database: DatabaseSettings) -> None:
    code, out, err = await run_command(
        *("keys", "revoke", "00000000-0000-0000-0000-000000000001"),
        DATABASE_URL=database.database_url.get_secret_value(),
    )

    assert (code, out) == (1, "")
    assert "there is no API key" in err


def test_the_help_of_the_command_imports_no_server() -> None:
    # A new interpreter: a forked process has imported the server.
    command = (sys.executable, "-v", "-m", "gateway.administration.cli", "--help")
    ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=CHECKOUT, env={})
    out, err = ran.stdout, ran.stderr

    assert "keys" in out
    assert "import 'click'" in err
    assert "import 'litestar'" not in err
    assert "import 'sqlalchemy'" not in err


async def test_all_keys_of_a_tenant_see_its_uploads(api: Api, make_key: MakeKey) -> None:
    upload_id = await api.created(size=1)
    reader = api.of(await make_key(scopes=(Scope.UPLOADS_READ,)))

    assert (await reader.get(f"/uploads/{upload_id}")).status_code == 200


async def test_a_missing_setting_is_named() -> None:
    code, out, err = await run_gateway(
        DATABASE_URL="postgresql+psycopg://u:hunter2@h/d", SECRET_KEYS=KEY
    )

    assert (code, out) == (2, "")
    assert "STAGING_DIR" in err
    assert "hunter2" not in err


async def test_messages_about_settings_name_the_program_that_ran() -> None:
    for run, program in (
        (run_gateway(), "python -m gateway"),
        (run_command("tenants", "list"), "python -m gateway.administration.cli"),
    ):
        code, _, err = await run
        assert code == 2
        assert f"{program}: setting DATABASE_URL: Field required\n" in err


async def test_staging_in_the_bucket_requires_the_store_settings() -> None:
    code, out, err = await run_gateway(
        DATABASE_URL="postgresql+psycopg://u:p@h/d",
        STAGING="s3",
        SECRET_KEYS=KEY,
        S3_SECRET_ACCESS_KEY="hunter2",  # noqa: S106  # to check that it is not printed
    )

    assert (code, out) == (2, "")
    assert "S3_BUCKET" in err
    assert "hunter2" not in err


def problems(ready: Mapping[str, Any]) -> set[str]:
    """Return the names of the checks that found a problem."""
    return {name for name, reason in ready["checks"].items() if reason != "ok"}


async def test_health_checks_need_no_key(api: Api, staging_dir: Path) -> None:
    assert (await api.http.get("/health/live")).json() == {"status": "live", "checks": {}}
    ready = await api.http.get("/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert 0 <= ready.json()["staging_used_percent"] <= 100
    remove(staging_dir)

    broken = await api.probed("not_ready")

    assert broken["checks"]["staging"].startswith("not mounted: ")
    assert problems(broken) == {"staging"}


async def test_a_gateway_is_degraded_while_no_worker_recognises_text(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(ocr_engine=OcrEngineName.AUTO) as api:
        without = (await api.http.get("/health/ready")).json()
        async with transaction() as session:
            session.add(LiveEngine(name="tesseract", detail="eng", seen_at=func.now() - ALIVE_FOR))
        assert (await api.probed("degraded"))["checks"]["ocr"] == without["checks"]["ocr"]
        async with transaction() as session:
            await session.execute(update(LiveEngine).values(seen_at=func.now()))

        ready = await api.probed("ready")

    assert without["status"] == "degraded"
    assert without["checks"]["ocr"].startswith("no OCR engine: scanned pages stay without text")
    assert problems(without) == {"ocr"}
    assert ready["checks"]["ocr"] == "ok"


async def test_a_gateway_is_degraded_once_only_the_reserve_of_staging_is_free(
    serve: Serve,
) -> None:
    async with serve(staging_reserve=2**62) as api:
        ready = await api.http.get("/health/ready")

    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["checks"]["staging"].startswith("full: ")
    assert problems(ready.json()) == {"staging"}


async def test_without_a_database_the_process_is_live_but_not_ready(serve: Serve) -> None:
    async with serve(database_url="postgresql+psycopg://nobody@127.0.0.1:1/none") as api:
        async with asyncio.timeout(20):
            live = await api.http.get("/health/live")
            ready = await api.http.get("/health/ready")
            refused = await api.get("/jobs")

    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["checks"]["staging"] == "ok"
    assert problem(refused) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) > 0


async def test_requests_work_again_after_a_database_outage(
    serve: Serve, database: DatabaseSettings
) -> None:
    async with proxy.to_database(database) as way:
        through = way.in_front_of_database(database).database_url
        async with serve(database_url=through) as api:
            upload_id, job_id = await api.finalized()
            polling = asyncio.create_task(api.get(f"/jobs/{job_id}", wait=60))
            await asyncio.sleep(0.2)

            await way.refuse()
            async with asyncio.timeout(30):
                assert problem(await api.get("/jobs")) == (503, "unavailable")
            assert not polling.done()
            await way.accept()

            await api.probed("ready")
            assert (await api.ask("DELETE", f"/uploads/{upload_id}")).status_code == 200
            async with asyncio.timeout(30):
                assert (await polling).json()["status"] == "cancelled"


async def test_dropped_database_connections_fail_no_request(
    serve: Serve, database: DatabaseSettings
) -> None:
    async with proxy.to_database(database) as way:
        through = way.in_front_of_database(database).database_url
        async with serve(database_url=through) as api:
            await asyncio.gather(*(api.get("/jobs") for _ in range(5)))
            await way.drop()

            answers = await asyncio.gather(*(api.get("/jobs") for _ in range(5)))

    assert {answer.status_code for answer in answers} == {200}


async def test_a_stopping_gateway_answers_waiting_requests(start: Start, make_key: MakeKey) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        _, job_id = await api.finalized()
        polling = asyncio.create_task(api.get(f"/jobs/{job_id}", wait=60))
        await process.first_logged("job.awaited")

        async with asyncio.timeout(20):
            assert await process.stop() == 0

        assert (await polling).json()["status"] == "queued"


async def test_a_stopping_gateway_finishes_chunks_in_progress(
    start: Start, make_key: MakeKey
) -> None:
    process = await start()
    gate = asyncio.Event()

    async def late() -> AsyncIterator[bytes]:
        yield b"con"
        await gate.wait()
        yield b"tent"

    async with api_of(process, await make_key()) as api:
        upload_id = await api.created(size=7)
        sending = asyncio.create_task(api.put(upload_id, 0, late()))
        await process.first_logged("chunk.receiving")
        stopping = asyncio.create_task(process.stop())
        await refused(process.port)
        gate.set()

        assert (await sending).status_code == 200
        assert await stopping == 0


async def test_a_request_logs_one_line_without_secrets(start: Start, make_key: MakeKey) -> None:
    process = await start(WEBHOOK_ALLOW_LOOPBACK="true")
    async with api_of(process, await make_key()) as api:
        created = await api.create(size=7, callback_url="http://localhost:9000/?token=hunter2")
        upload_id = created.json()["upload_id"]
        await api.put(upload_id, 0, b"content", headers={"X-Forwarded-For": "203.0.113.7"})
        await api.of("wb_hunter2").get("/jobs", cursor="hunter2", token="wbs_hunter2")  # noqa: S106  # to check that it is not logged
        await api.http.get("/nowhere/hunter2?token=hunter2")
        await api.http.get("/health/live")
    await process.stop()

    lines = process.logged("http.request")
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/api/v1/uploads", 201),
        ("PUT", "/api/v1/uploads/{upload_id}/chunks/{index}", 200),
        ("GET", "/api/v1/jobs", 401),
        ("GET", "unrouted", 404),
        ("GET", "/health/live", 200),
    ]
    assert [line.get("upload_id") for line in lines[:3]] == [upload_id, upload_id, None]
    assert [line.get("code") for line in lines[1:4]] == [None, "unauthenticated", "not_found"]
    assert [bool(line.get("tenant_id")) for line in lines] == [True, True, False, False, False]
    assert [bool(line.get("key_id")) for line in lines] == [True, True, False, False, False]
    assert {line["client_address"] for line in lines} == {"127.0.0.1"}
    assert len({line["request_id"] for line in lines}) == len(lines)
    assert all(line["duration_ms"] > 0 for line in lines)
    logged = process.log_file.read_text()
    assert "hunter2" not in logged
    assert api.key not in logged
    assert created.json()["callback_secret"] not in logged


async def test_log_lines_of_a_job_have_its_id_and_its_uploads_id(
    start: Start, make_key: MakeKey
) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        upload_id, job_id = await api.finalized()
        await api.get(f"/uploads/{upload_id}/status")
        await api.get(f"/jobs/{job_id}")
        await api.finalize(upload_id)
    await process.stop()

    *_, finalized, by_upload, by_job, again = process.logged("http.request")
    for line in (*process.logged("upload.finalized"), finalized, by_upload, by_job, again):
        assert (line["upload_id"], line["job_id"]) == (upload_id, job_id), line


async def test_a_refused_finalize_logs_the_upload_and_the_code(
    start: Start, make_key: MakeKey
) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        upload_id = await api.created(size=7)
        await api.finalize(upload_id)
    await process.stop()

    line = process.logged("http.request")[-1]
    assert (line["status"], line["code"]) == (409, "upload_incomplete")
    assert line["upload_id"] == upload_id


async def test_a_request_does_not_log_the_id_of_the_previous_request(
    start: Start, make_key: MakeKey
) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        await api.get("/uploads/00000000-0000-0000-0000-000000000001")
        await api.get("/jobs")
    await process.stop()

    first, second = process.logged("http.request")
    assert first["upload_id"] == "00000000-0000-0000-0000-000000000001"
    assert "upload_id" not in second
