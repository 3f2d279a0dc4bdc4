"""A small upload beside ten thousand waiting jobs, compared with the same upload alone."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from sqlalchemy import Engine, create_engine, select, text

from dev.bench import waiting_work
from dev.bench.figures import Spread
from dev.bench.journey import JobFailed
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.client import Chunk, Client
from dev.stack.stack import Stack
from schemas.ids import TenantId
from schemas.lifecycle import Priority
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.steps import TenantSteps
from schemas.tables.tenants import Tenant

RATIO_MAX: Final = 3
"""A row above this misses the goal."""

SERVICES: Final = ("gateway", "relay", "deliver", "transfer")
CONTENT: Final = b"note\n"
WARM_UPS: Final = 4
TIMEOUT: Final = timedelta(minutes=2)
POLL_INTERVAL: Final = timedelta(milliseconds=20)

FLOWING: Final = 16
"""Steps of the crowd that have ended before each measured upload: its share of the broker is full."""

HELD: Final = 1_000_000
"""Added to the count of steps in the broker, so that no more are released."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    crowd: int
    """Waiting jobs."""
    rounds: int


FULL: Final = Bounds(crowd=10_000, rounds=20)
QUICK: Final = Bounds(crowd=100, rounds=2)


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """The waiting steps of a tenant, which are released only inside `flowing`."""

    engine: Engine
    tenant_id: TenantId
    priority: Priority

    def hold(self) -> None:
        """Release no more steps, and wait until none is in the broker."""
        self._add_in_broker(HELD)
        self._wait_for(lambda counters: counters.in_broker == HELD)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        before = self._counters().finished
        self._add_in_broker(-HELD)
        with self.engine.begin() as connection:
            connection.execute(
                steps.release(self.tenant_id, StepName.TRANSFER, settings=StepSettings())
            )
        self._wait_for(lambda counters: counters.finished >= before + FLOWING)
        yield
        if not self._counters().waiting:
            raise RuntimeError("the crowd was too small")
        self.hold()

    def _add_in_broker(self, number: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO tenant_steps AS counters (tenant_id, name, priority, in_broker)"
                    " VALUES (:tenant_id, :name, :priority, :number)"
                    " ON CONFLICT (tenant_id, name, priority)"
                    " DO UPDATE SET in_broker = counters.in_broker + :number"
                ),
                {
                    "tenant_id": self.tenant_id,
                    "name": StepName.TRANSFER,
                    "priority": self.priority,
                    "number": number,
                },
            )

    def _counters(self) -> "Counters":
        with self.engine.connect() as connection:
            row = connection.execute(
                select(TenantSteps.waiting, TenantSteps.in_broker, TenantSteps.finished).where(
                    TenantSteps.tenant_id == self.tenant_id,
                    TenantSteps.name == StepName.TRANSFER,
                    TenantSteps.priority == self.priority,
                )
            ).one()
        return Counters(waiting=row.waiting, in_broker=row.in_broker, finished=row.finished)

    def _wait_for(self, is_reached: Callable[["Counters"], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT.total_seconds()
        while not is_reached(counters := self._counters()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {TIMEOUT} still {counters}")
            time.sleep(POLL_INTERVAL.total_seconds())


@dataclass(frozen=True, kw_only=True)
class Counters:
    waiting: int
    in_broker: int
    finished: int


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds of small uploads.

    Attributes:
        total: from the request that creates the upload to the answer that its job is completed.
        waited: from finalize to a worker's claim.
        transfer: from the claim to the end of the job.
    """

    total: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    transfer: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One situation: uploads alone and beside the crowd, in turns."""

    name: str
    alone: Times
    beside: Times


AddWork: TypeAlias = Callable[[Engine, TenantId], None]


@dataclass(frozen=True, kw_only=True)
class Situation:
    name: str
    priority: Priority
    is_same_tenant: bool
    add: AddWork


def situations(*, crowd: int, staging_dir: Path) -> list[Situation]:
    return [
        Situation(
            name=f"{crowd:,} references to nothing, of another tenant",
            priority=Priority.INTERACTIVE,
            is_same_tenant=False,
            add=partial(waiting_work.add_references, count=crowd),
        ),
        Situation(
            name=f"{crowd:,} small uploads, of another tenant",
            priority=Priority.INTERACTIVE,
            is_same_tenant=False,
            add=partial(
                waiting_work.add_files, count=crowd, content=CONTENT, staging_dir=staging_dir
            ),
        ),
        Situation(
            name=f"{crowd:,} bulk references to nothing, of the same tenant",
            priority=Priority.BULK,
            is_same_tenant=True,
            add=partial(waiting_work.add_references, count=crowd, priority=Priority.BULK),
        ),
    ]


def run(system: System, *, extent: Bounds) -> Section:
    system.run_only()
    system.stack.start_infrastructure()
    with system.stack.scoped("fairness") as stack, ExitStack() as end:
        end.callback(shutil.rmtree, stack.environment["STAGING_DIR"], ignore_errors=True)
        stack.migrate()
        stack.start_services(*SERVICES)
        engine = create_engine(stack.environment["DATABASE_URL"])
        end.callback(engine.dispose)
        results = []
        staging_dir = Path(stack.environment["STAGING_DIR"])
        for number, situation in enumerate(
            situations(crowd=extent.crowd, staging_dir=staging_dir), start=1
        ):
            began = time.monotonic()
            tenant = f"fairness-{number}"
            results.append(
                _measure(situation, stack=stack, engine=engine, tenant=tenant, rounds=extent.rounds)
            )
            system.report(f"fairness: {situation.name}: {time.monotonic() - began:.0f} s")
    return section(results, extent=extent)


def _measure(
    situation: Situation, *, stack: Stack, engine: Engine, tenant: str, rounds: int
) -> Result:
    own_key = stack.create_api_key(tenant=tenant)
    crowd_tenant = tenant if situation.is_same_tenant else f"{tenant}-crowd"
    if not situation.is_same_tenant:
        stack.create_api_key(tenant=crowd_tenant)
    with engine.connect() as connection:
        tenant_id = connection.scalars(select(Tenant.id).where(Tenant.name == crowd_tenant)).one()
    crowd = Crowd(engine=engine, tenant_id=tenant_id, priority=situation.priority)
    crowd.hold()
    situation.add(engine, tenant_id)
    alone, beside = Times(), Times()
    with Client(stack.url, api_key=own_key) as client:
        for _ in range(WARM_UPS):
            _upload(client, times=Times())
        for _ in range(rounds):
            _upload(client, times=alone)
            with crowd.flowing():
                _upload(client, times=beside)
    return Result(name=situation.name, alone=alone, beside=beside)


def _upload(client: Client, *, times: Times) -> None:
    """Upload a small file and wait until its job is completed.

    Raises:
        JobFailed: the job failed or was cancelled.
    """
    began = time.perf_counter()
    upload_id = client.create_upload(filename="note.bin", size=len(CONTENT))["upload_id"]
    client.put_chunk(upload_id, Chunk(index=0, content=CONTENT)).raise_for_status()
    job_id = client.finalize(upload_id).json()["job_id"]
    job = client.wait_until_settled(job_id, timeout=TIMEOUT)
    if job["status"] != "completed":
        raise JobFailed(job["status"], error=job["error"])
    times.total.append((time.perf_counter() - began) * 1000)
    created, started, finished = (
        datetime.fromisoformat(job[moment])
        for moment in ("created_at", "started_at", "finished_at")
    )
    times.waited.append((started - created).total_seconds() * 1000)
    times.transfer.append((finished - started).total_seconds() * 1000)


def section(results: list[Result], *, extent: Bounds) -> Section:
    rows, above = [], []
    for result in results:
        alone, beside = Spread.of(result.alone.total), Spread.of(result.beside.total)
        ratio = beside.p50 / alone.p50
        if ratio > RATIO_MAX:
            above.append(result.name)
        rows.append(
            [
                result.name,
                *(f"{value:.0f}" for value in (alone.p50, beside.p50)),
                f"{ratio:.2f}",
                *(f"{value:.0f}" for value in (alone.p95, beside.p95)),
                f"{beside.p95 / alone.p95:.2f}",
            ]
        )
    return Section(
        title="Fairness",
        question=(
            f"A tenant's upload of {len(CONTENT)} bytes, from its creation to the completed job,"
            " alone and beside waiting jobs, in turns. While the upload is alone, the jobs wait in"
            " the database and none of them is released; beside them, their tenant's share of the"
            f" broker is full before the upload begins. {extent.rounds} uploads of each; the ratios"
            " are those of the medians and of the 95th percentiles. One worker with two"
            f" processes; `TENANT_STEPS_MAX` is {StepSettings().tenant_steps_max},"
            f" `TENANT_BULK_STEPS_MAX` is {StepSettings().tenant_bulk_steps_max}. The goal is a"
            f" ratio of at most {RATIO_MAX}."
        ),
        tables=[
            Table(
                headings=[
                    "milliseconds, beside",
                    "alone",
                    "beside",
                    "ratio",
                    "p95 alone",
                    "p95 beside",
                    "ratio",
                ],
                rows=rows,
            ),
            Table(
                title="Median milliseconds by phase",
                headings=[
                    "beside",
                    "waiting for a worker, alone",
                    "beside",
                    "transfer, alone",
                    "beside",
                ],
                rows=[
                    [
                        result.name,
                        *(
                            f"{Spread.of(samples).p50:.0f}"
                            for samples in (
                                result.alone.waited,
                                result.beside.waited,
                                result.alone.transfer,
                                result.beside.transfer,
                            )
                        ),
                    ]
                    for result in results
                ],
            ),
        ],
        remarks=[
            f"Above {RATIO_MAX}: {'; '.join(above)}."
            if above
            else f"No ratio of the medians is above {RATIO_MAX}."
        ],
        measured_on=datetime.now(UTC).date(),
    )
