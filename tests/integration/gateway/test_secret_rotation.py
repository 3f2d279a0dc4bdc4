"""`waybill secrets rotate`."""

from collections.abc import Iterable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from gateway.administration import secrets, tenants
from gateway.db import Database
from schemas.ids import UploadId, WebhookId
from schemas.key_ring import KeyRing
from schemas.policy import document_passwords, webhook_headers, webhook_secrets
from schemas.settings import DatabaseSettings
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.webhooks import Webhook, WebhookSecret
from tests.factories.secret_keys import KEY, KEYS, OTHER_KEY
from tests.integration.gateway.api import Api
from tests.integration.gateway.endpoints import registered
from tests.integration.gateway.process import run_command

pytestmark = pytest.mark.anyio

PLAIN = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = KeyRing.parse(OTHER_KEY)
BOTH_KEYS = f"{OTHER_KEY},{KEY}"


async def add(database: Database, *keys: KeyRing | None, is_deleted: bool = False) -> None:
    """Add a webhook for each key ring, with a secret encrypted by it, or plain for None."""
    async with database.transaction() as session:
        tenant_id = await tenants.find_or_create(session, name="acme")
        for ring in keys:
            webhook_id = WebhookId(uuid4())
            session.add(
                Webhook(
                    id=webhook_id,
                    tenant_id=tenant_id,
                    url="https://example.com/",
                    deleted_at=func.now() if is_deleted else None,
                )
            )
            await session.flush()
            session.add(
                WebhookSecret(
                    id=uuid4(),
                    webhook_id=webhook_id,
                    scheme="v1",
                    secret=PLAIN
                    if ring is None
                    else webhook_secrets.encrypt(PLAIN, webhook_id=webhook_id, keys=ring),
                )
            )


async def stored(database: Database) -> dict[WebhookId, str]:
    async with database.transaction() as session:
        return {row.webhook_id: row.secret for row in await session.scalars(select(WebhookSecret))}


def decrypted(rows: dict[WebhookId, str], *, keys: KeyRing) -> Iterable[str]:
    return [
        webhook_secrets.decrypt(secret, webhook_id=webhook_id, keys=keys)
        for webhook_id, secret in rows.items()
    ]


async def rotate(database: DatabaseSettings, *, keys: str) -> tuple[int | None, str, str]:
    url = database.database_url.get_secret_value()
    return await run_command("secrets", "rotate", DATABASE_URL=url, SECRET_KEYS=keys)


async def test_a_rotation_encrypts_old_and_plain_secrets_with_the_first_key(
    database: DatabaseSettings, gateway_database: Database
) -> None:
    await add(gateway_database, KEYS, KEYS, None, NEW)
    await add(gateway_database, KEYS, is_deleted=True)

    first = await rotate(database, keys=BOTH_KEYS)
    second = await rotate(database, keys=BOTH_KEYS)

    assert first == (0, "encrypted: 4\n", "")
    assert second == (0, "encrypted: 0\n", "")
    rows = await stored(gateway_database)
    assert all(secret.startswith(NEW.prefix) for secret in rows.values())
    assert decrypted(rows, keys=NEW) == [PLAIN] * 5


async def test_a_rotation_encrypts_passwords_of_documents(
    api: Api, database: DatabaseSettings, gateway_database: Database
) -> None:
    upload_id = UploadId(UUID(await api.created(size=1, password="hunter2")))  # noqa: S106  # of a test

    first = await rotate(database, keys=BOTH_KEYS)
    second = await rotate(database, keys=OTHER_KEY)

    assert first == (0, "encrypted: 1\n", "")
    assert second == (0, "encrypted: 0\n", "")
    async with gateway_database.transaction() as session:
        token = (await session.scalars(select(DocumentPassword.secret))).one()
    assert document_passwords.decrypt(token, upload_id=upload_id, keys=NEW) == "hunter2"


async def test_a_rotation_encrypts_headers_and_every_secret_of_an_endpoint(
    api: Api, database: DatabaseSettings, gateway_database: Database
) -> None:
    headers = [{"name": "X-Token", "value": "hunter2"}]
    webhook_id = await registered(api, headers=headers, signature="v1a")
    await api.ask("POST", f"/webhooks/{webhook_id}/rotate-secret")
    await registered(api)

    first = await rotate(database, keys=BOTH_KEYS)
    second = await rotate(database, keys=OTHER_KEY)

    assert first == (0, "encrypted: 4\n", "")
    assert second == (0, "encrypted: 0\n", "")
    async with gateway_database.transaction() as session:
        of = WebhookId(UUID(webhook_id))
        stored = (await session.scalars(select(Webhook.headers).where(Webhook.id == of))).one()
    [header] = webhook_headers.decrypt(stored, webhook_id=of, keys=NEW)
    assert (header.name, header.value, header.sensitive) == ("X-Token", "hunter2", True)


async def test_an_unreadable_secret_is_reported_and_the_others_are_rotated(
    database: DatabaseSettings, gateway_database: Database
) -> None:
    await add(gateway_database, KEYS)
    before = await stored(gateway_database)
    [unreadable] = before
    await add(gateway_database, None)

    code, out, err = await rotate(database, keys=OTHER_KEY)

    assert (code, out) == (1, "encrypted: 1\n")
    assert f"webhook {unreadable}: SECRET_KEYS has no key with the id" in err
    after = await stored(gateway_database)
    assert after[unreadable] == before[unreadable]
    assert sum(secret.startswith(NEW.prefix) for secret in after.values()) == 1


async def test_a_rotation_passes_through_all_batches(gateway_database: Database) -> None:
    await add(gateway_database, *[KEYS] * 5, KeyRing([bytes(32)]), None)

    rotation = await secrets.rotate(gateway_database, keys=KeyRing.parse(BOTH_KEYS), batch=2)

    assert (rotation.encrypted, len(rotation.unreadable)) == (6, 1)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [({}, "Field required"), ({"SECRET_KEYS": "hunter2"}, "openssl rand -base64 32")],
)
async def test_a_missing_or_malformed_key_is_named(keys: dict[str, str], reason: str) -> None:
    code, out, err = await run_command(
        "secrets", "rotate", DATABASE_URL="postgresql+psycopg://u:p@h/d", **keys
    )

    assert (code, out) == (2, "")
    assert "setting SECRET_KEYS: " in err
    assert reason in err
    assert "hunter2" not in err
