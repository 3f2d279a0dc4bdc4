"""The ledger of the webhooks of every tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import tenants
from gateway.db import transaction_time
from schemas.ids import TenantId
from schemas.tables import ledger
from schemas.tables.tenants import Tenant

RANGE: Final = timedelta(days=1)
"""By default; events older than `INBOX_RETENTION` have no counts."""

COUNTS: Final = ("events", "waiting", "published", "delivered", "pending", "exhausted", "discarded")


@dataclass(frozen=True, kw_only=True)
class TenantLedger:
    """The sums of a tenant; see `schemas.tables.ledger.Ledger`."""

    tenant: str
    counts: dict[str, int]

    @property
    def difference(self) -> int:
        """What is missing in the log; 0."""
        found = self.counts
        return found["published"] - sum(found[name] for name in COUNTS[3:])

    def summary(self) -> dict[str, Any]:
        return {"tenant": self.tenant, **self.counts, "difference": self.difference}


async def ledgers(
    session: AsyncSession, *, tenant: str | None, since: datetime | None
) -> Sequence[TenantLedger]:
    """Return the ledger of one tenant, or of each, for the events since a time.

    Args:
        session: a transaction.
        tenant: the name; None for all tenants.
        since: by default a day ago.

    Raises:
        TenantUnknown: no tenant has this name.
    """
    now = await transaction_time(session)
    start = now - RANGE if since is None else since
    if tenant is not None:
        chosen = [await tenants.find(session, name=tenant)]
    else:
        chosen = list(await session.scalars(select(Tenant).order_by(Tenant.name)))
    return [
        TenantLedger(
            tenant=each.name,
            counts=await _counts(session, tenant_id=each.id, since=start, until=now),
        )
        for each in chosen
    ]


async def _counts(
    session: AsyncSession, *, tenant_id: TenantId, since: datetime, until: datetime
) -> dict[str, int]:
    """Return the sums of all parts of the range."""
    sums = dict.fromkeys(COUNTS, 0)
    while True:
        values = ledger.values_of(tenant_id=tenant_id, since=since, until=until)
        row = (await session.execute(ledger.LEDGER, values)).one()
        part = ledger.ledger_of(row, since=since, until=until)
        sums = {name: total + getattr(part, name) for name, total in sums.items()}
        if part.is_complete:
            return sums
        since = part.until
