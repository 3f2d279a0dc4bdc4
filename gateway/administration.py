"""What an operator does beside the server."""

from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gateway import security
from schemas.api.scopes import Scope
from schemas.ids import ApiKeyId, TenantId
from schemas.tables.tenants import ApiKey, Tenant


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
