"""The cost of each call, look and sweep with few and with many rows.

Two databases of one server are seeded, one with few jobs and one with many; their newest jobs are
equal. Both are measured alternately: the calls over HTTP, each database with a gateway of its
own, and the looks and sweeps through the functions of the product, in transactions that are rolled
back.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Final, Self, TypeAlias

import structlog
from sqlalchemy import create_engine, func, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dev.bench import looks
from dev.bench.figures import Spread, starting_orders
from dev.bench.looks import Call, Facts, Look, PipelineLook
from dev.bench.sections import Section, Table
from dev.bench.system import TABLE, System
from dev.bench.wire import Answer, Connection
from dev.seed.extent import Extent
from dev.seed.load import seed
from dev.stack.stack import Stack
from gateway.settings import API_PREFIX
from notifier import positions
from pipeline.context import Context, build_context
from pipeline.ingest.extractors import registry
from pipeline.settings import Settings
from schemas.tables.outbox import OutboxMessage

RATIO_MAX: Final = 1.3
"""A row above this reads more when there are more rows."""

ACTIVE: Final = 200
"""Jobs that have not ended, in each database: the work to do is the same."""

HISTORY: Final = timedelta(days=28)
OLD_EVENTS: Final = "10d"
"""`EVENT_RETENTION`: shorter than the history, so that the sweep has partitions to drop."""
OLD_JOBS: Final = "30d"
"""`JOB_RETENTION`: longer than the history, so that a sweep deletes the jobs that its look makes old."""

WARM_UPS: Final = 3
"""Not counted."""

Samples: TypeAlias = dict[str, list[float]]
"""Milliseconds of each call, look and sweep, by its name."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    few: int
    many: int
    rounds: int


