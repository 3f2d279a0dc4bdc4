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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Final, Self, TypeAlias

import structlog
from sqlalchemy import create_engine, func, update
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from dev.bench import looks
from dev.bench.figures import Ratio, starting_orders
from dev.bench.looks import Call, Facts, PipelineLook
from dev.bench.sections import Section, Table
from dev.bench.system import TABLE, System
from dev.bench.wire import Answer, Connection
from dev.seed.extent import Extent
from dev.seed.load import seed
from dev.stack.stack import Stack
from gateway.settings import API_PREFIX
from notifier import positions
from pipeline.context import Context, build_context
from pipeline.settings import Settings
from schemas.tables.outbox import OutboxMessage

RATIO_MAX: Final = 1.3
"""A row above this reads more when there are more rows."""

ACTIVE: Final = 200
"""Jobs that have not ended, in each database: the work to do is the same."""

WARM_UPS: Final = 3
"""Not counted."""

Samples: TypeAlias = dict[str, list[float]]
"""Milliseconds of each call, look and sweep, by its name."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    few: int
    many: int
    rounds: int
    samples: int
    """Of each look in each round."""


FULL: Final = Bounds(few=1_000, many=1_000_000, rounds=30, samples=5)
QUICK: Final = Bounds(few=1_000, many=5_000, rounds=1, samples=2)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A seeded database with its gateway."""

    facts: Facts
    context: Context
    url: str
    gateway: Connection

    @classmethod
    @contextmanager
    def of(cls, system: System, *, rows: int) -> Iterator[Self]:
        name = f"scale-{rows}"
        own = system.stack.create_database(name)
        url = own["DATABASE_URL"]
        with (
            Stack(system.stack.state_dir / name, settings=own, table=TABLE) as stack,
            ExitStack() as end,
        ):
            end.callback(system.stack.drop_database, name)
            stack.migrate()
            began = time.monotonic()
            seed(url, Extent(rows=rows, active=ACTIVE))
            system.report(f"scale: seeded {rows:,} jobs in {time.monotonic() - began:.0f} s")
            stack.start_services("gateway")
            engine = create_engine(url)
            end.callback(engine.dispose)
            with engine.connect() as connection:
                facts = Facts.of(connection)
            key = stack.create_api_key(tenant=facts.tenant)
            headers = {"Authorization": f"Bearer {key}"}
            settings = {name.lower(): value for name, value in stack.environment.items()}
            context = build_context(Settings.model_validate(settings))
            end.callback(context.engine.dispose)
            yield cls(
                facts=facts,
                context=context,
                url=url,
                gateway=end.enter_context(closing(Connection(stack.url, headers=headers))),
            )

    def samples(self, count: int) -> Samples:
        """Run every call, look and sweep `count` times; return their times."""
        taken = defaultdict[str, list[float]](list)
        for call in looks.reads(self.facts):
            for _ in range(count):
                self._ask(call, taken)
        for _ in range(count):
            self._upload(taken)
        asyncio.run(self._notify(count, taken))
        for look in looks.PIPELINE:
            for _ in range(count):
                self._sweep(look, taken)
        return taken

    def _ask(self, call: Call, taken: Samples) -> Answer:
        with _timed(call.name, taken):
            return self.gateway.ask(
                call.method, API_PREFIX + call.path, body=call.body, headers=call.headers
            )

    def _upload(self, taken: Samples) -> None:
        calls = looks.upload()
        call = next(calls)
        with suppress(StopIteration):
            while True:
                call = calls.send(self._ask(call, taken).json)

    async def _notify(self, count: int, taken: Samples) -> None:
        engine = create_async_engine(self.url)
        async with engine.begin() as connection:
            await _relay_uploads(connection)
        async with engine.connect() as connection:
            for look in looks.NOTIFIER:
                for _ in range(count):
                    await connection.run_sync(look.prepare, self.facts)
                    with _timed(look.name, taken):
                        await look.look(connection, self.facts)
                    await connection.rollback()
        await engine.dispose()

    def _sweep(self, look: PipelineLook, taken: Samples) -> None:
        with self.context.engine.connect() as connection, connection.begin() as transaction:
            context = looks.in_transaction(self.context, connection)
            look.prepare(connection, self.facts)
            with _timed(look.name, taken):
                look.look(context, self.facts)
            transaction.rollback()


async def _relay_uploads(connection: AsyncConnection) -> None:
    """Do what the relay would have done for the measured uploads."""
    while await positions.assign(connection):
        continue
    await connection.execute(
        update(OutboxMessage)
        .where(OutboxMessage.published_at.is_(None))
        .values(published_at=func.now())
    )


@contextmanager
def _timed(name: str, taken: Samples) -> Iterator[None]:
    began = time.perf_counter()
    yield
    taken[name].append((time.perf_counter() - began) * 1000)


def run(system: System, *, extent: Bounds) -> Section:
    # The watchdog warns of every step that it releases.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    system.run_only()
    with (
        Subject.of(system, rows=extent.few) as few,
        Subject.of(system, rows=extent.many) as many,
    ):
        rounds: dict[int, list[Samples]] = {extent.few: [], extent.many: []}
        subjects = {extent.few: few, extent.many: many}
        for subject in subjects.values():
            subject.samples(WARM_UPS)
        for order in starting_orders(list(subjects), rounds=extent.rounds):
            for rows in order:
                rounds[rows].append(subjects[rows].samples(extent.samples))
    return _section(rounds[extent.few], rounds[extent.many], extent=extent)


def _section(few: Sequence[Samples], many: Sequence[Samples], *, extent: Bounds) -> Section:
    rows, above = [], []
    for name in few[0]:
        at_few, at_many = ([median(samples[name]) for samples in rounds] for rounds in (few, many))
        ratio = Ratio.between(at_many, at_few)
        if ratio.median > RATIO_MAX:
            above.append(name)
        rows.append([name, f"{median(at_few):.2f}", f"{median(at_many):.2f}", str(ratio)])
    return Section(
        title="Cost by the number of rows",
        question=(
            f"The same calls, looks and sweeps on a database with {extent.few:,} jobs and on one"
            f" with {extent.many:,} jobs, each with its uploads, steps, events, outbox, documents"
            f" and deliveries. Both hold the same {ACTIVE} jobs that have not ended, so there is"
            " the same work to do. Calls go over HTTP to a gateway of each database, for the"
            " tenant that owns a third of the rows; looks and sweeps are the functions of the"
            f" product, in transactions that are rolled back. Median of {extent.rounds} rounds of"
            f" {extent.samples} runs each, warm."
        ),
        tables=[
            Table(
                headings=[
                    "milliseconds",
                    f"{extent.few:,} jobs",
                    f"{extent.many:,} jobs",
                    "ratio (range)",
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
