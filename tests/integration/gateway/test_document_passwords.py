"""The password of a document: kept encrypted while a job needs it, and shown nowhere."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from sqlalchemy import select, text

from schemas.ids import UploadId
from schemas.lifecycle import StepStatus
from schemas.policy import document_passwords
from schemas.steps import StepName
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.tenants import Tenant
from tests.factories.jobs import step_update
from tests.factories.secret_keys import KEYS
from tests.integration.gateway import workers
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Start
from tests.integration.gateway.process import api_of

pytestmark = pytest.mark.anyio

PASSWORD: Final = "geheim-42 ☂"  # noqa: S105  # of a test
ONCE: Final = {"Idempotency-Key": "once"}
WAYS: Final = ("upload", "form", "field after the file", "reference")


async def sent(
    api: Api,
    way: str,
    *,
    transaction: BeginSession,
    password: str | None = PASSWORD,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Send a password in one of the ways."""
    match way:
        case "upload":
            return await api.create(size=1, headers=headers, password=password)
        case "form":
            return await api.ask(
                "POST",
                "/upload-async",
                data={"password": password or ""},
                files={"file": ("a.pdf", b"%PDF-")},
                headers=headers,
            )
        case "field after the file":
            files: Any = [("file", ("a.pdf", b"%PDF-")), ("password", (None, password))]
            return await api.ask("POST", "/upload-async", files=files, headers=headers)
        case _:
            async with transaction() as session:
                tenant_id = await session.scalar(select(Tenant.id).where(Tenant.name == "acme"))
            body = {"object_key": f"incoming/{tenant_id}/a.pdf", "password": password}
            return await api.ask("POST", "/jobs", json=body, headers=headers)


async def kept(transaction: BeginSession) -> dict[UploadId, str]:
    """Return the rows of passwords, as they are stored."""
    async with transaction() as session:
        rows = await session.execute(select(DocumentPassword.upload_id, DocumentPassword.secret))
        return {row.upload_id: row.secret for row in rows}


@pytest.mark.parametrize("way", WAYS)
async def test_a_password_is_encrypted_for_its_upload(
    api: Api, transaction: BeginSession, way: str
) -> None:
    answer = await sent(api, way, transaction=transaction)

    assert answer.status_code in {201, 202}, answer.text
    upload_id = UploadId(UUID(answer.json()["upload_id"]))
    [(owner, stored)] = (await kept(transaction)).items()
    assert owner == upload_id
    assert document_passwords.decrypt(stored, upload_id=upload_id, keys=KEYS) == PASSWORD


@pytest.mark.parametrize("way", WAYS)
async def test_a_password_is_not_shown_logged_or_stored_in_clear(
    start: Start, make_key: MakeKey, transaction: BeginSession, way: str
) -> None:
    process = await start()
    async with api_of(process, await make_key()) as api:
        answer = await sent(api, way, transaction=transaction, headers=ONCE)
        upload_id = answer.json()["upload_id"]
        manifest = await api.get(f"/uploads/{upload_id}")
        status = await api.get(f"/uploads/{upload_id}/status")
    async with transaction() as session:
        tables = await session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        )
        rows = [
            row
            for table in tables.all()
            for row in await session.scalars(text(f'SELECT t::text FROM "{table}" AS t'))  # noqa: S608  # a name of the catalogue
        ]

    assert any(upload_id in row for row in rows)
    for seen in (answer.text, manifest.text, status.text, process.log_file.read_text(), *rows):
        assert PASSWORD.split()[0] not in seen
        assert PASSWORD.split()[0].encode().hex() not in seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "password",
    [pytest.param("x" * 129, id="too long"), pytest.param("a\x00b", id="with NUL")],
)
async def test_an_invalid_password_is_refused_and_not_repeated(
    api: Api, transaction: BeginSession, way: str, password: str
) -> None:
    answer = await sent(api, way, transaction=transaction, password=password)

    assert problem(answer) == (400, "invalid_request")
    assert password not in answer.text
    assert await kept(transaction) == {}


@pytest.mark.parametrize("way", ["upload", "form", "reference"])
@pytest.mark.parametrize("password", ["", None])
async def test_an_empty_password_is_none(
    api: Api, transaction: BeginSession, way: str, password: str | None
) -> None:
    answer = await sent(api, way, transaction=transaction, password=password)

    assert answer.is_success, answer.text
    assert await kept(transaction) == {}


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_is_bound_to_the_password(
    api: Api, transaction: BeginSession, way: str
) -> None:
    first = await sent(api, way, transaction=transaction, headers=ONCE)
    again = await sent(api, way, transaction=transaction, headers=ONCE)
    other = await sent(api, way, transaction=transaction, headers=ONCE, password="x")  # noqa: S106  # of a test

    assert again.json()["upload_id"] == first.json()["upload_id"]
    assert problem(other) == (422, "idempotency_key_reused")
    assert len(await kept(transaction)) == 1


@pytest.mark.parametrize("end", ["stored", "read", "failed transfer", "failed reading"])
async def test_a_password_is_deleted_when_the_job_ends(
    api: Api, transaction: BeginSession, end: str
) -> None:
    _, job_id = await api.finalized(password=PASSWORD)
    is_read = end in {"read", "failed reading"}
    if end != "failed transfer":
        async with transaction() as session:
            await workers.store(session, job_id, will_be_read=is_read)
    if is_read:
        assert len(await kept(transaction)) == 1
    async with transaction() as session:
        match end:
            case "read":
                for status in (StepStatus.RUNNING, StepStatus.COMPLETED):
                    await session.execute(step_update(job_id, StepName.INGEST, status))
            case "failed reading":
                await workers.fail(session, job_id, name=StepName.INGEST, code="internal")
            case "failed transfer":
                await workers.fail(session, job_id, code="store_rejected")

    assert await kept(transaction) == {}


@pytest.mark.parametrize("state", ["open", "finalized", "stored"])
async def test_a_password_is_deleted_with_the_cancel_of_its_upload(
    api: Api, transaction: BeginSession, state: str
) -> None:
    if state == "open":
        upload_id = await api.created(size=1, password=PASSWORD)
    else:
        upload_id, job_id = await api.finalized(password=PASSWORD)
    if state == "stored":
        async with transaction() as session:
            await workers.store(session, job_id, will_be_read=True)
    assert len(await kept(transaction)) == 1

    answer = await api.ask("DELETE", f"/uploads/{upload_id}", params={"purge": state == "stored"})

    assert answer.status_code == 200, answer.text
    assert await kept(transaction) == {}


async def test_the_password_of_a_refused_form_is_not_kept(
    api: Api, transaction: BeginSession
) -> None:
    answer = await api.ask(
        "POST",
        "/upload-async",
        data={"password": PASSWORD, "sha256": "0" * 64},
        files={"file": ("a.pdf", b"%PDF-")},
    )

    assert problem(answer) == (422, "file_digest_mismatch")
    assert await kept(transaction) == {}
