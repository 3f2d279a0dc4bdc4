import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select

from schemas import staging_layout
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook
from tests.integration.gateway.api import Api, BeginSession, problem

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "5c7ab3f0-once"}


def files_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name != staging_layout.MARKER]


async def count_of(transaction: BeginSession, table: type[Upload | Webhook]) -> int:
    async with transaction() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_a_repeated_create_creates_nothing_and_gets_the_same_answer_without_the_secret(
    api: Api, transaction: BeginSession, staging_dir: Path
) -> None:
    callback = "https://example.com/hook"

    first = await api.create(size=5, headers=KEY, callback_url=callback)
    second = await api.create(size=5, headers=KEY, callback_url=callback)

    assert first.status_code == second.status_code == 201
    assert first.json()["callback_secret"].startswith("whsec_")
    assert second.json() == first.json() | {"callback_secret": None}
    assert first.headers["location"] == second.headers["location"]
    assert await count_of(transaction, Upload) == await count_of(transaction, Webhook) == 1
    assert files_in(staging_dir) == [first.json()["upload_id"]]


async def test_twenty_concurrent_creates_with_one_key_create_one_upload(
    api: Api, transaction: BeginSession, staging_dir: Path
) -> None:
    answers = await asyncio.gather(*(api.create(size=5, headers=KEY) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["upload_id"] for answer in answers}) == 1
    assert await count_of(transaction, Upload) == 1
    assert len(files_in(staging_dir)) == 1


async def test_a_key_used_for_another_request_is_refused(api: Api) -> None:
    await api.create(size=5, headers=KEY)

    other_body = await api.create(size=6, headers=KEY)
    other_operation = await api.ask(
        "POST", "/webhooks", json={"url": "https://example.com/"}, headers=KEY
    )

    assert problem(other_body) == (422, "idempotency_key_reused")
    assert problem(other_operation) == (422, "idempotency_key_reused")


async def test_two_tenants_may_use_the_same_key(api: Api, stranger: Api) -> None:
    ours = await api.create(size=5, headers=KEY)
    theirs = await stranger.create(size=6, headers=KEY)

    assert theirs.status_code == 201
    assert ours.json()["upload_id"] != theirs.json()["upload_id"]


async def test_a_failed_request_leaves_its_key_unused(api: Api) -> None:
    refused = await api.create(size=5, headers=KEY, callback_url="https://10.0.0.1/")

    assert problem(refused) == (422, "webhook_url_refused")
    assert (await api.create(size=5, headers=KEY)).status_code == 201


async def test_finalize_honours_an_idempotency_key(api: Api) -> None:
    upload_id, other_id = await api.sent(b"content"), await api.sent(b"content")

    first = await api.finalize(upload_id, headers=KEY)
    second = await api.finalize(upload_id, headers=KEY)
    other = await api.finalize(other_id, headers=KEY)

    assert first.status_code == second.status_code == 202
    assert first.json() == second.json()
    assert problem(other) == (422, "idempotency_key_reused")
    assert (await api.get(f"/uploads/{other_id}")).json()["status"] == "open"


async def test_a_repeated_webhook_gets_the_same_answer_without_the_secret(
    api: Api, transaction: BeginSession
) -> None:
    body = {"url": "https://example.com/hook"}

    first = await api.ask("POST", "/webhooks", json=body, headers=KEY)
    second = await api.ask("POST", "/webhooks", json=body, headers=KEY)

    assert first.status_code == second.status_code == 201
    assert first.json()["secret"].startswith("whsec_")
    assert second.json() == first.json() | {"secret": None}
    assert first.headers["location"] == second.headers["location"]
    assert await count_of(transaction, Webhook) == 1


async def test_twenty_concurrent_webhooks_with_one_key_show_one_secret(
    api: Api, transaction: BeginSession
) -> None:
    body = {"url": "https://example.com/hook"}

    answers = await asyncio.gather(
        *(api.ask("POST", "/webhooks", json=body, headers=KEY) for _ in range(20))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["webhook_id"] for answer in answers}) == 1
    assert [answer.json()["secret"] for answer in answers].count(None) == 19
    assert await count_of(transaction, Webhook) == 1


async def test_the_repeated_request_of_a_deleted_webhook_is_not_found(
    api: Api, transaction: BeginSession
) -> None:
    body = {"url": "https://example.com/hook"}
    created = (await api.ask("POST", "/webhooks", json=body, headers=KEY)).json()
    await api.ask("DELETE", f"/webhooks/{created['webhook_id']}")

    answer = await api.ask("POST", "/webhooks", json=body, headers=KEY)

    assert problem(answer) == (404, "webhook_not_found")
    assert await count_of(transaction, Webhook) == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "k" * 256, "a\tb"])
async def test_an_invalid_key_is_refused(shared_api: Api, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1"), **_encoded(shared_api.authorization)}
    answer = await shared_api.http.post(
        "/api/v1/uploads", json={"filename": "a", "size": 5}, headers=headers
    )

    assert problem(answer) == (400, "invalid_request")


def _encoded(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in headers.items()}
