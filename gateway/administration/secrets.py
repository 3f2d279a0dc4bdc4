"""Encrypts the secrets in the database again, with the first key of `SECRET_KEYS`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, not_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from gateway.db import Database
from schemas.ids import UploadId, WebhookId
from schemas.key_ring import DecryptionFailed, KeyRing
from schemas.policy import document_passwords, webhook_headers, webhook_secrets
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.webhooks import Webhook, WebhookSecret

BATCH: Final = 500
"""Rows of one transaction; they stay locked until it ends."""


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """A column of secrets.

    Attributes:
        kind: what `of` is, for the operator.
        id: the key of the table.
        of: the row that a secret is encrypted for.
        secret: the column; null in rows without a secret.
        encrypt_again: encrypts a secret of the row `of` with the first key; raises
            `DecryptionFailed`.
    """

    kind: str
    id: InstrumentedAttribute[Any]
    of: InstrumentedAttribute[Any]
    secret: InstrumentedAttribute[str] | InstrumentedAttribute[str | None]
    encrypt_again: Callable[[str, UUID, KeyRing], str | None]


def _webhook_secret(stored: str, webhook_id: UUID, keys: KeyRing) -> str:
    of = WebhookId(webhook_id)
    secret = webhook_secrets.decrypt(stored, webhook_id=of, keys=keys)
    return webhook_secrets.encrypt(secret, webhook_id=of, keys=keys)


def _webhook_headers(stored: str, webhook_id: UUID, keys: KeyRing) -> str | None:
    of = WebhookId(webhook_id)
    headers = webhook_headers.decrypt(stored, webhook_id=of, keys=keys)
    return webhook_headers.encrypt(headers, webhook_id=of, keys=keys)


def _password(stored: str, upload_id: UUID, keys: KeyRing) -> str:
    of = UploadId(upload_id)
    password = document_passwords.decrypt(stored, upload_id=of, keys=keys)
    return document_passwords.encrypt(password, upload_id=of, keys=keys)


EVERY_SECRET: Final = (
    Secrets(
        kind="webhook",
        id=WebhookSecret.id,
        of=WebhookSecret.webhook_id,
        secret=WebhookSecret.secret,
        encrypt_again=_webhook_secret,
    ),
    Secrets(
        kind="headers of webhook",
        id=Webhook.id,
        of=Webhook.id,
        secret=Webhook.headers,
        encrypt_again=_webhook_headers,
    ),
    Secrets(
        kind="password of upload",
        id=DocumentPassword.upload_id,
        of=DocumentPassword.upload_id,
        secret=DocumentPassword.secret,
        encrypt_again=_password,
    ),
)


@dataclass(kw_only=True)
class Rotation:
    """The result of a rotation.

    Attributes:
        encrypted: how many secrets were encrypted with the first key.
        unreadable: the secrets that no key decrypts, each with the reason.
    """

    encrypted: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


async def rotate(database: Database, *, keys: KeyRing, batch: int = BATCH) -> Rotation:
    """Encrypt all secrets with the first key; skip those that it already encrypts.

    Each batch is a transaction: after an interruption, a repetition continues where this stopped.
    A secret that no key decrypts stays as it is.
    """
    rotation = Rotation()
    for secrets in EVERY_SECRET:
        last = UUID(int=0)
        while True:
            async with database.transaction() as session:
                rows = await _next(session, secrets, after=last, keys=keys, limit=batch)
                if not rows:
                    break
                await _encrypt(session, secrets, rows, keys=keys, rotation=rotation)
            last = rows[-1].id
    return rotation


async def _next(
    session: AsyncSession, secrets: Secrets, *, after: UUID, keys: KeyRing, limit: int
) -> Sequence[Row[UUID, UUID, str]]:
    """Lock and return rows whose secret the first key does not encrypt: id, `of` and secret."""
    return (
        await session.execute(
            select(secrets.id.label("id"), secrets.of.label("of"), secrets.secret)
            .where(secrets.id > after, not_(secrets.secret.startswith(keys.prefix)))
            .order_by(secrets.id)
            .limit(limit)
            # FOR NO KEY UPDATE: FOR UPDATE would block new deliveries to these webhooks.
            .with_for_update(key_share=True)
        )
    ).all()


async def _encrypt(
    session: AsyncSession,
    secrets: Secrets,
    rows: Sequence[Row[UUID, UUID, str]],
    *,
    keys: KeyRing,
    rotation: Rotation,
) -> None:
    replaced = []
    for row_id, of, stored in rows:
        try:
            encrypted = secrets.encrypt_again(stored, of, keys)
        except DecryptionFailed as error:
            rotation.unreadable[f"{secrets.kind} {of}"] = str(error)
            continue
        replaced.append({secrets.id.key: row_id, secrets.secret.key: encrypted})
    if replaced:
        await session.execute(update(secrets.id.class_), replaced)
    rotation.encrypted += len(replaced)
