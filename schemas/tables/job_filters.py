"""How the jobs of a filter are read: by the list of jobs, and by actions on many jobs.

One field of a filter selects an index, in whose order the jobs are read. The other fields are
checked on each job that is read, and the caller limits the number of these jobs: the cost of a
statement does not depend on how rare a combination of fields is.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import (
    ColumnElement,
    Select,
    Uuid,
    and_,
    any_,
    exists,
    func,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute

from schemas.api.jobs import JobFilter, JobSort
from schemas.ids import BatchId, JobId, TenantId
from schemas.lifecycle import JobKind, JobStatus, Priority
from schemas.steps import JobStage
from schemas.tables.batches import Batch
from schemas.tables.jobs import Job, JobLabel

SCANNED_MAX: Final = 400
"""Jobs that one statement reads, if not every job that it reads matches; more than the largest default page."""

LABEL_BYTES: Final = 16

_FIRST_ID, _LAST_ID = UUID(int=0), UUID(int=2**128 - 1)

# The indexes of these values have most of a tenant's jobs.
_COMMON: Final = frozenset(
    {JobStatus.COMPLETED, JobKind.UPLOAD, JobStage.DONE, Priority.INTERACTIVE}
)


class JobPosition(msgspec.Struct, frozen=True, array_like=True):
    """A position among jobs in the order of their creation; the id breaks ties."""

    created_at: datetime
    id: JobId


@dataclass(frozen=True, kw_only=True)
class JobScan:
    """How the jobs of a filter are read.

    Attributes:
        label: the label whose index gives the jobs; None if an index of `jobs` gives them.
        index: the conditions that an index of `jobs` finds, if there is no label.
        others: the conditions that are checked on each job.
        created_after: of every job; part of each index.
        created_before: likewise.
    """

    tenant_id: TenantId
    label: bytes | None
    index: Sequence[ColumnElement[bool]]
    others: Sequence[ColumnElement[bool]]
    created_after: datetime | None
    created_before: datetime | None

    @classmethod
    def of(cls, job_filter: JobFilter, *, tenant_id: TenantId) -> "JobScan":
        """Choose the field whose index is used: the one that usually leaves the fewest jobs."""
        labels = [label_of(*pair) for pair in sorted((job_filter.metadata or {}).items())]
        fields: list[tuple[InstrumentedAttribute[Any], object]] = [
            (Job.stage, job_filter.stage),
            (Job.kind, job_filter.kind),
            (Job.status, job_filter.status),
            (Job.priority, job_filter.priority),
        ]
        fields.sort(key=lambda field: field[1] in _COMMON)
        conditions = [column == value for column, value in fields if value is not None]
        index: list[ColumnElement[bool]] = [Job.tenant_id == tenant_id]
        batch_id = job_filter.batch_id
        if labels:
            conditions += map(_has_label, labels[1:])
            if batch_id is not None:
                conditions.append(Job.batch_id == batch_id)
        elif batch_id is not None:
            # Without the tenant of each job: the planner would read all jobs of the tenant if it
            # took batch and tenant for independent.
            index = [Job.batch_id == batch_id, _is_batch_of(tenant_id, batch_id)]
        elif conditions:
            index.append(conditions.pop(0))
        return cls(
            tenant_id=tenant_id,
            label=labels[0] if labels else None,
            index=index,
            others=conditions,
            created_after=job_filter.created_after,
            created_before=job_filter.created_before,
        )

    @property
    def is_exact(self) -> bool:
        """Whether every job that is read matches."""
        return not self.others

    def statement(
        self,
        *,
        after: JobPosition | None,
        limit: int,
        sort: JobSort = JobSort.NEWEST_FIRST,
    ) -> Select[JobId, datetime, bool]:
        """Return the statement that reads the next jobs, as `id`, `created_at` and `is_match`.

        There are no further jobs if it returns fewer than `limit`.

        Args:
            after: position of the last job that was read before; None at the begin.
            limit: most jobs to read, also those that do not match.
            sort: the order of the jobs.
        """
        rows = select(Job.id, Job.created_at, and_(true(), *self.others).label("is_match"))
        if self.label is None:
            own = rows.where(*self.index)
            return self._next(own, Job.created_at, Job.id, after=after, sort=sort).limit(limit)
        labelled = select(JobLabel.job_id).where(
            JobLabel.tenant_id == self.tenant_id, JobLabel.label == self.label
        )
        ids = self._next(
            labelled, JobLabel.created_at, JobLabel.job_id, after=after, sort=sort
        ).limit(limit)
        # The array makes the database look each job up by its key. The labels are read in the order
        # of their index, not all of them before a sort.
        found = func.array(ids.scalar_subquery(), type_=ARRAY(Uuid()))
        return rows.where(Job.id == any_(found)).order_by(
            *_order(Job.created_at, Job.id, sort=sort)
        )

    def _next(
        self,
        query: Select[*tuple[Any, ...]],
        created_at: InstrumentedAttribute[datetime],
        job_id: InstrumentedAttribute[JobId],
        *,
        after: JobPosition | None,
        sort: JobSort,
    ) -> Select[*tuple[Any, ...]]:
        """Return a query of the rows within the bounds of time that follow a position, in order."""
        lower, upper = list[tuple[datetime, UUID]](), list[tuple[datetime, UUID]]()
        if self.created_after is not None:
            lower.append((self.created_after, _LAST_ID))
        if self.created_before is not None:
            upper.append((self.created_before, _FIRST_ID))
        if after is not None:
            bounds = upper if sort is JobSort.NEWEST_FIRST else lower
            bounds.append((after.created_at, after.id))
        # One bound at each end: of a bound of time and a position, the index scan would begin at the
        # first, and read every row up to the second.
        position = tuple_(created_at, job_id)
        if lower:
            query = query.where(position > max(lower))
        if upper:
            query = query.where(position < min(upper))
        return query.order_by(*_order(created_at, job_id, sort=sort))


def label_of(name: str, value: str) -> bytes:
    """Return the label of a name and value of metadata, as the function `waybill_label` does.

    A digest, because a value may be longer than an index takes. Neither part contains NUL.
    """
    return hashlib.sha256(f"{name}\0{value}".encode()).digest()[:LABEL_BYTES]


def _has_label(label: bytes) -> ColumnElement[bool]:
    return exists().where(JobLabel.job_id == Job.id, JobLabel.label == label)


def _is_batch_of(tenant_id: TenantId, batch_id: BatchId) -> ColumnElement[bool]:
    return exists().where(Batch.id == batch_id, Batch.tenant_id == tenant_id)


def _order(
    created_at: InstrumentedAttribute[datetime],
    job_id: InstrumentedAttribute[JobId],
    *,
    sort: JobSort,
) -> Sequence[ColumnElement[Any]]:
    if sort is JobSort.NEWEST_FIRST:
        return created_at.desc(), job_id.desc()
    return created_at.asc(), job_id.asc()
