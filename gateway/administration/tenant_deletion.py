"""Orders the deletion of a tenant, and follows it; a worker of `maintenance` deletes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import audit, tenants
from gateway.administration.tenants import TenantUnknown
from gateway.db import Database
from schemas.ids import TenantId
from schemas.tables import tenant_rows
from schemas.tables.tenant_deletions import TenantDeletion
from schemas.tables.tenants import ApiKey, Tenant

LOOK_EVERY: Final = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a deletion is.

    Attributes:
        deleted: rows by table.
        objects: deleted objects and multipart uploads.
        finished_at: None until nothing is left.
    """

    tenant_id: TenantId
    deleted: Mapping[str, int]
    objects: int
    finished_at: datetime | None


async def rows_of(session: AsyncSession, tenant_id: TenantId) -> Mapping[str, int]:
    """Return how many rows of a tenant each table has, the table of tenants included."""
    return {
        table.name: (await session.execute(tenant_rows.count(table, tenant_id))).scalar_one()
        for table in sorted(tenant_rows.tables(), key=lambda table: table.name)
    }


async def count(session: AsyncSession, *, name: str) -> Mapping[str, int]:
    """Return how many rows a deletion of the tenant would delete, by table.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    return await rows_of(session, (await tenants.find(session, name=name)).id)


async def order(session: AsyncSession, *, name: str, actor: str) -> TenantId:
    """Revoke the keys of a tenant, and order its deletion; a repetition changes nothing.

    Gateways cache keys: they accept a revoked key for up to `API_KEY_CACHE`.

    Returns:
        The id of the tenant: also of a deleted one, if no other tenant has its name now.

    Raises:
        TenantUnknown: no tenant has this name, and none had.
    """
    # Locked: no key is created meanwhile.
    tenant_id = await session.scalar(
        select(Tenant.id).where(Tenant.name == name).with_for_update(key_share=True)
    )
    if tenant_id is None:
        return await _deleted(session, name=name)
    if await session.get(TenantDeletion, tenant_id) is not None:
        return tenant_id
    await session.execute(
        update(ApiKey)
        .where(ApiKey.tenant_id == tenant_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    session.add(TenantDeletion(tenant_id=tenant_id, name=name, requested_by=actor))
    audit.record(
        session,
        actor=actor,
        action="tenant.deletion_ordered",
        target=f"tenant/{tenant_id}",
        detail={"name": name},
    )
    return tenant_id


async def _deleted(session: AsyncSession, *, name: str) -> TenantId:
    tenant_id = await session.scalar(
        select(TenantDeletion.tenant_id)
        .where(TenantDeletion.name == name)
        .order_by(TenantDeletion.requested_at.desc())
        .limit(1)
    )
    if tenant_id is None:
        raise TenantUnknown(name)
    return tenant_id


async def progress(session: AsyncSession, tenant_id: TenantId) -> Progress:
    """Return how far the deletion of a tenant is."""
    found = await session.get_one(TenantDeletion, tenant_id)
    return Progress(
        tenant_id=tenant_id,
        deleted=found.rows,
        objects=found.objects,
        finished_at=found.finished_at,
    )


async def follow(
    database: Database, tenant_id: TenantId, *, report: Callable[[Progress], None]
) -> Progress:
    """Wait until nothing of a tenant is left; report each change."""
    last = None
    while True:
        async with database.transaction() as session:
            current = await progress(session, tenant_id)
        if current.finished_at is not None:
            return current
        if current != last:
            report(current)
            last = current
        await asyncio.sleep(LOOK_EVERY.total_seconds())
