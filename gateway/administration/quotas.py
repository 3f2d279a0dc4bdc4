"""Quotas of one tenant; a quota that is not set has the default of the settings."""

from typing import TypedDict

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import tenants
from gateway.db import SessionStatements
from gateway.uploads.quotas import quotas_of
from schemas.policy.quotas import Quotas
from schemas.settings import QuotaSettings


class QuotaChanges(TypedDict, total=False):
    """The quotas to change; None restores the default."""

    quota_bytes: int | None
    quota_open_uploads: int | None
    quota_file_size: int | None
    quota_staged_bytes: int | None
    allowed_types: list[str] | None


async def change(
    session: AsyncSession, *, tenant: str, changes: QuotaChanges, settings: QuotaSettings
) -> Quotas:
    """Change a tenant's quotas and return the quotas in force; `changes` may be empty.

    Open uploads stay open; the new quotas are checked when they are finalized.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    row = await tenants.find(session, name=tenant)
    for name, value in changes.items():
        setattr(row, name, value)
    await session.flush()
    return await quotas_of(SessionStatements(session), tenant_id=row.id, settings=settings)
