"""The first page of the list of jobs beside a page deep in it, with each filter."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Self
from urllib.parse import urlencode

import msgspec
from sqlalchemy import Connection, create_engine

from dev.bench.figures import Spread, starting_orders
from dev.bench.looks import Facts
from dev.bench.scale import Subject
from dev.bench.sections import Section, Table
from dev.bench.system import System
from gateway.http import paging
from gateway.settings import API_PREFIX
from schemas.api.jobs import JobFilter, JobSort
from schemas.ids import TenantId
from schemas.lifecycle import JobKind, JobStatus, Priority
from schemas.steps import JobStage
from schemas.tables.job_filters import JobPosition, JobScan

PAGE: Final = 50
"""Jobs of a page."""

WARM_UPS: Final = 3
"""Not counted."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    rows: int
    pages: int
    rounds: int


FULL: Final = Extent(rows=1_000_000, pages=1_000, rounds=200)
QUICK: Final = Extent(rows=5_000, pages=10, rounds=3)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A list of jobs in pages of `size` jobs; its page `deep` begins after `position`."""

    job_filter: JobFilter
    sort: JobSort
    size: int
    deep: int
    position: JobPosition

    @classmethod
    def of(
        cls,
        connection: Connection,
        job_filter: JobFilter,
        *,
        tenant_id: TenantId,
        size: int,
        pages: int,
        sort: JobSort = JobSort.NEWEST_FIRST,
    ) -> Self:
        """Return a list, with page number `pages` or, if there are fewer, the last full page."""
        scan = JobScan.of(job_filter, tenant_id=tenant_id)
        rows = connection.execute(
            scan.statement(after=None, limit=pages * size + 1, sort=sort)
        ).all()
        before = max(1, ((len(rows) - 1) // size - 1) * size)
        last = rows[before - 1]
        return cls(
            job_filter=job_filter,
            sort=sort,
            size=size,
            deep=before // size + 1,
            position=JobPosition(created_at=last.created_at, id=last.id),
        )

    @property
    def name(self) -> str:
        return urlencode(self._query, safe=":") or "no filter"

    def path(self, *, is_deep: bool) -> str:
        """Return the path of the first or of the deep page, below the prefix of the API."""
        cursor = {"cursor": paging.encode(self.position)} if is_deep else {}
        return f"/jobs?{urlencode({**self._query, 'limit': self.size, **cursor})}"

    @property
    def _query(self) -> dict[str, str]:
        fields = msgspec.to_builtins(self.job_filter)
        if "metadata" in fields:
            ((name, value),) = fields["metadata"].items()
            fields["metadata"] = f"{name}:{value}"
        sort = {} if self.sort is JobSort.NEWEST_FIRST else {"sort": self.sort.value}
        return {**fields, **sort}


def lists(connection: Connection, facts: Facts, *, size: int, pages: int) -> list[Listed]:
    """Return a list for each filter, and the whole list in both orders, of the largest tenant."""
    filters = (
        JobFilter(),
        JobFilter(status=JobStatus.COMPLETED),
        JobFilter(status=JobStatus.FAILED),
        JobFilter(kind=JobKind.UPLOAD),
        JobFilter(kind=JobKind.EXPORT),
        JobFilter(stage=JobStage.DONE),
        JobFilter(stage=JobStage.INGEST),
        JobFilter(priority=Priority.BULK),
        JobFilter(batch_id=facts.batch_of_jobs),
        JobFilter(metadata={"customer": "customer-0"}),
        JobFilter(created_before=datetime.now(UTC)),
    )
    own = partial(Listed.of, connection, tenant_id=facts.tenant_id, size=size, pages=pages)
    return [*map(own, filters), own(JobFilter(), sort=JobSort.OLDEST_FIRST)]


def run(system: System, *, extent: Extent) -> Section:
    system.run_only()
    with Subject.of(system, rows=extent.rows) as subject:
        engine = create_engine(subject.context.settings.database_url.get_secret_value())
        with engine.connect() as connection:
            measured = lists(connection, subject.facts, size=PAGE, pages=extent.pages)
        engine.dispose()
        samples = {
            (listed.name, is_deep): list[float]()
            for listed in measured
            for is_deep in (False, True)
        }

        def measure(listed: Listed, *, is_deep: bool, is_counted: bool = True) -> None:
            took = subject.timed_get(API_PREFIX + listed.path(is_deep=is_deep))
            if is_counted:
                samples[listed.name, is_deep].append(took)

        for listed in measured:
            for _ in range(WARM_UPS):
                for is_deep in (False, True):
                    measure(listed, is_deep=is_deep, is_counted=False)
            for order in starting_orders((False, True), rounds=extent.rounds):
                for is_deep in order:
                    measure(listed, is_deep=is_deep)
        return _section(measured, samples, extent=extent)


def _section(
    measured: list[Listed], samples: dict[tuple[str, bool], list[float]], *, extent: Extent
) -> Section:
    rows = []
    for listed in measured:
        first, deep = (Spread.of(samples[listed.name, is_deep]) for is_deep in (False, True))
        rows.append(
            [
                listed.name,
                f"{first.p50:.2f}",
                f"{listed.deep:,}",
                f"{deep.p50:.2f}",
                f"{deep.p50 / first.p50:.2f}",
                f"{first.p95:.2f}",
                f"{deep.p95:.2f}",
            ]
        )
    return Section(
        title="Pages of the list of jobs",
        question=(
            f"`GET /jobs` over HTTP in a database with {extent.rows:,} jobs, for the tenant that owns"
            f" a third of them: the first page of {PAGE} jobs, and page {extent.pages:,} or, if a"
            f" filter selects fewer jobs, the last full page. {extent.rounds} requests of each, warm,"
            " in turns; the ratio is that of the medians."
        ),
        tables=[
            Table(
                headings=[
                    "milliseconds",
                    "first page",
                    "number of the deep page",
                    "deep page",
                    "ratio",
                    "p95, first page",
                    "p95, deep page",
                ],
                rows=rows,
            )
        ],
        measured_on=datetime.now(UTC).date(),
    )
