"""Keys as operators make them, as clients send them, and as the log shows them."""

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from gateway.administration import keys
from schemas.api.scopes import Scope
from schemas.settings import DatabaseSettings
from schemas.tables.audit import AuditEntry
from schemas.tables.tenants import ApiKey
from tests.integration.gateway.api import BeginSession
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.process import run_command

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def gateway_settings() -> Mapping[str, str]:
    # Only the expiry of a key can end its cache entry in time.
    return {"TRUSTED_PROXIES": "127.0.0.1", "API_KEY_CACHE": "1h"}


class Operator:
    """Runs the operators' command on the database of the gateway."""

    def __init__(self, database: DatabaseSettings) -> None:
        self._url = database.database_url.get_secret_value()

    async def run(self, *arguments: str) -> tuple[int | None, str, str]:
        return await run_command(*arguments, DATABASE_URL=self._url)

    async def printed(self, *arguments: str) -> str:
        code, out, err = await self.run(*arguments)
        assert (code, err) == (0, "")
        return out

    async def created(self, *arguments: str) -> dict[str, str]:
        printed = await self.printed("keys", "create", *arguments)
        return dict(line.split(": ", 1) for line in printed.splitlines())

    async def listed(self, tenant: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(
            await self.printed("keys", "list", tenant, "--json")
        )
        return listed


@pytest.fixture
def operator(module_database: DatabaseSettings) -> Operator:
    return Operator(module_database)


async def status_of(gateway: Gateway, *fields: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of a list of jobs that is asked for with these fields."""
    async with gateway.connect() as connection:
        await connection.send("GET /api/v1/jobs HTTP/1.1", "Host: gateway", *fields)
        answer = await connection.answer()
    return answer.status, answer.json


async def line_of(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """Wait for the log line of a request; it is written after the answer."""

    def lines() -> list[dict[str, Any]]:
        logged = gateway.process.logged("http.request")
        return [line for line in logged if line["request_id"] == request_id]

    await gateway.process.until(lambda: bool(lines()))
    return lines()[0]


async def test_a_key_is_listed_with_its_name_and_revoked_by_its_prefix(
    operator: Operator, transaction: BeginSession
) -> None:
    created = await operator.created(
        *("harbour", "--name", "gate 3", "--expires-in", "90d", "--scope", "uploads:read")
    )
    assert list(created) == ["id", "prefix", "expires", "key"]
    assert created["key"].startswith(created["prefix"])
    (listed,) = await operator.listed("harbour")

    revoked = (await operator.printed("keys", "revoke", created["prefix"])).split()[1]

    assert listed.pop("created_at") < listed["expires_at"]
    assert listed == {
        "tenant": "harbour",
        "id": created["id"],
        "prefix": created["prefix"],
        "name": "gate 3",
        "last_used_at": None,
        "expires_at": created["expires"],
        "revoked_at": None,
        "state": "active",
        "scopes": ["uploads:read"],
    }
    (after,) = await operator.listed("harbour")
    assert (after["state"], after["revoked_at"]) == ("revoked", revoked)
    async with transaction() as session:
        acts = select(AuditEntry).where(AuditEntry.target == f"api_key/{created['id']}")
        made, ended = await session.scalars(acts.order_by(AuditEntry.id))
    assert (made.action, ended.action) == ("api_key.created", "api_key.revoked")
    assert made.detail == ended.detail
    assert (made.detail["name"], made.detail["prefix"]) == ("gate 3", created["prefix"])
    assert created["key"] not in str(made.detail)


async def test_an_expiry_in_the_past_or_a_prefix_of_no_key_is_refused(operator: Operator) -> None:
    expired = await operator.run("keys", "create", "harbour", "--expires-at", "2020-01-31")
    whole_key = "wb_unknown0" + "x" * 32
    unknown = await operator.run("keys", "revoke", whole_key)

    assert (expired[0], unknown[0]) == (1, 1)
    assert "2020-01-31T00:00:00Z has passed" in expired[2]
    assert "there is no API key wb_unknown0;" in unknown[2]


async def test_an_expired_key_is_refused_although_it_is_cached(
    gateway: Gateway, transaction: BeginSession
) -> None:
    async with transaction() as session:
        created = await keys.create(
            session, tenant="quay", scopes=list(Scope), actor="test", expires=timedelta(seconds=2)
        )
    field = f"Authorization: Bearer {created.key}"
    assert (await status_of(gateway, field))[0] == 200

    async with asyncio.timeout(10):
        while (refused := await status_of(gateway, field))[0] == 200:  # noqa: ASYNC110  # the key expires with time
            await asyncio.sleep(0.1)

    unknown = await status_of(gateway, f"Authorization: Bearer {created.key}x")
    assert refused[1].pop("request_id") != unknown[1].pop("request_id")
    assert refused == unknown
    assert refused[1]["code"] == "unauthenticated"
    async with transaction() as session:
        assert [key["state"] for key in await keys.of(session, tenant="quay")] == ["expired"]


async def test_white_space_around_a_key_is_optional(gateway: Gateway) -> None:
    for value in ("Bearer {}\t", "bearer   {} \t", "\tBEARER {}"):
        status, _ = await status_of(gateway, f"Authorization:{value.format(gateway.key)}")
        assert status == 200, value


async def test_an_answer_has_the_request_id_of_its_log_lines(gateway: Gateway) -> None:
    async with gateway.connect() as connection:
        await connection.request("GET", "/api/v1/jobs", "X-Request-ID: trace-17.a")
        assert (await connection.answer()).fields["x-request-id"] == "trace-17.a"
        await connection.request("GET", "/nowhere", "X-Request-ID: hunter2 hunter2")
        refused = await connection.answer()

    made_id = refused.json["request_id"]
    assert refused.fields["x-request-id"] == made_id
    assert (await line_of(gateway, "trace-17.a"))["status"] == 200
    assert (await line_of(gateway, made_id))["code"] == "not_found"
    assert "hunter2" not in gateway.process.log_file.read_text()


async def test_a_log_line_has_the_id_of_the_key_and_the_address_behind_the_proxy(
    gateway: Gateway, transaction: BeginSession
) -> None:
    forwarded = "X-Forwarded-For: 198.51.100.1, 203.0.113.7"
    await status_of(
        gateway, "X-Request-ID: known", forwarded, f"Authorization: Bearer {gateway.key}"
    )
    await status_of(gateway, "X-Request-ID: none", forwarded)
    await status_of(gateway, "X-Request-ID: odd", "X-Forwarded-For: <script>hunter2</script>")

    async with transaction() as session:
        (key,) = await keys.of(session, tenant="acme")
    known, without, odd = [await line_of(gateway, name) for name in ("known", "none", "odd")]
    assert (known["key_id"], known["client_address"]) == (key["id"], "203.0.113.7")
    assert (without["code"], without["client_address"]) == ("unauthenticated", "203.0.113.7")
    assert (odd.get("key_id"), odd["client_address"]) == (None, None)


async def test_the_log_names_a_key_that_is_expired_or_revoked_and_the_answer_does_not(
    gateway: Gateway, transaction: BeginSession
) -> None:
    answers, lines = [], []
    for state in ("expired", "revoked"):
        async with transaction() as session:
            created = await keys.create(session, tenant="pier", scopes=list(Scope), actor="test")
            await session.flush()
            if state == "expired":
                this = update(ApiKey).where(ApiKey.id == created.id)
                await session.execute(this.values(expires_at=func.now()))
            else:
                await keys.revoke(session, str(created.id), actor="test")
        key = f"Authorization: Bearer {created.key}"
        answers.append(await status_of(gateway, f"X-Request-ID: {state}", key))
        lines.append((created.id, await line_of(gateway, state)))
    unknown = await status_of(gateway, "X-Request-ID: unknown", "Authorization: Bearer wb_unknown")

    for status, body in (*answers, unknown):
        assert (status, body | {"request_id": ""}) == (401, unknown[1] | {"request_id": ""})
    for (key_id, line), state in zip(lines, ("expired", "revoked"), strict=True):
        assert (line["key_id"], line["key_state"], line["code"]) == (
            *(str(key_id), state, "unauthenticated"),
        )
        assert line["tenant_id"]
    assert "key_id" not in await line_of(gateway, "unknown")
