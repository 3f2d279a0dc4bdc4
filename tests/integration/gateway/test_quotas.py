import asyncio
import re
import shutil
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from sqlalchemy import func, select, update

from gateway.administration import quotas
from schemas import staging_layout
from schemas.policy.quotas import Quotas
from schemas.settings import DatabaseSettings, QuotaSettings
from schemas.tables.events import EventRecord
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import KIB64, Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve
from tests.integration.gateway.process import run_command

pytestmark = pytest.mark.anyio

PDF = b"%PDF-1.7\n" + b"x" * 100


def files_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name != staging_layout.MARKER]


async def set_quota(transaction: BeginSession, *, tenant: str = "acme", **changes: Any) -> Quotas:  # noqa: ANN401  # any quota
    async with transaction() as session:
        return await quotas.change(
            session,
            tenant=tenant,
            changes=cast("quotas.QuotaChanges", changes),
            settings=QuotaSettings(),
        )


async def usage_of(transaction: BeginSession) -> tuple[int, int]:
    async with transaction() as session:
        row = (await session.scalars(select(TenantUsage))).one()
        return row.bytes, row.open_uploads


async def count_of(transaction: BeginSession, table: type[Upload | EventRecord]) -> int:
    async with transaction() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


def outcomes(answers: list[httpx.Response]) -> dict[int, int]:
    statuses = [answer.status_code for answer in answers]
    return {status: statuses.count(status) for status in set(statuses)}


async def test_fifty_concurrent_creates_never_exceed_the_quota_of_open_uploads(
    serve: Serve, transaction: BeginSession, staging_dir: Path
) -> None:
    async with serve(quota_open_uploads=10) as api:
        answers = await asyncio.gather(*(api.create(size=100) for _ in range(50)))

    assert outcomes(answers) == {201: 10, 429: 40}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert problem(refused) == (429, "too_many_open_uploads")
    assert int(refused.headers["retry-after"]) > 0
    assert len(files_in(staging_dir)) == 10
    assert await count_of(transaction, Upload) == 10
    assert await usage_of(transaction) == (1000, 10)


async def test_fifty_concurrent_creates_never_exceed_the_quota_of_bytes(
    serve: Serve, transaction: BeginSession, staging_dir: Path
) -> None:
    async with serve(quota_bytes=1000) as api:
        answers = await asyncio.gather(*(api.create(size=90) for _ in range(50)))

    assert outcomes(answers) == {201: 11, 403: 39}
    refused = next(answer for answer in answers if answer.status_code == 403)
    assert problem(refused) == (403, "quota_exceeded")
    assert len(files_in(staging_dir)) == 11
    assert await usage_of(transaction) == (990, 11)


async def test_a_cancelled_upload_frees_its_bytes_and_a_finalized_one_keeps_them(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(quota_open_uploads=2, quota_bytes=100) as api:
        upload_id, _ = await api.finalized(b"x" * 60)
        assert await usage_of(transaction) == (60, 0)
        assert problem(await api.create(size=41)) == (403, "quota_exceeded")
        kept = await api.created(size=40)
        assert problem(await api.create(size=1)) == (403, "quota_exceeded")

        await api.ask("DELETE", f"/uploads/{kept}")
        await api.created(size=10)
        await api.ask("DELETE", f"/uploads/{upload_id}")

        assert await usage_of(transaction) == (10, 1)


async def test_a_tenant_that_fills_its_share_of_staging_leaves_room_for_others(
    serve: Serve, make_key: MakeKey, transaction: BeginSession, staging_dir: Path
) -> None:
    async with serve(quota_staged_bytes=1000) as api:
        stranger = api.of(await make_key(tenant="globex"))
        answers = await asyncio.gather(*(api.create(size=90) for _ in range(20)))
        assert outcomes(answers) == {201: 11, 429: 9}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert problem(refused) == (429, "staged_bytes_exceeded")
        assert int(refused.headers["retry-after"]) > 0
        assert len(files_in(staging_dir)) == 11

        assert (await stranger.create(size=1000)).status_code == 201
        assert problem(await stranger.create(size=1)) == (429, "staged_bytes_exceeded")

        async with transaction() as session:
            # As the worker does once the objects are stored.
            await session.execute(update(Upload).values(status="stored"))
        assert (await api.create(size=1000)).status_code == 201


async def test_a_file_larger_than_the_share_of_staging_is_refused_for_good(serve: Serve) -> None:
    async with serve(quota_staged_bytes=1000) as api:
        assert problem(await api.create(size=1001)) == (413, "file_too_large")


async def test_the_default_share_is_half_of_the_staging_disk(
    serve: Serve, staging_dir: Path
) -> None:
    async with serve() as api:
        disk = shutil.disk_usage(staging_dir)
        half = (disk.used + disk.free) // 2
        refused = await api.create(size=half + 1024**3)
        assert problem(refused) == (413, "file_too_large")
        share = int(re.findall(r"\d+", refused.json()["detail"])[-1])

    assert abs(share - half) < 1024**3


async def test_finalized_uploads_take_their_share_until_they_are_stored(serve: Serve) -> None:
    async with serve(quota_staged_bytes=100) as api:
        upload_id, _ = await api.finalized(b"x" * 60)
        assert problem(await api.create(size=41)) == (429, "staged_bytes_exceeded")

        await api.ask("DELETE", f"/uploads/{upload_id}")
        assert (await api.create(size=41)).status_code == 201


async def test_a_quota_applies_to_its_tenant_only(
    api: Api, stranger: Api, transaction: BeginSession
) -> None:
    await set_quota(transaction, quota_bytes=10, quota_open_uploads=1, quota_file_size=9)

    assert problem(await api.create(size=10)) == (413, "file_too_large")
    assert (await api.create(size=9)).status_code == 201
    assert problem(await api.create(size=0)) == (429, "too_many_open_uploads")
    assert (await stranger.create(size=1000)).status_code == 201

    effective = await set_quota(transaction, quota_file_size=None, quota_open_uploads=5)
    assert (effective.total_bytes, effective.open_uploads) == (10, 5)
    assert problem(await api.create(size=10)) == (403, "quota_exceeded")


async def test_a_repeated_create_is_answered_even_if_the_quota_is_used_up(serve: Serve) -> None:
    key = {"Idempotency-Key": "once"}
    async with serve(quota_open_uploads=1) as api:
        first = await api.create(size=5, headers=key)
        again = await api.create(size=5, headers=key)

    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()


async def test_a_refused_create_does_not_bind_its_key(serve: Serve) -> None:
    key = {"Idempotency-Key": "once"}
    async with serve(quota_bytes=5) as api:
        blocking = await api.created(size=5)
        assert problem(await api.create(size=5, headers=key)) == (403, "quota_exceeded")
        await api.ask("DELETE", f"/uploads/{blocking}")

        assert (await api.create(size=5, headers=key)).status_code == 201


async def test_a_huge_size_is_refused_without_an_overflow(
    api: Api, transaction: BeginSession
) -> None:
    await set_quota(transaction, quota_file_size=2**62, quota_bytes=2**62, quota_staged_bytes=2**62)

    answers = [await api.create(size=2**62) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [507, 507, 507]


async def test_a_forbidden_declared_type_is_refused_at_create(serve: Serve) -> None:
    async with serve(allowed_types="application/pdf, image/*") as api:
        refused = await api.create(size=5, content_type="Text/HTML; charset=utf-8")
        assert problem(refused) == (415, "type_not_allowed")
        assert "text/html" in refused.json()["detail"]
        for allowed in ("image/png", "Application/PDF", None):
            assert (await api.create(size=5, content_type=allowed)).status_code == 201


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (b"plain", None),
        (b"plain", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "application/pdf"),
        (b"", None),
    ],
)
async def test_a_forbidden_sniffed_type_is_refused_at_finalize(
    serve: Serve, transaction: BeginSession, content: bytes, declared: str | None
) -> None:
    async with serve(allowed_types="application/pdf") as api:
        upload_id = await api.sent(content, content_type=declared)

        refused = await api.finalize(upload_id)

        assert problem(refused) == (415, "type_not_allowed")
        assert (await api.get(f"/uploads/{upload_id}")).json()["status"] == "open"
        assert await count_of(transaction, EventRecord) == 0
        assert (await api.ask("DELETE", f"/uploads/{upload_id}")).status_code == 200


