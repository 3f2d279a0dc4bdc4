"""Reads batches and their lines."""

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.batches import view
from gateway.batches.errors import BatchNotFound
from gateway.db import Statements
from schemas.api.batches import BatchView
from schemas.ids import BatchId, TenantId
from schemas.lifecycle import BatchLineState, BatchStatus
from schemas.tables.batches import Batch

LINES: Final[LiteralString] = """
    SELECT line, state, source, job_id, error_code, error_detail FROM batch_lines
    WHERE batch_id = %(batch_id)s AND line > %(after)s
    ORDER BY line LIMIT %(limit)s
"""

LINES_IN_STATE: Final[LiteralString] = """
    SELECT line, state, source, job_id, error_code, error_detail FROM batch_lines
    WHERE batch_id = %(batch_id)s AND state = %(state)s AND line > %(after)s
    ORDER BY line LIMIT %(limit)s
"""


def batches_of(tenant_id: TenantId) -> Select[Batch]:
    """Return the query of a tenant's batches; one that is received is not visible yet."""
    return select(Batch).where(Batch.tenant_id == tenant_id, Batch.status != BatchStatus.RECEIVING)


async def batch_of(session: AsyncSession, *, tenant_id: TenantId, batch_id: BatchId) -> BatchView:
    """Return a tenant's batch.

    Raises:
        BatchNotFound: the tenant has no such batch.
    """
    found = await session.scalar(
        batches_of(tenant_id).where(Batch.id == batch_id).execution_options(populate_existing=True)
    )
    if found is None:
        raise BatchNotFound(batch_id)
    return view.show(found)


async def lines_of(
    statements: Statements,
    batch_id: BatchId,
    *,
    state: BatchLineState | None,
    after: int,
    limit: int,
) -> Sequence[Any]:
    """Return the lines of a batch after a line, in their order; by default those of every state."""
    values = {"batch_id": batch_id, "after": after, "limit": limit}
    if state is None:
        return await statements.rows(LINES, values)
    return await statements.rows(LINES_IN_STATE, values | {"state": state.value})
