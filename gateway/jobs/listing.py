"""Lists of jobs with filters, page by page.

One filter selects an index; the others are checked on at most `SCANNED_MAX` jobs. A page may
therefore have fewer items than its limit, and even none, and still name a next page.
"""

from sqlalchemy import Uuid, any_, bindparam, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http import paging
from gateway.jobs import queries
from schemas.api.jobs import JobFilter, JobSort, JobView
from schemas.api.paging import PageOf
from schemas.ids import TenantId
from schemas.tables.job_filters import SCANNED_MAX, JobPosition, JobScan
from schemas.tables.jobs import Job


async def page_of(
    session: AsyncSession,
    job_filter: JobFilter,
    *,
    tenant_id: TenantId,
    sort: JobSort,
    cursor: str | None,
    limit: int,
) -> PageOf[JobView]:
    """Return a page of a tenant's jobs, in the order of their creation.

    Raises:
        InvalidRequest: the cursor is malformed or belongs to another list.
    """
    scan = JobScan.of(job_filter, tenant_id=tenant_id)
    scanned_max = limit if scan.is_exact else max(SCANNED_MAX, limit)
    statement = scan.statement(
        after=paging.decode(cursor, to=JobPosition), limit=scanned_max + 1, sort=sort
    )
    scanned = (await session.execute(statement)).all()
    shown, last = paging.matches_of(scanned, scanned_max=scanned_max, limit=limit)
    ids = [row.id for row in shown]
    found = select(Job).where(Job.id == any_(bindparam("ids", ids, type_=ARRAY(Uuid()))))
    jobs = {job.id: job for job in await session.scalars(found)}
    return PageOf(
        items=await queries.show_all(session, [jobs[each] for each in ids]),
        next_cursor=None
        if last is None
        else paging.encode(JobPosition(created_at=last.created_at, id=last.id)),
    )