FULL: Final = Bounds(few=1_000, many=1_000_000, rounds=200)
QUICK: Final = Bounds(few=1_000, many=5_000, rounds=3)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A seeded database with its gateway."""

    facts: Facts
    gateway: Connection
    context: Context
    engine: AsyncEngine
    loop: asyncio.Runner
    samples: Samples = field(default_factory=lambda: defaultdict(list))

    @classmethod
    @contextmanager
    def of(cls, system: System, *, rows: int) -> Iterator[Self]:
        name = f"scale-{rows}"
        own = system.stack.create_database(name)
        url = own["DATABASE_URL"]
        settings = own | {"EVENT_RETENTION": OLD_EVENTS, "JOB_RETENTION": OLD_JOBS}
        with (
            Stack(system.stack.state_dir / name, settings=settings, table=TABLE) as stack,
            ExitStack() as end,
        ):
            end.callback(system.stack.drop_database, name)
            stack.migrate()
            began = time.monotonic()
            seed(url, Extent(rows=rows, active=ACTIVE, span=HISTORY))
            system.report(f"scale: seeded {rows:,} jobs in {time.monotonic() - began:.0f} s")
            stack.start_services("gateway")
            engine = create_engine(url)
            end.callback(engine.dispose)
            with engine.connect() as connection:
                facts = Facts.of(connection)
            key = stack.create_api_key(tenant=facts.tenant)
            headers = {"Authorization": f"Bearer {key}"}
            context = build_context(
                Settings.model_validate(
                    {name.lower(): value for name, value in stack.environment.items()}
                ),
                will_be_read=registry.will_be_read,
            )
            end.callback(context.engine.dispose)
            loop = end.enter_context(asyncio.Runner())
            async_engine = create_async_engine(url)
            end.callback(lambda: loop.run(async_engine.dispose()))
            yield cls(
                facts=facts,
                gateway=end.enter_context(closing(Connection(stack.url, headers=headers))),
                context=context,
                engine=async_engine,
                loop=loop,
            )

    def measurements(self) -> Iterator[Callable[[], object]]:
        """Yield a function for every call, look and sweep, which takes one sample."""
        for call in looks.reads(self.facts):
            yield partial(self._ask, call)
        yield self._upload
        for look in looks.LOOKS:
            yield partial(self._look, look)
        for sweep in looks.PIPELINE:
            yield partial(self._sweep, sweep)

    def timed_get(self, path: str) -> float:
        """Return the milliseconds of a GET."""
        began = time.perf_counter()
        self.gateway.ask("GET", path)
        return (time.perf_counter() - began) * 1000

    def _ask(self, call: Call) -> Answer:
        with self._timed(call.name):
            return self.gateway.ask(
                call.method, API_PREFIX + call.path, body=call.body, headers=call.headers
            )

    def _upload(self) -> None:
        calls = looks.upload()
        call = next(calls)
        with suppress(StopIteration):
            while True:
                call = calls.send(self._ask(call).json)
        self.loop.run(_relay_uploads(self.engine))

    def _look(self, look: Look) -> None:
        async def measured() -> None:
            async with self.engine.connect() as connection:
                await connection.run_sync(look.prepare, self.facts)
                with self._timed(look.name):
                    await look.look(connection, self.facts)
                await connection.rollback()

        self.loop.run(measured())

    def _sweep(self, look: PipelineLook) -> None:
        with self.context.engine.connect() as connection, connection.begin() as transaction:
            context = looks.in_transaction(self.context, connection)
            look.prepare(connection, self.facts)
            with self._timed(look.name):
                look.look(context, self.facts)
            transaction.rollback()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.samples[name].append((time.perf_counter() - began) * 1000)


async def _relay_uploads(engine: AsyncEngine) -> None:
    """Do what the relay would have done for the measured uploads."""
    async with engine.begin() as connection:
        while await positions.assign(connection):
            continue
        await connection.execute(
            update(OutboxMessage)
            .where(OutboxMessage.published_at.is_(None))
            .values(published_at=func.now())
        )


def run(system: System, *, extent: Bounds) -> Section:
    # The watchdog warns of every step that it releases.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    system.run_only()
    with (
        Subject.of(system, rows=extent.few) as few,
        Subject.of(system, rows=extent.many) as many,
    ):
        pairs = list(zip(few.measurements(), many.measurements(), strict=True))
        for measure in chain.from_iterable(pairs):
            for _ in range(WARM_UPS):
                measure()
        for subject in (few, many):
            subject.samples.clear()
        # Only one moment apart: the load of the machine changes.
        for pair in pairs:
            for order in starting_orders(pair, rounds=extent.rounds):
                for measure in order:
                    measure()
        return section(few.samples, many.samples, extent=extent)


def section(few: Samples, many: Samples, *, extent: Bounds) -> Section:
    """Compare the samples of the database with few jobs with those of the one with many."""
    rows, above = [], []
    for name in few:
        at_few, at_many = Spread.of(few[name]), Spread.of(many[name])
        ratio = at_many.p50 / at_few.p50
        if ratio > RATIO_MAX:
            above.append(name)
        rows.append(
            [
                name,
                *(f"{value:.2f}" for value in (at_few.p50, at_many.p50)),
                f"{ratio:.2f}",
                *(f"{value:.2f}" for value in (at_few.p95, at_many.p95)),
            ]
        )
    return Section(
        title="Cost by the number of rows",
        question=(
            f"The same calls, looks and sweeps on a database with {extent.few:,} jobs and on one"
            f" with {extent.many:,} jobs, each with its uploads, steps, events, outbox, documents"
            f" and deliveries. Both hold the same {ACTIVE} jobs that have not ended, so there is"
            " the same work to do. Calls go over HTTP to a gateway of each database, for the"
            " tenant that owns a third of the rows; looks and sweeps are the functions of the"
            f" product, in transactions that are rolled back. {extent.rounds} runs of each, warm, in"
            " turns on both databases; the ratio is that of the medians."
        ),
        tables=[
            Table(
                headings=[
                    "milliseconds",
                    *(f"{count:,} jobs" for count in (extent.few, extent.many)),
                    "ratio",
                    *(f"p95, {count:,} jobs" for count in (extent.few, extent.many)),
                ],
                rows=rows,
            )
        ],
        remarks=[
            f"Above {RATIO_MAX}: {', '.join(above)}."
            if above
            else f"No ratio is above {RATIO_MAX}."
        ],
        measured_on=datetime.now(UTC).date(),
    )
