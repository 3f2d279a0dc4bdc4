"""Finds tenants by name, for the operator's commands."""

from collections.abc import Sequence
from uuid import uuid4

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from schemas.ids import TenantId
from schemas.tables.tenant_deletions import TenantDeletion
from schemas.tables.tenants import Tenant, TenantUsage


class TenantUnknown(LookupError):
    """No tenant has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no tenant {name!r}; `waybill keys create` creates one")


class TenantBeingDeleted(RuntimeError):
    """The deletion of the tenant is ordered; nothing can be added to it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the tenant {name!r} is being deleted")


async def find(session: AsyncSession, *, name: str) -> Tenant:
    """Return a tenant.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    tenant = await session.scalar(select(Tenant).where(Tenant.name == name))
    if tenant is None:
        raise TenantUnknown(name)
    return tenant


async def find_or_create(session: AsyncSession, *, name: str) -> TenantId:
    """Return a tenant, which is created if it is missing.

    Raises:
        TenantBeingDeleted: its deletion is ordered.
    """
    await session.execute(
        insert(Tenant).values(id=TenantId(uuid4()), name=name).on_conflict_do_nothing()
    )
    # Locked: the order to delete the tenant waits for this transaction, or this one for the order.
    tenant_id = await session.scalar(
        select(Tenant.id).where(Tenant.name == name).with_for_update(key_share=True)
    )
    if tenant_id is None:
        raise TenantBeingDeleted(name)
    ordered = select(TenantDeletion.tenant_id).where(TenantDeletion.tenant_id == tenant_id)
    if await session.scalar(ordered) is not None:
        raise TenantBeingDeleted(name)
    return tenant_id


async def everyone(session: AsyncSession) -> Sequence[Row[str, TenantId, int, int, int]]:
    """Return name, id, bytes, open uploads and staged bytes of every tenant, ordered by name."""
    return (
        await session.execute(
            select(
                Tenant.name,
                Tenant.id,
                func.coalesce(TenantUsage.bytes, 0).label("bytes"),
                func.coalesce(TenantUsage.open_uploads, 0).label("open_uploads"),
                func.coalesce(TenantUsage.staged_bytes, 0).label("staged_bytes"),
            )
            .outerjoin(TenantUsage, TenantUsage.tenant_id == Tenant.id)
            .order_by(Tenant.name)
        )
    ).all()


async def duplicates(session: AsyncSession, *, name: str, refused: bool | None) -> bool:
    """Set whether a tenant refuses duplicates, unless `refused` is None; return the setting.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    tenant = await find(session, name=name)
    if refused is not None:
        tenant.refuses_duplicates = refused
    return tenant.refuses_duplicates
