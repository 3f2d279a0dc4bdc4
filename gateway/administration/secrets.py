"""Encrypts the secrets in the database again, with the first key of `SECRET_KEYS`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy import Row, not_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import Database
from schemas.ids import WebhookId
from schemas.key_ring import DecryptionFailed, KeyRing
from schemas.policy import webhook_secrets
from schemas.tables.webhooks import Webhook

BATCH: Final = 500
"""Rows of one transaction; they stay locked until it ends."""


@dataclass(kw_only=True)
class Rotation:
    """The result of a rotation.

    Attributes:
        encrypted: how many secrets were encrypted with the first key.
        unreadable: the webhooks whose secret no key decrypts, each with the reason.
    """

    encrypted: int = 0
    unreadable: dict[WebhookId, str] = field(default_factory=dict)


async def rotate(database: Database, *, keys: KeyRing, batch: int = BATCH) -> Rotation:
    """Encrypt the secrets of all webhooks with the first key; skip those that it already encrypts.

    Each batch is a transaction: after an interruption, a repetition continues where this stopped.
    A secret that no key decrypts stays as it is.
    """
    rotation = Rotation()
    last = WebhookId(UUID(int=0))
    while True:
        async with database.transaction() as session:
            rows = await _next(session, after=last, keys=keys, limit=batch)
            if not rows:
                return rotation
            await _encrypt(session, rows, keys=keys, rotation=rotation)
        last = rows[-1].id


async def _next(
    session: AsyncSession, *, after: WebhookId, keys: KeyRing, limit: int
) -> Sequence[Row[WebhookId, str]]:
    """Lock and return rows whose secret the first key does not encrypt."""
    return (
        await session.execute(
            select(Webhook.id, Webhook.secret)
            .where(Webhook.id > after, not_(Webhook.secret.startswith(keys.prefix)))
            .order_by(Webhook.id)
            .limit(limit)
            # FOR NO KEY UPDATE: FOR UPDATE would block new deliveries to these webhooks.
            .with_for_update(key_share=True)
        )
    ).all()


async def _encrypt(
    session: AsyncSession, rows: Sequence[Row[WebhookId, str]], *, keys: KeyRing, rotation: Rotation
) -> None:
    replaced = []
    for webhook_id, stored in rows:
        try:
            secret = webhook_secrets.decrypt(stored, webhook_id=webhook_id, keys=keys)
        except DecryptionFailed as error:
            rotation.unreadable[webhook_id] = str(error)
            continue
        encrypted = webhook_secrets.encrypt(secret, webhook_id=webhook_id, keys=keys)
        replaced.append({"id": webhook_id, "secret": encrypted})
    if replaced:
        await session.execute(update(Webhook), replaced)
    rotation.encrypted += len(replaced)
