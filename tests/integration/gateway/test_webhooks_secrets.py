"""The secrets of an endpoint: brought, rotated, ended, and verified with a public key."""

import asyncio
import base64
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.http.idempotency import KeyedRequest
from schemas.api.webhooks import CreateWebhook
from schemas.policy import webhook_secrets
from schemas.tables.audit import AuditEntry
from schemas.tables.idempotency import IdempotentRequest
from tests.integration.gateway.api import Api, BeginSession, problem
from tests.integration.gateway.conftest import Serve
from tests.integration.gateway.endpoints import (
    acts,
    disable,
    register,
    registered,
    secrets_in,
    shift_secrets,
    shown,
    version_of,
)
from tests.integration.gateway.test_webhooks import dump_of

pytestmark = pytest.mark.anyio

OWN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # a published test vector
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
KEY = {"Idempotency-Key": "a"}


async def rotate(
    api: Api,
    webhook_id: str,
    headers: dict[str, str] | None = None,
    **options: Any,  # noqa: ANN401  # whatever the API takes
) -> httpx.Response:
    return await api.ask(
        "POST", f"/webhooks/{webhook_id}/rotate-secret", json=options, headers=headers
    )


async def rotated(api: Api, webhook_id: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401  # whatever the API takes
    answer = await rotate(api, webhook_id, **options)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def life_of(secret: dict[str, Any], *, since: dict[str, Any]) -> timedelta:
    """Return how long a secret signs after another one was made."""
    return datetime.fromisoformat(secret["expires_at"]) - datetime.fromisoformat(
        since["created_at"]
    )


@pytest.mark.parametrize(("secret", "scheme"), [(OWN, "v1"), (PRIVATE, "v1a")])
async def test_an_endpoint_may_have_a_secret_of_the_client(
    api: Api, transaction: BeginSession, secret: str, scheme: str
) -> None:
    created = (await register(api, secret=secret)).json()

    assert await secrets_in(transaction) == {secret}
    assert [each["scheme"] for each in created["secrets"]] == [scheme]
    assert secret not in str(await shown(api, created["webhook_id"]))


async def test_the_private_key_of_an_asymmetric_secret_is_never_shown(
    api: Api, transaction: BeginSession
) -> None:
    created = (await register(api, signature="v1a")).json()

    [private] = await secrets_in(transaction)
    assert created["secret"] is None
    assert created["public_key"] == webhook_secrets.public_key(private)
    assert private.removeprefix("whsk_") not in await dump_of(transaction)


async def test_a_rotation_lets_both_secrets_sign_for_a_day(
    api: Api, transaction: BeginSession
) -> None:
    created = (await register(api)).json()
    webhook_id = created["webhook_id"]
    version = await version_of(transaction, webhook_id)

    new = await rotated(api, webhook_id)

    assert new["secret"].startswith("whsec_")
    assert new["secret"] != created["secret"]
    assert await secrets_in(transaction) == {created["secret"], new["secret"]}
    present, earlier = new["secrets"]
    assert (present["secret_id"], present["expires_at"]) == (new["secret_id"], None)
    assert earlier["secret_id"] == created["secrets"][0]["secret_id"]
    assert life_of(earlier, since=present) == timedelta(hours=24)
    detail = await shown(api, webhook_id)
    assert detail["secrets"] == new["secrets"]
    assert new["secret"] not in str(detail)
    assert await version_of(transaction, webhook_id) > version


async def test_an_overlap_is_chosen_and_never_prolongs_an_earlier_secret(api: Api) -> None:
    webhook_id = await registered(api)

    await rotated(api, webhook_id, overlap=60)
    secrets = (await rotated(api, webhook_id, overlap=3600))["secrets"]

    assert [each["expires_at"] is None for each in secrets] == [True, False, False]
    assert life_of(secrets[1], since=secrets[0]) == timedelta(hours=1)
    assert life_of(secrets[2], since=secrets[1]) == timedelta(minutes=1)


async def test_a_rotation_without_overlap_ends_the_earlier_secrets(api: Api) -> None:
    webhook_id = await registered(api)
    await rotated(api, webhook_id)

    new = await rotated(api, webhook_id, overlap=0)

    assert [each["secret_id"] for each in new["secrets"]] == [new["secret_id"]]


@pytest.mark.parametrize("overlap", [-1, 604_801, "1h"])
async def test_an_overlap_is_at_most_seven_days(api: Api, overlap: object) -> None:
    webhook_id = await registered(api)

    assert problem(await rotate(api, webhook_id, overlap=overlap)) == (400, "invalid_request")
    assert (await rotate(api, webhook_id, overlap=604_800)).status_code == 201


async def test_a_rotation_keeps_the_signature_unless_it_names_another(api: Api) -> None:
    webhook_id = await registered(api, signature="v1a")

    kept = await rotated(api, webhook_id)
    shared = await rotated(api, webhook_id, signature="v1")
    own = await rotated(api, webhook_id, secret=PRIVATE)

    assert [each["scheme"] for each in own["secrets"]] == ["v1a", "v1", "v1a", "v1a"]
    assert (kept["secret"], own["secret"], own["public_key"]) == (None, None, PUBLIC)
    assert (shared["public_key"], shared["secret"].startswith("whsec_")) == (None, True)
    refused = await rotate(api, webhook_id, secret=OWN, signature="v1a")
    assert problem(refused) == (400, "invalid_request")
    assert OWN.removeprefix("whsec_") not in refused.text


async def test_at_most_ten_secrets_sign(api: Api, transaction: BeginSession) -> None:
    webhook_id = await registered(api)
    for _ in range(9):
        await rotated(api, webhook_id)

    refused = await rotate(api, webhook_id)

    assert problem(refused) == (409, "too_many_webhook_secrets")
    secrets = (await shown(api, webhook_id))["secrets"]
    await api.ask("DELETE", f"/webhooks/{webhook_id}/secrets/{secrets[-1]['secret_id']}")
    assert len((await rotated(api, webhook_id))["secrets"]) == 10
    # A leak must never wait for room.
    assert len((await rotated(api, webhook_id, overlap=0))["secrets"]) == 1
    await shift_secrets(transaction, webhook_id, by=-timedelta(days=8))
    await rotated(api, webhook_id)
    assert len(await secrets_in(transaction)) == 2


async def test_concurrent_rotations_keep_the_bound_and_one_present_secret(api: Api) -> None:
    webhook_id = await registered(api)

    answers = await asyncio.gather(*(rotate(api, webhook_id) for _ in range(12)))

    assert sorted(answer.status_code for answer in answers) == [201] * 9 + [409] * 3
    secrets = (await shown(api, webhook_id))["secrets"]
    assert [each["expires_at"] is None for each in secrets] == [True] + [False] * 9


async def test_an_expired_secret_is_not_shown(api: Api, transaction: BeginSession) -> None:
    webhook_id = await registered(api)
    new = await rotated(api, webhook_id, overlap=60)
    await shift_secrets(transaction, webhook_id, by=-timedelta(seconds=61))

    secrets = (await shown(api, webhook_id))["secrets"]

    assert [each["secret_id"] for each in secrets] == [new["secret_id"]]


async def test_a_repeated_rotation_adds_one_secret(api: Api, transaction: BeginSession) -> None:
    webhook_id = await registered(api)

    first = await rotate(api, webhook_id, headers=KEY)
    second = await rotate(api, webhook_id, headers=KEY)
    other = await rotate(api, webhook_id, headers=KEY, overlap=60)

    assert first.status_code == second.status_code == 201
    assert second.json() == first.json() | {"secret": None}
    assert problem(other) == (422, "idempotency_key_reused")
    assert len(await secrets_in(transaction)) == 2


async def test_a_secret_of_the_client_is_in_no_hash_of_a_request(
    api: Api, transaction: BeginSession
) -> None:
    first = await api.ask(
        "POST", "/webhooks", json={"url": "https://a.example/", "secret": OWN}, headers=KEY
    )
    second = await api.ask(
        "POST", "/webhooks", json={"url": "https://a.example/", "secret": OWN}, headers=KEY
    )
    other = await api.ask(
        "POST", "/webhooks", json={"url": "https://a.example/", "secret": PRIVATE}, headers=KEY
    )

    assert second.json() == first.json() | {"secret": None}
    assert problem(other) == (422, "idempotency_key_reused")
    async with transaction() as session:
        stored = (await session.scalars(select(IdempotentRequest.request_hash))).one()
    assert stored != hash_without_key(OWN)


def hash_without_key(secret: str) -> bytes:
    """Return the hash that anybody could compare with guesses."""
    request = CreateWebhook(url="https://a.example/", secret=secret)
    keyed = KeyedRequest.of("a", operation="create_webhook", request=request)
    assert keyed is not None
    return keyed.request_hash


async def test_an_earlier_secret_is_ended_but_never_the_present_one(
    api: Api, transaction: BeginSession
) -> None:
    created = (await register(api)).json()
    webhook_id = created["webhook_id"]
    secrets = f"/webhooks/{webhook_id}/secrets"
    new = await rotated(api, webhook_id)
    [earlier] = created["secrets"]

    present = await api.ask("DELETE", f"{secrets}/{new['secret_id']}")
    first = await api.ask("DELETE", f"{secrets}/{earlier['secret_id']}")
    second = await api.ask("DELETE", f"{secrets}/{earlier['secret_id']}")
    unknown = await api.ask("DELETE", f"{secrets}/{webhook_id}")

    assert problem(present) == (409, "webhook_secret_in_use")
    assert first.status_code == second.status_code == 204
    assert problem(unknown) == (404, "webhook_secret_not_found")
    assert [each["secret_id"] for each in (await shown(api, webhook_id))["secrets"]] == [
        new["secret_id"]
    ]
    assert await acts(transaction, webhook_id) == [
        ("webhook.created", {}),
        ("webhook.secret_rotated", {"secret_id": new["secret_id"]}),
        ("webhook.secret_ended", {"secret_id": earlier["secret_id"]}),
    ]


async def test_secrets_of_another_tenant_are_not_found(api: Api, stranger: Api) -> None:
    created = (await register(api)).json()
    webhook_id = created["webhook_id"]
    [secret] = created["secrets"]

    for answer in (
        await rotate(stranger, webhook_id),
        await stranger.ask("DELETE", f"/webhooks/{webhook_id}/secrets/{secret['secret_id']}"),
        await stranger.ask("POST", f"/webhooks/{webhook_id}/enable"),
    ):
        assert problem(answer) == (404, "webhook_not_found")


async def test_public_keys_are_read_without_an_api_key(api: Api, transaction: BeginSession) -> None:
    created = (await register(api, signature="v1a")).json()
    path = f"/api/v1/webhooks/{created['webhook_id']}/public-key"
    rotation = await rotated(api, created["webhook_id"], secret=PRIVATE)

    answer = await api.http.get(path)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys = answer.json()
    assert keys["public_key"] == PUBLIC
    assert [key["whpk"] for key in keys["keys"]] == [PUBLIC, created["public_key"]]
    assert [key["expires_at"] is None for key in keys["keys"]] == [True, False]
    newest = keys["keys"][0]
    assert newest["kid"] == rotation["secret_id"]
    assert base64.urlsafe_b64decode(newest["x"] + "=") == base64.b64decode(
        PUBLIC.removeprefix("whpk_")
    )
    assert {name: newest[name] for name in ("kty", "crv", "alg", "use")} == {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
    }
    await disable(transaction, created["webhook_id"])
    assert (await api.http.get(path)).json() == keys
    await api.ask("DELETE", f"/webhooks/{created['webhook_id']}")
    assert problem(await api.http.get(path)) == (404, "webhook_not_found")


async def test_an_endpoint_with_a_shared_secret_has_no_public_key(api: Api) -> None:
    created = (await register(api)).json()

    answer = await api.http.get(f"/api/v1/webhooks/{created['webhook_id']}/public-key")

    assert created["public_key"] is None
    assert answer.json() == {"public_key": None, "keys": []}


async def test_the_default_overlap_is_a_setting(serve: Serve) -> None:
    async with serve(webhook_secret_overlap="90s") as api:  # noqa: S106  # a time
        new = await rotated(api, await registered(api))

    assert life_of(new["secrets"][1], since=new["secrets"][0]) == timedelta(seconds=90)


async def test_no_log_line_and_no_act_has_a_secret(
    api: Api, transaction: BeginSession, capsys: pytest.CaptureFixture[str]
) -> None:
    created = (
        await register(api, headers=[{"name": "X-Token", "value": "hunter2"}], secret=OWN)
    ).json()
    await rotated(api, created["webhook_id"], secret=PRIVATE)
    await rotate(api, created["webhook_id"], secret=f"{OWN}!")

    out, err = capsys.readouterr()
    async with transaction() as session:
        recorded = [str(entry.detail) for entry in await session.scalars(select(AuditEntry))]
    for text in (out, err, *recorded):
        for secret in (OWN, PRIVATE, "hunter2", "token=abc"):
            assert secret.removeprefix("whsec_").removeprefix("whsk_") not in text
