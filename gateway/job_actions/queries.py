"""Finds the jobs that a caller may change."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http.security import Caller, ScopeMissing
from gateway.jobs.queries import JobNotFound
from schemas.api.scopes import Scope
from schemas.ids import JobId
from schemas.lifecycle import JobKind
from schemas.tables.jobs import Job

SCOPES: Final[Mapping[JobKind, Scope]] = MappingProxyType(
    {
        JobKind.UPLOAD: Scope.UPLOADS_WRITE,
        JobKind.REPROCESS: Scope.DOCUMENTS_WRITE,
        JobKind.RENDER: Scope.DOCUMENTS_WRITE,
        JobKind.REPLAY: Scope.WEBHOOKS_WRITE,
        JobKind.EXPORT: Scope.EXPORTS_WRITE,
        JobKind.BATCH: Scope.UPLOADS_WRITE,
        JobKind.BULK: Scope.UPLOADS_WRITE,
    }
)
"""The scope that starts a job of a kind, and also cancels and retries it."""


def kinds_of(caller: Caller) -> tuple[JobKind, ...]:
    """Return the kinds of the jobs that a caller may change by a filter; no other action on jobs."""
    return tuple(
        kind
        for kind, scope in SCOPES.items()
        if scope in caller.scopes and kind is not JobKind.BULK
    )


async def job_to_change(session: AsyncSession, caller: Caller, *, job_id: JobId) -> Job:
    """Return a job of the caller's tenant; not locked.

    Raises:
        JobNotFound: the tenant has no such job.
        ScopeMissing: the key may not start jobs of this kind.
    """
    job = await session.scalar(
        select(Job).where(Job.id == job_id, Job.tenant_id == caller.tenant_id)
    )
    if job is None:
        raise JobNotFound(job_id)
    if SCOPES[job.kind] not in caller.scopes:
        raise ScopeMissing(SCOPES[job.kind])
    return job
