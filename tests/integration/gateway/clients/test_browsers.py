"""Pages of an allowed origin: preflights, readable answers, and streams without a header."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from gateway.administration import keys
from gateway.http.stream_tokens import StreamToken
from schemas.api.scopes import Scope
from schemas.ids import JobId
from schemas.tables.tenants import ApiKey, Tenant
from tests.factories.secret_keys import KEYS
from tests.integration.gateway.api import MIB, Api, BeginSession
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.clients.raw import Answer

pytestmark = pytest.mark.anyio

PAGE: Final = "https://app.example.com"
BURST: Final = 60
CHUNK: Final = f"/api/v1/uploads/{uuid4()}/chunks/0"
ASKED: Final = "authorization,content-digest,content-type,idempotency-key,prefer,traceparent"


@pytest.fixture(scope="module")
def gateway_settings() -> Mapping[str, str]:
    return {
        "CORS_ORIGINS": f"http://localhost:3000,{PAGE}",
        "REQUEST_RATE": "1",
        "REQUEST_BURST": str(BURST),
        "API_KEY_CACHE": "1ms",
        "WAITS_PER_KEY": "1",
    }


async def key_of(transaction: BeginSession, *, tenant: str) -> str:
    async with transaction() as session:
        return (await keys.create(session, tenant=tenant, scopes=tuple(Scope), actor="test")).key


async def revoke(transaction: BeginSession, *, tenant: str) -> None:
    owner = select(Tenant.id).where(Tenant.name == tenant)
    async with transaction() as session:
        await session.execute(
            update(ApiKey).where(ApiKey.tenant_id.in_(owner)).values(revoked_at=func.now())
        )


async def asked(gateway: Gateway, method: str, path: str, *fields: str) -> Answer:
    """Send a request of a page, with a key only if the fields have one."""
    async with gateway.connect() as connection:
        await connection.send(f"{method} {path} HTTP/1.1", "Host: gateway", *fields)
        return await connection.answer(to_head=method == "HEAD")


@pytest.mark.parametrize("path", [CHUNK, "/api/v1/jobs", "/health/ready", "/schema/openapi.json"])
async def test_a_preflight_is_answered_without_a_key(gateway: Gateway, path: str) -> None:
    answer = await asked(
        gateway,
        "OPTIONS",
        path,
        f"Origin: {PAGE}",
        "Access-Control-Request-Method: PUT",
        f"Access-Control-Request-Headers: {ASKED}",
    )

    fields = answer.fields
    assert (answer.status, answer.body) == (204, b"")
    assert fields["access-control-allow-origin"] == PAGE
    assert fields["vary"] == "Origin"
    assert {"PUT", "PATCH", "DELETE"} < set(fields["access-control-allow-methods"].split(", "))
    assert set(ASKED.split(",")) < set(fields["access-control-allow-headers"].lower().split(", "))
    assert fields["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in fields


async def test_a_page_of_another_origin_may_read_nothing(gateway: Gateway) -> None:
    foreign = "Origin: https://app.example.com.evil.example"
    preflight = await asked(
        gateway, "OPTIONS", CHUNK, foreign, "Access-Control-Request-Method: PUT"
    )
    answer = await asked(gateway, "GET", "/health/live", foreign)

    assert "access-control-allow-origin" not in preflight.fields | answer.fields
    assert (preflight.status, preflight.json["code"]) == (400, "invalid_request")
    assert preflight.fields["content-type"] == "application/problem+json"


async def test_a_page_may_read_every_answer_with_its_fields(gateway: Gateway) -> None:
    key = f"Authorization: Bearer {gateway.key}"
    for status, method, path, *fields in (
        (200, "GET", "/api/v1/jobs", key),
        (401, "GET", "/api/v1/jobs"),
        (404, "GET", "/nowhere"),
        (404, "PUT", CHUNK, key, f"Content-Length: {MIB}"),
        (405, "PATCH", "/api/v1/jobs", key),
        (413, "POST", "/api/v1/uploads", key, f"Content-Length: {8 * MIB}"),
        (200, "GET", "/health/ready"),
        (200, "GET", "/schema/openapi.json"),
    ):
        answer = await asked(gateway, str(method), str(path), *map(str, fields), f"Origin: {PAGE}")
        exposed = answer.fields["access-control-expose-headers"].split(", ")
        assert answer.status == status, (method, path)
        assert answer.fields["access-control-allow-origin"] == PAGE
        assert answer.fields["vary"] == "Origin"
        assert {"Location", "ETag", "Retry-After", "X-Request-ID", "RateLimit"} < set(exposed)


async def test_a_page_may_read_that_its_rate_is_exceeded_and_still_send_preflights(
    gateway: Gateway, transaction: BeginSession
) -> None:
    key = await key_of(transaction, tenant="flood")
    async with gateway.connect() as connection:
        for _ in range(2 * BURST):
            await connection.send(
                "GET /api/v1/jobs HTTP/1.1",
                "Host: gateway",
                f"Authorization: Bearer {key}",
                f"Origin: {PAGE}",
            )
            if (answer := await connection.answer()).status == 429:
                break
    preflight = await asked(
        gateway, "OPTIONS", CHUNK, f"Origin: {PAGE}", "Access-Control-Request-Method: PUT"
    )

    assert (answer.status, answer.fields["access-control-allow-origin"]) == (429, PAGE)
    assert "retry-after" in answer.fields
    assert preflight.status == 204


async def stream_url(api: Api, job_id: str) -> str:
    answer = await api.ask("POST", f"/jobs/{job_id}/stream-token")
    created = answer.json()
    assert answer.status_code == 201
    assert created["url"] == f"/api/v1/jobs/{job_id}/events?token={created['token']}"
    assert datetime.fromisoformat(created["expires_at"]) > datetime.now(UTC)
    return str(created["url"])


async def test_a_stream_token_follows_its_job_without_a_header(gateway: Gateway, api: Api) -> None:
    _, job_id = await api.finalized()
    url = await stream_url(api, job_id)

    async with gateway.connect() as connection:
        await connection.send(f"GET {url} HTTP/1.1", "Host: gateway", f"Origin: {PAGE}")
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
        event = (await connection.reader.readuntil(b'"status":"queued"')).decode()

    assert head.startswith("HTTP/1.1 200 ")
    assert f"access-control-allow-origin: {PAGE}" in head
    assert "ratelimit: " in head
    assert job_id in event
    assert url.partition("token=")[2] not in gateway.process.log_file.read_text()


async def test_a_stream_token_opens_nothing_but_the_events_of_its_job(
    gateway: Gateway, api: Api
) -> None:
    _, job_id = await api.finalized()
    _, other_id = await api.finalized()
    query = (await stream_url(api, job_id)).partition("?")[2]

    for method, path in (
        ("GET", "/api/v1/jobs"),
        ("GET", f"/api/v1/jobs/{job_id}"),
        ("POST", f"/api/v1/jobs/{job_id}/stream-token"),
        ("GET", f"/api/v1/jobs/{other_id}/events"),
    ):
        answer = await asked(gateway, method, f"{path}?{query}", "Content-Length: 0")
        assert (answer.status, answer.json["code"]) == (401, "unauthenticated"), path
    assert "is for another job" in answer.json["detail"]
    bearer = await asked(
        gateway, "GET", "/api/v1/jobs", f"Authorization: Bearer {query.partition('=')[2]}"
    )
    assert bearer.status == 401


async def test_a_stream_token_of_the_feed_opens_the_feed_alone(gateway: Gateway, api: Api) -> None:
    _, job_id = await api.finalized()
    of_job = (await stream_url(api, job_id)).partition("?")[2]
    created = (await api.ask("POST", "/events/stream-token")).json()
    assert created["url"] == f"/api/v1/events/stream?token={created['token']}"

    async with gateway.connect() as connection:
        await connection.send(f"GET {created['url']} HTTP/1.1", "Host: gateway", f"Origin: {PAGE}")
        head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
        await connection.reader.readuntil(b"\nid: ")
    other = await asked(gateway, "GET", f"/api/v1/jobs/{job_id}/events?token={created['token']}")
    feed = await asked(gateway, "GET", f"/api/v1/events/stream?{of_job}")
    pages = await asked(gateway, "GET", f"/api/v1/events?token={created['token']}")

    assert head.startswith("HTTP/1.1 200 ")
    assert f"access-control-allow-origin: {PAGE}" in head
    assert {answer.status for answer in (other, feed, pages)} == {401}
    assert "is for the feed" in other.json["detail"]
    assert "is for another job" in feed.json["detail"]
    assert created["token"] not in gateway.process.log_file.read_text()


async def test_an_expired_or_changed_stream_token_is_refused(
    gateway: Gateway, api: Api, transaction: BeginSession
) -> None:
    _, job_id = await api.finalized()
    url = await stream_url(api, job_id)
    async with transaction() as session:
        owner = select(ApiKey).join(Tenant).where(Tenant.name == "acme")
        key = (await session.scalars(owner)).one()
    expired = StreamToken(
        tenant_id=key.tenant_id,
        job_id=JobId(UUID(job_id)),
        key_id=key.id,
        expires_at=datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=1),
    ).encode(KEYS)

    changed = await asked(gateway, "GET", url[:-1] + ("A" if url[-1] != "A" else "B"))
    late = await asked(gateway, "GET", f"{url.partition('=')[0]}={expired}")

    assert (changed.status, late.status) == (401, 401)
    assert "the stream token is not valid" in changed.json["detail"]
    assert "the stream token has expired" in late.json["detail"]


async def test_a_stream_token_ends_with_its_key(
    gateway: Gateway, api: Api, transaction: BeginSession
) -> None:
    revocable = api.of(await key_of(transaction, tenant="quay"))
    _, job_id = await revocable.finalized()
    url = await stream_url(revocable, job_id)
    await revoke(transaction, tenant="quay")

    answer = await asked(gateway, "GET", url, "X-Request-ID: ended-key")

    assert answer.status == 401
    assert "is no longer valid" in answer.json["detail"]

    def lines() -> list[dict[str, Any]]:
        logged = gateway.process.logged("http.request")
        return [line for line in logged if line["request_id"] == "ended-key"]

    await gateway.process.until(lambda: bool(lines()))
    async with transaction() as session:
        (key,) = await keys.of(session, tenant="quay")
    assert lines()[0]["key_id"] == key["id"]


async def test_an_open_stream_ends_with_its_key(
    gateway: Gateway, api: Api, transaction: BeginSession
) -> None:
    revocable = api.of(await key_of(transaction, tenant="wharf"))
    _, job_id = await revocable.finalized()
    async with gateway.connect() as connection:
        url = await stream_url(revocable, job_id)
        await connection.send(f"GET {url} HTTP/1.1", "Host: gateway")
        await connection.reader.readuntil(b'"status":"queued"')

        await revoke(transaction, tenant="wharf")

        async with asyncio.timeout(10):
            await connection.reader.readuntil(b"\r\n0\r\n\r\n")


async def test_a_stream_by_token_counts_as_a_wait_of_its_key(
    gateway: Gateway, api: Api, transaction: BeginSession
) -> None:
    key = await key_of(transaction, tenant="pier")
    _, job_id = await api.of(key).finalized()
    url = await stream_url(api.of(key), job_id)
    async with gateway.connect() as connection:
        await connection.send(f"GET {url} HTTP/1.1", "Host: gateway")
        await connection.reader.readuntil(b'"status":"queued"')

        second = await asked(gateway, "GET", url)
        poll = await asked(
            gateway, "GET", f"/api/v1/jobs/{job_id}?wait=9", f"Authorization: Bearer {key}"
        )

    for answer in (second, poll):
        assert (answer.status, answer.json["code"]) == (429, "too_many_waits")


async def test_only_the_tenant_of_a_job_makes_a_token_for_it(
    api: Api, transaction: BeginSession
) -> None:
    _, job_id = await api.finalized()
    stranger = api.of(await key_of(transaction, tenant="globex"))

    answer = await stranger.ask("POST", f"/jobs/{job_id}/stream-token")

    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
