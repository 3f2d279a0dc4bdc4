"""A callback is an endpoint of one upload."""

import pytest
from sqlalchemy import select

from schemas.tables.webhooks import Webhook
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.endpoints import (
    URL,
    acts,
    change,
    registered,
    secrets_in,
    shown,
)

pytestmark = pytest.mark.anyio

KEY = {"Idempotency-Key": "a"}


async def test_the_id_of_a_callback_is_shown_wherever_its_upload_is_created(api: Api) -> None:
    created = (await api.create(size=5, callback_url=URL)).json()
    form = (
        await api.ask(
            "POST",
            "/upload-async",
            data={"callback_url": URL},
            files={"file": ("a.bin", b"content")},
        )
    ).json()
    after_the_file = (
        await api.ask(
            "POST",
            "/upload-async",
            files=[("file", ("a.bin", b"content")), ("callback_url", (None, URL))],
        )
    ).json()

    for answer in (created, form, after_the_file):
        assert answer["callback_secret"].startswith("whsec_")
        view = await shown(api, answer["callback_webhook_id"])
        assert (view["upload_id"], view["url"]) == (answer["upload_id"], URL)
        upload = (await api.get(f"/uploads/{answer['upload_id']}")).json()
        assert upload["callback_webhook_id"] == answer["callback_webhook_id"]


async def test_an_upload_without_a_callback_has_none(api: Api) -> None:
    created = (await api.create(size=5)).json()

    assert "callback_webhook_id" not in created
    upload = (await api.get(f"/uploads/{created['upload_id']}")).json()
    assert upload["callback_webhook_id"] is None


async def test_a_repeated_upload_shows_its_callback_without_the_secret(
    api: Api, transaction: BeginSession
) -> None:
    first = (await api.create(size=5, callback_url=URL, headers=KEY)).json()
    second = (await api.create(size=5, callback_url=URL, headers=KEY)).json()

    assert second == first | {"callback_secret": None}
    assert await secrets_in(transaction) == {first["callback_secret"]}


async def test_callbacks_are_listed_by_their_upload_alone(api: Api, stranger: Api) -> None:
    endpoint = await registered(api)
    created = (await api.create(size=5, callback_url=URL)).json()
    await api.create(size=5, callback_url=URL)

    async def listed(caller: Api, **query: str) -> list[str]:
        items = (await caller.get("/webhooks", **query)).json()["items"]
        return [item["webhook_id"] for item in items]

    assert await listed(api) == [endpoint]
    upload_id = created["upload_id"]
    assert await listed(api, upload_id=upload_id) == [created["callback_webhook_id"]]
    assert await listed(stranger, upload_id=upload_id) == []
    callback = f"/webhooks/{created['callback_webhook_id']}"
    assert problem(await stranger.get(callback)) == (404, "webhook_not_found")


async def test_a_callback_is_changed_and_deleted_as_other_endpoints_are(
    api: Api, transaction: BeginSession
) -> None:
    created = (await api.create(size=5, callback_url=URL)).json()
    callback = created["callback_webhook_id"]

    changed = await change(api, callback, event_types=["document.*"], state="paused")
    rotated = await api.ask("POST", f"/webhooks/{callback}/rotate-secret")
    deleted = await api.ask("DELETE", f"/webhooks/{callback}")

    assert (changed.json()["state"], changed.json()["event_types"]) == ("paused", ["document.*"])
    assert rotated.json()["secret"].startswith("whsec_")
    assert deleted.status_code == 204
    upload = (await api.get(f"/uploads/{created['upload_id']}")).json()
    assert upload["callback_webhook_id"] is None
    assert await acts(transaction, callback) == []


@pytest.mark.parametrize("purge", ["false", "true"])
async def test_a_callback_outlives_its_cancelled_upload_for_the_last_event(
    api: Api, transaction: BeginSession, purge: str
) -> None:
    created = (await api.create(size=5, callback_url=URL)).json()
    other = (await api.create(size=5, callback_url=URL)).json()

    answer = await api.ask("DELETE", f"/uploads/{created['upload_id']}", params={"purge": purge})

    assert answer.status_code == 200
    async with transaction() as session:
        ended = {
            str(webhook.id): webhook.upload_ended_at is not None and webhook.deleted_at is None
            for webhook in await session.scalars(select(Webhook))
        }
    assert ended == {created["callback_webhook_id"]: True, other["callback_webhook_id"]: False}