@pytest.mark.parametrize(
    ("content", "declared"), [(PDF, None), (PDF, "application/pdf"), (b"plain", "text/plain")]
)
async def test_an_allowed_type_is_finalized(
    serve: Serve, content: bytes, declared: str | None
) -> None:
    async with serve(allowed_types="application/pdf, text/plain") as api:
        upload_id = await api.sent(content, content_type=declared)

        assert (await api.finalize(upload_id)).status_code == 202


async def test_the_quotas_are_checked_again_at_finalize(
    api: Api, transaction: BeginSession
) -> None:
    upload_id = await api.sent(b"x" * 100)
    await set_quota(transaction, quota_bytes=99)
    assert problem(await api.finalize(upload_id)) == (403, "quota_exceeded")
    await set_quota(transaction, quota_bytes=None, quota_file_size=99)
    assert problem(await api.finalize(upload_id)) == (413, "file_too_large")
    await set_quota(transaction, quota_file_size=None)

    assert (await api.finalize(upload_id)).status_code == 202
    await set_quota(transaction, quota_bytes=0)
    assert (await api.finalize(upload_id)).status_code == 202, "a finalized upload stays finalized"


async def test_an_upload_of_many_chunks_counts_once(api: Api, transaction: BeginSession) -> None:
    await api.sent(b"x" * (3 * KIB64))

    assert await usage_of(transaction) == (3 * KIB64, 1)


async def test_an_operator_sets_a_quota_on_the_command_line(
    api: Api, database: DatabaseSettings
) -> None:
    async def command(*arguments: str) -> tuple[int | None, str, str]:
        return await run_command(
            *("quotas", "set"),
            *arguments,
            DATABASE_URL=database.database_url.get_secret_value(),
            ALLOWED_TYPES="application/pdf,image/*",
        )

    assert await command("acme", "--bytes=10KiB", "--file-size=1 KiB", "--types=text/*,a/b") == (
        0,
        "bytes: 10240\nopen-uploads: 1000\nfile-size: 1024\nstaged-bytes: 50% of the staging disk\ntypes: text/*, a/b\n",
        "",
    )
    assert problem(await api.create(size=1025)) == (413, "file_too_large")
    assert await command(
        *("acme", "--bytes=none", "--open-uploads=7", "--staged-bytes=1MiB", "--types=none")
    ) == (
        0,
        "bytes: no limit\nopen-uploads: 7\nfile-size: 1024\nstaged-bytes: 1048576\ntypes: application/pdf, image/*\n",
        "",
    )
    assert (await command("acme", "--types=*/*"))[1].endswith("types: */*\n")
    assert await command("nobody", "--bytes=1") == (
        1,
        "",
        "Error: there is no tenant 'nobody'; `waybill keys create` creates one\n",
    )
