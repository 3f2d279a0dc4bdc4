"""API keys, scopes, and the separation of tenants."""

import asyncio
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update

from gateway import db
from gateway.context import Context
from gateway.http import security
from gateway.http.key_uses import KeyUses
from schemas.api.scopes import Scope
from schemas.ids import ApiKeyId
from schemas.settings import DatabaseSettings
from schemas.tables.tenants import ApiKey
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import MakeKey, Serve

pytestmark = pytest.mark.anyio

SOME = uuid4()

ROUTES = [
    ("POST", "/uploads", Scope.UPLOADS_WRITE),
    ("PUT", f"/uploads/{SOME}/chunks/0", Scope.UPLOADS_WRITE),
    ("GET", f"/uploads/{SOME}", Scope.UPLOADS_READ),
    ("DELETE", f"/uploads/{SOME}", Scope.UPLOADS_WRITE),
    ("POST", "/upload", Scope.UPLOADS_WRITE),
    ("GET", f"/uploads/{SOME}/status", Scope.UPLOADS_READ),
    ("GET", f"/jobs/{SOME}", Scope.UPLOADS_READ),
    ("GET", "/jobs", Scope.UPLOADS_READ),
    ("GET", f"/jobs/{SOME}/events", Scope.UPLOADS_READ),
    ("POST", f"/jobs/{SOME}/stream-token", Scope.UPLOADS_READ),
    ("POST", "/jobs", Scope.UPLOADS_WRITE),
    ("POST", "/upload-async", Scope.UPLOADS_WRITE),
    ("GET", "/documents", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/text", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/pages/1", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/entities", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/passages", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/outline", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/attachments", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/file", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/pages/1/image", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/tables", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/tables/1", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/figures", Scope.DOCUMENTS_READ),
    ("GET", f"/documents/{SOME}/figures/1/image", Scope.DOCUMENTS_READ),
    ("POST", f"/documents/{SOME}/reprocess", Scope.DOCUMENTS_WRITE),
    ("DELETE", f"/documents/{SOME}", Scope.DOCUMENTS_WRITE),
    ("GET", "/search?q=x", Scope.DOCUMENTS_READ),
    ("POST", "/webhooks", Scope.WEBHOOKS_WRITE),
    ("GET", "/webhooks", Scope.WEBHOOKS_READ),
    ("GET", f"/webhooks/{SOME}", Scope.WEBHOOKS_READ),
    ("PATCH", f"/webhooks/{SOME}", Scope.WEBHOOKS_WRITE),
    ("DELETE", f"/webhooks/{SOME}", Scope.WEBHOOKS_WRITE),
    ("POST", f"/webhooks/{SOME}/enable", Scope.WEBHOOKS_WRITE),
    ("POST", f"/webhooks/{SOME}/rotate-secret", Scope.WEBHOOKS_WRITE),
    ("DELETE", f"/webhooks/{SOME}/secrets/{SOME}", Scope.WEBHOOKS_WRITE),
    ("GET", "/webhooks/ledger", Scope.WEBHOOKS_READ),
    ("GET", f"/webhooks/{SOME}/deliveries", Scope.WEBHOOKS_READ),
    ("GET", f"/webhooks/{SOME}/deliveries/{SOME}", Scope.WEBHOOKS_READ),
    ("POST", f"/webhooks/{SOME}/ping", Scope.WEBHOOKS_WRITE),
    ("POST", f"/webhooks/{SOME}/test", Scope.WEBHOOKS_WRITE),
    ("POST", f"/webhooks/{SOME}/replay", Scope.WEBHOOKS_WRITE),
    ("GET", f"/deliveries/{SOME}", Scope.WEBHOOKS_READ),
    ("POST", f"/deliveries/{SOME}/resend", Scope.WEBHOOKS_WRITE),
    ("GET", "/events", Scope.WEBHOOKS_READ),
    # With a key the malformed cursor is refused: the stream itself has no end.
    ("GET", "/events/stream?after=x", Scope.WEBHOOKS_READ),
    ("POST", "/events/stream-token", Scope.WEBHOOKS_READ),
    ("GET", f"/events/{SOME}", Scope.WEBHOOKS_READ),
    ("GET", f"/events/{SOME}/deliveries", Scope.WEBHOOKS_READ),
    ("POST", "/jobs/bulk", Scope.UPLOADS_WRITE),
    ("POST", "/exports", Scope.EXPORTS_WRITE),
    ("GET", "/exports", Scope.EXPORTS_READ),
    ("GET", f"/exports/{SOME}", Scope.EXPORTS_READ),
    ("GET", f"/exports/{SOME}/file", Scope.EXPORTS_READ),
    ("DELETE", f"/exports/{SOME}", Scope.EXPORTS_WRITE),
    ("POST", "/batches", Scope.UPLOADS_WRITE),
    ("GET", "/batches", Scope.UPLOADS_READ),
    ("GET", f"/batches/{SOME}", Scope.UPLOADS_READ),
    ("GET", f"/batches/{SOME}/items", Scope.UPLOADS_READ),
    ("GET", f"/batches/{SOME}/report", Scope.UPLOADS_READ),
    ("POST", f"/batches/{SOME}/pause", Scope.UPLOADS_WRITE),
    ("POST", f"/batches/{SOME}/resume", Scope.UPLOADS_WRITE),
    ("POST", f"/batches/{SOME}/cancel", Scope.UPLOADS_WRITE),
    ("GET", "/event-types", Scope.WEBHOOKS_READ),
    ("GET", "/event-types/ping", Scope.WEBHOOKS_READ),
]

OF_A_KIND = (("POST", "/jobs/{job_id}/cancel"), ("POST", "/jobs/{job_id}/retry"))
"""The kind of the job decides on the scope; see `test_job_actions.py`."""

WITHOUT_KEY = ("GET", "/webhooks/{webhook_id}/public-key")
"""Receivers have no API key, and a public key is no secret."""


async def test_this_file_covers_every_route(shared_api: Api) -> None:
    description = (await shared_api.http.get("/schema/openapi.json")).json()

    described = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, operations in description["paths"].items()
        if path.startswith("/api/v1")
        for method in operations
    }
    tried = {(method, _template(path)) for method, path, _ in ROUTES}
    assert described == {*tried, *OF_A_KIND, WITHOUT_KEY}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
