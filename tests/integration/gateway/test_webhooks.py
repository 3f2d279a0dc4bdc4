import base64

import pytest
from sqlalchemy import func, select, text, update

from schemas.tables.webhooks import Webhook
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.endpoints import URL, register, secrets_in

pytestmark = pytest.mark.anyio


async def dump_of(transaction: BeginSession) -> str:
    """Return every value of every table as text."""
    async with transaction() as session:
        tables = (
            await session.scalars(
                text("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
            )
        ).all()
        return "\n".join(
            [
                str(row)
                for table in tables
                for row in await session.scalars(
                    text(f"SELECT row_to_json(each)::text FROM {table} AS each")  # noqa: S608  # quoted
                )
            ]
        )


async def test_a_secret_is_shown_once(api: Api) -> None:
    answer = await register(
        api, event_types=["upload.stored", "document.ingested", "upload.stored"], description="ours"
    )

    assert answer.status_code == 201
    created = answer.json()
    path = f"/webhooks/{created['webhook_id']}"
    assert answer.headers["location"] == f"/api/v1{path}"
    assert created["event_types"] == ["upload.stored", "document.ingested"]
    secret = created["secret"]
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    shown = await api.get(path)
    assert shown.json() == {
        "webhook_id": created["webhook_id"],
        "upload_id": None,
        "url": URL,
        "event_types": ["upload.stored", "document.ingested"],
        "metadata_filter": None,
        "description": "ours",
        "headers": [],
        "timeout": None,
        "concurrency": None,
        "rate": None,
        "ordered": False,
        "state": "active",
        "enabled": True,
        "disabled_reason": None,
        "disabled_at": None,
        "secrets": created["secrets"],
        "created_at": created["created_at"],
        "health": {
            "attempts": 0,
            "success_share": None,
            "latency_p95_ms": None,
            "last_error": None,
            "last_delivered_at": None,
            "backlog": 0,
            "failing_since": None,
            "blocked_until": None,
        },
    }
    assert [each["scheme"] for each in created["secrets"]] == ["v1"]
    assert secret not in (await api.get("/webhooks")).text


async def test_the_database_contains_no_secret(api: Api, transaction: BeginSession) -> None:
    registered = (await register(api)).json()
    uploaded = (await api.create(size=5, callback_url=URL)).json()

    decrypted = await secrets_in(transaction)
    assert decrypted == {registered["secret"], uploaded["callback_secret"]}
    dump = await dump_of(transaction)
    for secret in decrypted:
        assert secret not in dump
        assert secret.removeprefix("whsec_") not in dump


async def test_endpoints_are_listed_newest_first_page_by_page(api: Api, stranger: Api) -> None:
    created = [(await register(api)).json()["webhook_id"] for _ in range(3)]
    await register(stranger)

    first = (await api.get("/webhooks", limit=2)).json()
    second = (await api.get("/webhooks", limit=2, cursor=first["next_cursor"])).json()

    assert [webhook["webhook_id"] for webhook in (*first["items"], *second["items"])] == created[
        ::-1
    ]
    assert second["next_cursor"] is None


async def test_a_disabled_endpoint_shows_the_reason(api: Api, transaction: BeginSession) -> None:
    webhook_id = (await register(api)).json()["webhook_id"]
    async with transaction() as session:
        await session.execute(
            update(Webhook).values(disabled_at=func.now(), disabled_reason="410 Gone")
        )

    shown = (await api.get(f"/webhooks/{webhook_id}")).json()

    assert (shown["enabled"], shown["disabled_reason"]) == (False, "410 Gone")


async def test_a_deleted_endpoint_is_not_found_but_its_row_is_kept(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = (await register(api)).json()["webhook_id"]

    first = await api.ask("DELETE", f"/webhooks/{webhook_id}")
    second = await api.ask("DELETE", f"/webhooks/{webhook_id}")

    assert first.status_code == second.status_code == 204
    assert problem(await api.get(f"/webhooks/{webhook_id}")) == (404, "webhook_not_found")
    assert (await api.get("/webhooks")).json()["items"] == []
    async with transaction() as session:
        assert (await session.scalars(select(Webhook))).one().deleted_at is not None


async def test_an_endpoint_of_another_tenant_is_not_found(api: Api, stranger: Api) -> None:
    path = f"/webhooks/{(await register(api)).json()['webhook_id']}"

    assert problem(await stranger.get(path)) == (404, "webhook_not_found")
    assert problem(await stranger.ask("DELETE", path)) == (404, "webhook_not_found")
    assert (await api.get(path)).status_code == 200


async def test_an_event_type_that_no_endpoint_receives_is_refused(api: Api) -> None:
    for event_type in ("upload.finalized", "uploads.*", "*.stored", "upload*", ".*", "ping", ""):
        answer = await register(api, event_types=["upload.stored", event_type])
        assert problem(answer) == (400, "invalid_request")
        [error] = answer.json()["errors"]
        assert error["field"] == "event_types"
        assert repr(event_type) in error["message"]


async def test_a_description_with_nul_is_refused(api: Api) -> None:
    assert problem(await register(api, description="a\x00b")) == (400, "invalid_request")


async def test_a_loopback_url_is_refused_unless_loopback_is_allowed(api: Api, serve: Serve) -> None:
    local = "http://127.0.0.1:9000/hook"

    refused = await register(api, url=local)
    assert problem(refused) == (422, "webhook_url_refused")
    assert problem(await api.create(size=5, callback_url=local)) == (422, "webhook_url_refused")
    async with serve(webhook_allow_loopback=True) as permissive:
        assert (await register(permissive, url=local)).status_code == 201


async def test_a_callback_is_a_webhook_of_one_upload(api: Api, transaction: BeginSession) -> None:
    created = (await api.create(size=5, callback_url=URL)).json()

    assert created["callback_secret"].startswith("whsec_")
    assert (await api.get("/webhooks")).json()["items"] == []
    assert await secrets_in(transaction) == {created["callback_secret"]}
    shown = (await api.get(f"/webhooks/{created['callback_webhook_id']}")).json()
    assert (shown["upload_id"], shown["url"]) == (created["upload_id"], URL)
    assert shown["event_types"] == []
    listed = (await api.get("/webhooks", upload_id=created["upload_id"])).json()["items"]
    assert listed == [{name: value for name, value in shown.items() if name != "health"}]
    upload = (await api.get(f"/uploads/{created['upload_id']}")).json()
    assert upload["callback_webhook_id"] == created["callback_webhook_id"]
