"""The ledger of a tenant's webhooks."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.db import transaction_time
from gateway.http.problems import InvalidRequest
from schemas.api.deliveries import LedgerView
from schemas.ids import TenantId
from schemas.tables import ledger

DEFAULT_RANGE: Final = timedelta(days=1)

RANGE_MAX: Final = timedelta(days=14)
"""The counts of an event are kept for `INBOX_RETENTION` (30 d by default)."""


async def ledger_of(
    session: AsyncSession, *, tenant_id: TenantId, since: datetime | None
) -> LedgerView:
    """Return the ledger of the events since a time, by default of a day.

    Raises:
        InvalidRequest: the time is in the future, or more than `RANGE_MAX` ago.
    """
    now = await transaction_time(session)
    start = now - DEFAULT_RANGE if since is None else since
    if start > now:
        raise InvalidRequest("is in the future", field="since")
    if start < now - RANGE_MAX:
        raise InvalidRequest(f"is more than {RANGE_MAX.days} days ago", field="since")
    values = ledger.values_of(tenant_id=tenant_id, since=start, until=now)
    row = (await session.execute(ledger.LEDGER, values)).one()
    found = ledger.ledger_of(row, since=start, until=now)
    return LedgerView(
        since=found.since,
        until=found.until,
        is_complete=found.is_complete,
        events=found.events,
        waiting=found.waiting,
        published=found.published,
        delivered=found.delivered,
        pending=found.pending,
        exhausted=found.exhausted,
        discarded=found.discarded,
        difference=found.difference,
    )
