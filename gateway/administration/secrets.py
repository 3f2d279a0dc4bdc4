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
from schemas.policy import document_passwords, webhook_secrets
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.webhooks import Webhook

BATCH: Final = 500
"""Rows of one transaction; they stay locked until it ends."""


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """A column of secrets.

    Attributes:
        kind: what the rows are, for the operator.
        id: the key of the table.
        secret: the column.
        encrypt, decrypt: of a secret in the row of this id; `decrypt` raises `DecryptionFailed`.
    """

    kind: str
    id: InstrumentedAttribute[Any]
    secret: InstrumentedAttribute[str]
    encrypt: Callable[[str, UUID, KeyRing], str]
    decrypt: Callable[[str, UUID, KeyRing], str]


EVERY_SECRET: Final = (
    Secrets(
        kind="webhook",
        id=Webhook.id,
        secret=Webhook.secret,
        encrypt=lambda secret, of, keys: webhook_secrets.encrypt(
            secret, webhook_id=WebhookId(of), keys=keys
        ),
        decrypt=lambda stored, of, keys: webhook_secrets.decrypt(
            stored, webhook_id=WebhookId(of), keys=keys
        ),
    ),
    Secrets(
        kind="password of upload",
        id=DocumentPassword.upload_id,
        secret=DocumentPassword.secret,
        encrypt=lambda password, of, keys: document_passwords.encrypt(
            password, upload_id=UploadId(of), keys=keys
        ),
        decrypt=lambda stored, of, keys: document_passwords.decrypt(
            stored, upload_id=UploadId(of), keys=keys
        ),
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
) -> Sequence[Row[UUID, str]]:
    """Lock and return rows whose secret the first key does not encrypt."""
    return (
        await session.execute(
            select(secrets.id.label("id"), secrets.secret)
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
    rows: Sequence[Row[UUID, str]],
    *,
    keys: KeyRing,
    rotation: Rotation,
) -> None:
    replaced = []
    for of, stored in rows:
        try:
            secret = secrets.decrypt(stored, of, keys)
        except DecryptionFailed as error:
            rotation.unreadable[f"{secrets.kind} {of}"] = str(error)
            continue
        encrypted = secrets.encrypt(secret, of, keys)
        replaced.append({secrets.id.key: of, secrets.secret.key: encrypted})
    if replaced:
        await session.execute(update(secrets.id.class_), replaced)
    rotation.encrypted += len(replaced)
