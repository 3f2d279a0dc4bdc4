"""Counts what the next sweep deletes, and sets how long the documents of a tenant are kept."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypedDict

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import audit, tenants
from schemas.settings import SweepSettings
from schemas.tables import retention
from schemas.tables.retention import Area


class Due(TypedDict):
    """What the next sweep deletes of an area.

    Attributes:
        kept_for: the setting, with its value.
        oldest: the time from which the retention of the oldest row counts; None without rows.
    """

    area: str
    kept_for: str
    rows: int
    oldest: str | None


async def due(session: AsyncSession, *, settings: SweepSettings) -> Sequence[Due]:
    """Return what is older than its retention, area by area, as the sweeps find it."""
    return [await _due(session, area) for area in retention.areas(settings)]


async def _due(session: AsyncSession, area: Area) -> Due:
    row = (await session.execute(_counted(area))).one()
    return Due(
        area=area.name,
        kept_for=area.kept_for,
        rows=row.due,
        oldest=None if row.oldest is None else row.oldest.isoformat(timespec="seconds"),
    )


def _counted(area: Area) -> Select[int, datetime | None]:
    rows = area.due.subquery()
    return select(func.count().label("due"), func.min(rows.c.at).label("oldest")).select_from(rows)


async def documents(
    session: AsyncSession, *, tenant: str, kept_for: timedelta | None, actor: str
) -> timedelta | None:
    """Set how long a tenant keeps documents; None keeps them. Return the new value.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    row = await tenants.find(session, name=tenant)
    row.document_retention = kept_for
    audit.record(
        session,
        actor=actor,
        action="tenant.document_retention_changed",
        target=f"tenant/{row.id}",
        detail={"document_retention": None if kept_for is None else str(kept_for)},
    )
    return kept_for


async def kept_documents(session: AsyncSession, *, tenant: str) -> timedelta | None:
    """Return how long a tenant keeps documents; None if for good.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    return (await tenants.find(session, name=tenant)).document_retention