async def test_a_route_requires_a_key_with_its_scope(
    shared_api: Api, make_shared_key: MakeKey, route: tuple[str, str, Scope]
) -> None:
    method, path, scope = route
    other_scopes = tuple(other for other in Scope if other is not scope)
    lacking = shared_api.of(await make_shared_key(scopes=other_scopes))
    having = shared_api.of(await make_shared_key(scopes=(scope,)))

    without_key = await shared_api.http.request(method, f"/api/v1{path}")
    refused = await lacking.ask(method, path)
    allowed = await having.ask(method, path)

    assert problem(without_key) == (401, "unauthenticated")
    assert without_key.headers["www-authenticate"].startswith("Bearer")
    assert problem(refused) == (403, "scope_missing")
    assert scope in refused.json()["detail"]
    assert allowed.status_code not in {401, 403}


@pytest.mark.parametrize("path", sorted({path for _, path, _ in ROUTES}))
async def test_the_methods_of_a_path_are_listed_only_for_a_valid_key(
    shared_api: Api, path: str
) -> None:
    methods = {method for method, other, _ in ROUTES if other == path} | {"OPTIONS"}
    if "GET" in methods:
        methods.add("HEAD")

    without_key = await shared_api.http.request("OPTIONS", f"/api/v1{path}")
    caller = await shared_api.ask("OPTIONS", path)
    refused = await shared_api.ask("PATCH" if "PATCH" not in methods else "PUT", path)

    assert problem(without_key) == (401, "unauthenticated")
    assert (caller.status_code, set(caller.headers["allow"].split(", "))) == (204, methods)
    assert problem(refused) == (405, "method_not_allowed")
    assert set(refused.headers["allow"].split(", ")) == methods


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer wb_unknown", "Basic YTpi", "Bearer " + "x" * 10_000, "Bearer wb_\xfc"],
)
async def test_an_invalid_key_is_refused(shared_api: Api, authorization: str) -> None:
    headers = {b"Authorization": authorization.encode("latin-1")}
    answer = await shared_api.http.get("/api/v1/jobs", headers=headers)

    assert problem(answer) == (401, "unauthenticated")


