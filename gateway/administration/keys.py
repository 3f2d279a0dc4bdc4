"""API keys of a tenant. The database holds a key's hash; the key itself is shown once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import tenants
from gateway.http import security
from schemas.api.scopes import Scope
from schemas.ids import ApiKeyId
from schemas.tables.tenants import ApiKey, Tenant


class KeyUnknown(LookupError):
    """No API key has this id."""

    def __init__(self, key_id: ApiKeyId) -> None:
        super().__init__(f"there is no API key {key_id}; `waybill keys list` shows all of them")


@dataclass(frozen=True, kw_only=True)
class NewKey:
    id: ApiKeyId
    key: str


async def create(session: AsyncSession, *, tenant: str, scopes: Sequence[Scope]) -> NewKey:
    """Create an API key; create the tenant if it is missing."""
    new = NewKey(id=ApiKeyId(uuid4()), key=security.new_key())
    session.add(
        ApiKey(
            id=new.id,
            tenant_id=await tenants.find_or_create(session, name=tenant),
            key_hash=security.hash_of(new.key),
            scopes=sorted(set(scopes)),
        ),
    )
    return new


async def of(
    session: AsyncSession, *, tenant: str | None
) -> Sequence[Row[str, ApiKeyId, datetime, datetime | None, list[str]]]:
    """Return the keys of a tenant, or of all tenants if none is given, oldest first.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    query = (
        select(Tenant.name, ApiKey.id, ApiKey.created_at, ApiKey.revoked_at, ApiKey.scopes)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .order_by(Tenant.name, ApiKey.created_at)
    )
    if tenant is not None:
        query = query.where(Tenant.id == (await tenants.find(session, name=tenant)).id)
    return (await session.execute(query)).all()


async def revoke(session: AsyncSession, key_id: ApiKeyId, *, now: datetime) -> datetime:
    """Revoke a key and return the time of its revocation; a repetition changes nothing.

    Gateways cache keys: they accept a revoked key for up to `API_KEY_CACHE`.

    Raises:
        KeyUnknown: no key has this id.
    """
    key = await session.get(ApiKey, key_id, with_for_update=True)
    if key is None:
        raise KeyUnknown(key_id)
    key.revoked_at = key.revoked_at or now
    return key.revoked_at
