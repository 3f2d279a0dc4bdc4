"""The options of an endpoint: at its registration, and changed by a merge patch."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from schemas.ids import WebhookId
from schemas.policy import webhook_headers
from schemas.tables.webhooks import Webhook
from tests.factories.secret_keys import KEYS
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.endpoints import (
    URL,
    acts,
    change,
    is_due,
    queue_of,
    register,
    registered,
    set_queue,
    shown,
    version_of,
)

pytestmark = pytest.mark.anyio

HEADERS = [
    {"name": "X-Team", "value": "billing", "sensitive": False},
    {"name": "Authorization", "value": "Basic aHVudGVyMg=="},
]
OPTIONS = {
    "event_types": ["document.*", "upload.stored"],
    "metadata_filter": {"team": "billing"},
    "description": "ours",
    "headers": HEADERS,
    "timeout": 7.5,
    "concurrency": 3,
    "rate": 0.1,
    "ordered": True,
}
DEFAULTS: dict[str, Any] = {
    "event_types": [],
    "metadata_filter": None,
    "description": None,
    "headers": [],
    "timeout": None,
    "concurrency": None,
    "rate": None,
    "ordered": False,
}
SHOWN = OPTIONS | {
    "headers": [
        {"name": "X-Team", "value": "billing", "sensitive": False},
        {"name": "Authorization", "value": None, "sensitive": True},
    ]
}


async def headers_in(transaction: BeginSession, webhook_id: str) -> dict[str, str]:
    """Return the headers in the database, decrypted."""
    async with transaction() as session:
        stored = (
            await session.scalars(select(Webhook.headers).where(Webhook.id == UUID(webhook_id)))
        ).one()
    headers = webhook_headers.decrypt(stored, webhook_id=WebhookId(UUID(webhook_id)), keys=KEYS)
    return {header.name: header.value for header in headers}


async def test_the_options_of_an_endpoint_are_shown_without_sensitive_values(api: Api) -> None:
    created = (await register(api, **OPTIONS)).json()

    detail = await shown(api, created["webhook_id"])
    [listed] = (await api.get("/webhooks")).json()["items"]

    for view in (created, detail, listed):
        assert {name: view[name] for name in SHOWN} == SHOWN
        assert "aHVudGVyMg" not in str(view)


async def test_the_database_has_headers_only_encrypted(api: Api, transaction: BeginSession) -> None:
    webhook_id = await registered(api, headers=HEADERS)

    async with transaction() as session:
        stored = (await session.scalars(select(Webhook.headers))).one()
    assert stored is not None
    assert "aHVudGVyMg" not in stored
    assert await headers_in(transaction, webhook_id) == {
        "X-Team": "billing",
        "Authorization": "Basic aHVudGVyMg==",
    }


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"headers": [{"name": "Host", "value": "a"}]}, "headers[0]"),
    ({"headers": [{"name": "webhook-id", "value": "a"}]}, "headers[0]"),
    ({"headers": [{"name": "a b", "value": "a"}]}, "headers[0]"),
    ({"headers": [HEADERS[0], {"name": "X-A", "value": "a\r\nX-B: b"}]}, "headers[1]"),
    ({"headers": [HEADERS[0], {"name": "x-team", "value": "a"}]}, "headers[1]"),
    ({"headers": [{"name": "X-A"}]}, "headers[0].value"),
    ({"headers": [{"name": f"X-{n}", "value": "a"} for n in range(17)]}, "headers"),
    (
        {"headers": [{"name": f"X-{n}", "value": "a" * 4096} for n in range(3)]},
        "headers",
    ),
    ({"timeout": 31}, "timeout"),
    ({"timeout": 0.5}, "timeout"),
    ({"concurrency": 0}, "concurrency"),
    ({"rate": 0}, "rate"),
    ({"metadata_filter": {str(n): "a" for n in range(17)}}, "metadata_filter"),
    ({"metadata_filter": {"a": {"b": "c"}}}, "metadata_filter"),
    ({"secret": "hunter2"}, "secret"),
    ({"secret": "whsec_aHVudGVyMg=="}, "secret"),
    ({"secret": "whsec_" + "c" * 32, "signature": "v1a"}, "signature"),
    ({"signature": "v2"}, "signature"),
    ({"enabled": True}, "enabled"),
]


async def test_a_refused_option_is_named_without_its_value(api: Api) -> None:
    for options, field in REFUSED:
        answer = await register(api, **options)
        assert problem(answer) == (400, "invalid_request"), options
        assert field.partition("[")[0] in answer.text, options
        for value in ("hunter2", "aHVudGVyMg", "cccc", "aaaa", "X-B"):
            assert value not in answer.text, options


@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
async def test_a_patch_changes_only_the_given_fields(
    api: Api, transaction: BeginSession, content_type: str
) -> None:
    created = (await register(api, **OPTIONS)).json()
    version = await version_of(transaction, created["webhook_id"])

    answer = await api.ask(
        "PATCH",
        f"/webhooks/{created['webhook_id']}",
        headers={"Content-Type": content_type},
        content=b'{"description": "theirs", "rate": null}',
    )

    assert answer.status_code == 200
    assert answer.json() == {
        name: value for name, value in created.items() if name not in {"secret", "public_key"}
    } | {"description": "theirs", "rate": None}
    assert await version_of(transaction, created["webhook_id"]) > version


async def test_null_resets_every_option(api: Api) -> None:
    webhook_id = await registered(api, **OPTIONS)

    answer = await change(api, webhook_id, **dict.fromkeys(OPTIONS))

    assert {name: answer.json()[name] for name in DEFAULTS} == DEFAULTS


async def test_a_patch_merges_the_metadata_filter(api: Api) -> None:
    webhook_id = await registered(api, metadata_filter={"team": "billing", "stage": "live"})

    answer = await change(api, webhook_id, metadata_filter={"team": None, "region": "eu"})
    too_many = await change(api, webhook_id, metadata_filter={str(n): "a" for n in range(15)})

    assert answer.json()["metadata_filter"] == {"stage": "live", "region": "eu"}
    assert problem(too_many) == (400, "invalid_request")


async def test_a_header_without_a_value_keeps_its_value(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api, headers=HEADERS)

    answer = await change(
        api,
        webhook_id,
        headers=[{"name": "authorization"}, {"name": "X-New", "value": "a", "sensitive": False}],
    )

    assert [header["value"] for header in answer.json()["headers"]] == [None, "a"]
    assert await headers_in(transaction, webhook_id) == {
        "authorization": "Basic aHVudGVyMg==",
        "X-New": "a",
    }


async def test_a_sensitive_value_cannot_be_kept_by_a_header_that_is_shown(api: Api) -> None:
    webhook_id = await registered(api, headers=HEADERS)

    answer = await change(api, webhook_id, headers=[{"name": "Authorization", "sensitive": False}])

    assert problem(answer) == (400, "invalid_request")
    assert "aHVudGVyMg" not in answer.text


async def test_a_patch_that_changes_nothing_is_no_change(
    api: Api, transaction: BeginSession
) -> None:
    webhook_id = await registered(api, **OPTIONS)
    version = await version_of(transaction, webhook_id)

    answer = await change(api, webhook_id, **OPTIONS, url=URL, state="active")

    assert answer.status_code == 200
    assert await version_of(transaction, webhook_id) == version
    assert await acts(transaction, webhook_id) == [("webhook.created", {})]


async def test_a_new_url_keeps_the_secrets_and_forgets_the_failures(
    api: Api, transaction: BeginSession
) -> None:
    created = (await register(api)).json()
    webhook_id = created["webhook_id"]
    await set_queue(
        transaction,
        webhook_id,
        failing_since=func.now(),
        blocked_until=func.now(),
        throttles=3,
        failures=9,
    )

    answer = await change(api, webhook_id, url="https://other.example.com/hook")

    assert answer.json()["url"] == "https://other.example.com/hook"
    assert answer.json()["secrets"] == created["secrets"]
    queue = await queue_of(transaction, webhook_id)
    assert (queue.failing_since, queue.blocked_until) == (None, None)
    assert (queue.throttles, queue.failures) == (0, 0)
    assert await is_due(transaction, webhook_id)
    assert await acts(transaction, webhook_id) == [
        ("webhook.created", {}),
        ("webhook.changed", {"fields": ["url"]}),
    ]


async def test_the_url_of_a_patch_and_of_a_callback_has_the_rules_of_a_registration(
    api: Api,
) -> None:
    webhook_id = await registered(api)

    for url in (
        "",
        "ftp://example.com/",
        "https://example.com:6000/",
        "https://168.63.129.16/hook",
        "https://[64:ff9b::a00:1]/h",
        "https://user:password@example.com/",
        "https://example.com/#fragment",
    ):
        refused = [
            await register(api, url=url),
            await change(api, webhook_id, url=url),
            await api.create(size=5, callback_url=url),
        ]
        # An empty field of a form counts as absent.
        if url:
            file = ("a.bin", b"content")
            refused.append(
                await api.ask(
                    "POST", "/upload-async", data={"callback_url": url}, files={"file": file}
                )
            )
        assert {problem(answer) for answer in refused} == {(422, "webhook_url_refused")}, url
        assert len({answer.json()["detail"] for answer in refused}) == 1, url
    for url in ("https://bücher.example/", "https://example.com./x"):
        assert (await register(api, url=url)).status_code == 201, url
        assert (await change(api, webhook_id, url=url)).status_code == 200, url
        assert (await api.create(size=5, callback_url=url)).status_code == 201, url


async def test_an_unknown_endpoint_cannot_be_changed(api: Api, stranger: Api) -> None:
    webhook_id = await registered(api)

    assert problem(await change(stranger, webhook_id, description="mine")) == (
        404,
        "webhook_not_found",
    )
    await api.ask("DELETE", f"/webhooks/{webhook_id}")
    assert problem(await change(api, webhook_id, description="mine")) == (404, "webhook_not_found")


async def test_a_setting_bounds_the_timeout(api: Api, serve: Serve) -> None:
    assert (await register(api, timeout=30)).status_code == 201
    async with serve(webhook_timeout_max="5s") as strict:
        assert problem(await register(strict, timeout=5.1)) == (400, "invalid_request")
        assert (await register(strict, timeout=5)).status_code == 201