async def test_a_revoked_key_stops_working_when_its_cache_entry_expires(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve(api_key_cache="500ms") as api:
        assert (await api.get("/jobs")).status_code == 200
        async with transaction() as session:
            await session.execute(update(ApiKey).values(revoked_at=func.now()))

        async with asyncio.timeout(10):
            while (answer := await api.get("/jobs")).status_code == 200:  # noqa: ASYNC110  # the cache entry expires with time
                await asyncio.sleep(0.05)
        assert problem(answer) == (401, "unauthenticated")
        assert problem(await api.get("/jobs")) == (401, "unauthenticated")


async def test_the_last_use_of_a_key_is_written_when_the_gateway_stops(
    serve: Serve, transaction: BeginSession
) -> None:
    async with serve() as api:
        await api.get("/jobs")
        assert await last_use(transaction) is None

    async with transaction() as session:
        used_at, now = (await session.execute(select(ApiKey.last_used_at, func.now()))).one()
    assert used_at is not None
    assert timedelta() <= now - used_at < timedelta(minutes=1)


async def test_uses_of_many_keys_are_written_at_once_and_never_set_back(
    context: Context, make_key: MakeKey, transaction: BeginSession
) -> None:
    await make_key()
    await make_key()
    clock = Clock()
    uses = KeyUses(monotonic=clock)
    async with transaction() as session:
        first, second = await session.scalars(select(ApiKey.id).order_by(ApiKey.created_at))
        values = {"last_used_at": func.now() + timedelta(hours=1)}
        await session.execute(update(ApiKey).where(ApiKey.id == second).values(values))
    for key_id in (first, second, ApiKeyId(uuid4())):
        uses.note(key_id)
    clock.seconds += 30

    await uses.write(context.database)

    async with transaction() as session:
        ages = await session.execute(
            select(ApiKey.id, func.extract("epoch", func.now() - ApiKey.last_used_at))
        )
        age = {key_id: float(seconds) for key_id, seconds in ages}
    assert 30 <= age[first] < 60
    assert -3600 <= age[second] < -3540


async def test_uses_that_could_not_be_written_are_written_later(
    context: Context, make_key: MakeKey, transaction: BeginSession
) -> None:
    await make_key()
    async with transaction() as session:
        key_id = (await session.scalars(select(ApiKey.id))).one()
    unreachable = db.build_engine(
        DatabaseSettings.model_validate(
            {"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/none"}
        )
    )
    uses = KeyUses(monotonic=Clock())
    uses.note(key_id)

    await uses.write(db.Database(unreachable))
    assert await last_use(transaction) is None
    await uses.write(context.database)

    assert await last_use(transaction) is not None
    await unreachable.dispose()


async def last_use(transaction: BeginSession) -> datetime | None:
    async with transaction() as session:
        return (await session.scalars(select(ApiKey.last_used_at))).one()


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


async def test_no_page_may_call_the_api_by_default(shared_api: Api) -> None:
    page = {"Origin": "https://app.example.com"}

    preflight = await shared_api.http.options(
        "/api/v1/jobs", headers=page | {"Access-Control-Request-Method": "GET"}
    )
    answer = await shared_api.ask("GET", "/jobs", headers=page)

    assert problem(preflight) == (401, "unauthenticated")
    assert answer.status_code == 200
    for name in (*preflight.headers, *answer.headers):
        assert not name.startswith("access-control-")


async def test_a_refused_key_works_as_soon_as_it_exists(
    api: Api, transaction: BeginSession
) -> None:
    early = api.of(security.new_key())
    assert problem(await early.get("/jobs")) == (401, "unauthenticated")
    async with transaction() as session:
        await session.execute(update(ApiKey).values(key_hash=security.hash_of(early.key)))

    assert (await early.get("/jobs")).status_code == 200


async def test_a_cached_key_is_still_checked_for_scopes(
    shared_api: Api, make_shared_key: MakeKey
) -> None:
    reader = shared_api.of(await make_shared_key(scopes=(Scope.UPLOADS_READ,)))

    for _ in range(2):
        assert problem(await reader.create(size=1)) == (403, "scope_missing")


async def test_the_database_holds_only_the_hash_of_a_key(
    api: Api, transaction: BeginSession
) -> None:
    async with transaction() as session:
        rows = (await session.execute(select(ApiKey.__table__))).all()

    assert len(rows) == 1
    assert api.key not in str(rows)
    assert api.key.encode() not in rows[0].key_hash


async def test_an_upload_of_another_tenant_is_not_found(api: Api, stranger: Api) -> None:
    upload_id = await api.sent(b"content")
    _, job_id = await api.finalized()

    assert problem(await stranger.get(f"/uploads/{upload_id}")) == (404, "upload_not_found")
    assert problem(await stranger.put(upload_id, 0, b"content")) == (404, "upload_not_found")
    assert problem(await stranger.finalize(upload_id)) == (404, "upload_not_found")
    assert problem(await stranger.get(f"/uploads/{upload_id}/status")) == (404, "upload_not_found")
    abandoned = await stranger.ask("DELETE", f"/uploads/{upload_id}")
    assert problem(abandoned) == (404, "upload_not_found")
    assert problem(await stranger.get(f"/jobs/{job_id}")) == (404, "job_not_found")
    assert (await stranger.get("/jobs")).json()["items"] == []
    assert await api.stored(upload_id) == [0]


async def test_a_missing_upload_and_the_upload_of_another_tenant_get_the_same_answer(
    api: Api, stranger: Api
) -> None:
    upload_id = await api.created(size=5)
    missing = str(uuid4())

    foreign = (await stranger.get(f"/uploads/{upload_id}")).text.replace(upload_id, "")
    missing_answer = (await stranger.get(f"/uploads/{missing}")).text.replace(missing, "")

    assert foreign == missing_answer


def _template(path: str) -> str:
    parts = path.partition("?")[0].split("/")
    for place, part in enumerate(parts):
        if part == str(SOME):
            nouns = parts[place - 1]
            noun = {"deliveries": "delivery", "batches": "batch"}.get(
                nouns, nouns.removesuffix("s")
            )
            parts[place] = f"{{{noun}_id}}"
    return (
        "/".join(parts)
        .replace("/chunks/0", "/chunks/{index}")
        .replace("/pages/1", "/pages/{number}")
        .replace("/tables/1", "/tables/{number}")
        .replace("/figures/1", "/figures/{number}")
        .replace("/event-types/ping", "/event-types/{event_type}")
    )
