"""What an operator does beside the server."""

from collections.abc import Sequence
from typing import TypedDict
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http import security
from gateway.uploads import operations
from schemas.api.scopes import Scope
from schemas.ids import ApiKeyId, TenantId
from schemas.policy.quotas import Quotas
from schemas.tables.tenants import ApiKey, Tenant


class TenantUnknown(LookupError):
    """No tenant has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no tenant {name!r}; create-key makes one")


class QuotaChanges(TypedDict, total=False):
    """What to change of a tenant's quotas; None makes the default count again."""

    quota_bytes: int | None
    quota_open_uploads: int | None
    quota_file_size: int | None
    allowed_types: list[str] | None


async def set_quota(
    session: AsyncSession, *, tenant: str, changes: QuotaChanges, defaults: Quotas
) -> Quotas:
    """Give a tenant quotas of its own; return those that count for it now.

    Uploads that are open already stay open; the new quotas count when they are finalized.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    row = await session.scalar(select(Tenant).where(Tenant.name == tenant).with_for_update())
    if row is None:
        raise TenantUnknown(tenant)
    for name, value in changes.items():
        setattr(row, name, value)
    await session.flush()
    return await operations.quotas_of(session, tenant_id=row.id, defaults=defaults)


async def create_key(session: AsyncSession, *, tenant: str, scopes: Sequence[Scope]) -> str:
    """Give a tenant, made if missing, another API key; return it, for it is not kept."""
    await session.execute(
        insert(Tenant).values(id=TenantId(uuid4()), name=tenant).on_conflict_do_nothing()
    )
    tenant_id = (await session.scalars(select(Tenant.id).where(Tenant.name == tenant))).one()
    key = security.new_key()
    session.add(
        ApiKey(
            id=ApiKeyId(uuid4()),
            tenant_id=tenant_id,
            key_hash=security.hash_of(key),
            scopes=sorted(set(scopes)),
        ),
    )
    return key
