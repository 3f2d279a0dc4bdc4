"""API keys of a tenant. The database holds a key's hash; the key itself is shown once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import audit, tenants
from gateway.db import transaction_time
from gateway.http import security
from schemas.api.scopes import Scope
from schemas.ids import ApiKeyId, parse_uuid
from schemas.tables.tenants import ApiKey, Tenant


class KeyRefused(LookupError):
    """The command names no key, several keys, or an expiry in the past."""


class KeyUnknown(KeyRefused):
    """No API key has this id or prefix."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"there is no API key {reference}; `waybill keys list` shows all of them")


class PrefixAmbiguous(KeyRefused):
    """Several API keys have this prefix."""

    def __init__(self, prefix: str, *, ids: Sequence[ApiKeyId]) -> None:
        super().__init__(f"{prefix} is the prefix of {', '.join(map(str, ids))}: give an id")


class ExpiryPassed(KeyRefused):
    """The key would have expired before its creation."""

    def __init__(self, expires_at: datetime) -> None:
        super().__init__(f"{_in_utc(expires_at)} has passed")


@dataclass(frozen=True, kw_only=True)
class NewKey:
    id: ApiKeyId
    prefix: str
    expires_at: datetime | None
    key: str


async def create(
    session: AsyncSession,
    *,
    tenant: str,
    scopes: Sequence[Scope],
    actor: str,
    name: str | None = None,
    expires: timedelta | datetime | None = None,
) -> NewKey:
    """Create an API key; create the tenant if it is missing.

    Args:
        session: the session.
        tenant: the name of the tenant.
        scopes: what the key permits.
        actor: who creates the key, for the audit log.
        name: a name for operators.
        expires: the lifetime of the key or its end, by the database's clock; None for ever.

    Raises:
        ExpiryPassed: the end is not in the future.
    """
    key = security.new_key()
    now = await transaction_time(session)
    expires_at = now + expires if isinstance(expires, timedelta) else expires
    if expires_at is not None and expires_at <= now:
        raise ExpiryPassed(expires_at)
    new = NewKey(
        id=ApiKeyId(uuid4()),
        prefix=security.visible_prefix(key),
        expires_at=expires_at,
        key=key,
    )
    row = ApiKey(
        id=new.id,
        tenant_id=await tenants.find_or_create(session, name=tenant),
        key_hash=security.hash_of(key),
        scopes=sorted(set(scopes)),
        name=name,
        prefix=new.prefix,
        expires_at=expires_at,
    )
    session.add(row)
    _record(session, row, actor=actor, action="api_key.created")
    return new


COLUMNS: Final = (
    *("tenant", "id", "prefix", "name", "created_at", "last_used_at", "expires_at", "revoked_at"),
    *("state", "scopes"),
)


async def of(session: AsyncSession, *, tenant: str | None) -> list[dict[str, Any]]:
    """Return the keys of a tenant, or of all tenants if none is given, oldest first, as JSON.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    query = (
        select(ApiKey, Tenant.name.label("tenant"), security.STATE.label("state"))
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .order_by(Tenant.name, ApiKey.created_at)
    )
    if tenant is not None:
        query = query.where(Tenant.id == (await tenants.find(session, name=tenant)).id)
    return [
        {
            "tenant": row.tenant,
            "id": str(row.ApiKey.id),
            "prefix": row.ApiKey.prefix,
            "name": row.ApiKey.name,
            "created_at": _in_utc(row.ApiKey.created_at),
            "last_used_at": _in_utc(row.ApiKey.last_used_at),
            "expires_at": _in_utc(row.ApiKey.expires_at),
            "revoked_at": _in_utc(row.ApiKey.revoked_at),
            "state": row.state,
            "scopes": row.ApiKey.scopes,
        }
        for row in await session.execute(query)
    ]


async def revoke(session: AsyncSession, reference: str, *, actor: str) -> datetime:
    """Revoke a key and return the time of its revocation; a repetition changes nothing.

    Gateways cache keys: they accept a revoked key for up to `API_KEY_CACHE`.

    Args:
        session: the session.
        reference: the key's id or prefix. A whole key stands for its prefix.
        actor: who revokes the key, for the audit log.

    Raises:
        KeyUnknown: no key has this id or prefix.
        PrefixAmbiguous: several keys have this prefix.
    """
    key_id = parse_uuid(reference.lower())
    # Only the prefix goes into the message: a leaked key is pasted whole.
    shown = str(key_id) if key_id else security.visible_prefix(reference)
    is_meant: ColumnElement[bool] = ApiKey.id == key_id if key_id else ApiKey.prefix == shown
    found = (await session.scalars(select(ApiKey).where(is_meant).with_for_update())).all()
    if not found:
        raise KeyUnknown(shown)
    if len(found) > 1:
        raise PrefixAmbiguous(shown, ids=[key.id for key in found])
    (key,) = found
    if key.revoked_at is None:
        key.revoked_at = await transaction_time(session)
        _record(session, key, actor=actor, action="api_key.revoked")
    return key.revoked_at


def _record(session: AsyncSession, key: ApiKey, *, actor: str, action: str) -> None:
    audit.record(
        session,
        actor=actor,
        action=action,
        target=f"api_key/{key.id}",
        detail={
            "tenant_id": str(key.tenant_id),
            "name": key.name,
            "prefix": key.prefix,
            "scopes": key.scopes,
            "expires_at": _in_utc(key.expires_at),
        },
    )


def _in_utc(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
