"""The time of an upload while the sweep of old rows deletes a long history, beside the time alone."""

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from statistics import median, quantiles
from typing import Final

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from dev.bench import looks
from dev.bench.sections import Section, Table
from dev.bench.system import TABLE, System
from dev.bench.wire import Connection
from dev.seed.extent import Extent as History
from dev.seed.load import seed
from dev.stack.stack import Stack
from gateway.settings import API_PREFIX
from pipeline.context import build_context, install_context
from pipeline.ingest.extractors import registry
from pipeline.maintenance.tasks import SweepRows
from pipeline.settings import Settings
from schemas.tables import retention
from schemas.tables.deliveries import Delivery
from schemas.tables.jobs import Job

RATIO_MAX: Final = 1.5

SPAN: Final = timedelta(days=28)
RETENTION: Final = "1d"
"""Of jobs, events and deliveries: of a history of 28 days nearly all is deleted."""

CLIENTS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much history there is, and how long uploads are measured alone, before and after."""

    jobs: int
    alone: timedelta


FULL: Final = Extent(jobs=1_000_000, alone=timedelta(seconds=60))
QUICK: Final = Extent(jobs=3_000, alone=timedelta(seconds=2))


@dataclass(frozen=True, kw_only=True)
class Run:
    """Uploads in milliseconds: create, one chunk, finalize and cancel together."""

    seconds: float
    uploads: Sequence[float]

    @property
    def p99(self) -> float:
        return quantiles(self.uploads, n=100, method="inclusive")[-1]


@dataclass(frozen=True, kw_only=True)
class Deleted:
    jobs: int
    deliveries: int


def run(system: System, *, extent: Extent) -> Section:
    system.run_only()
    name = f"retention-{extent.jobs}"
    own = system.stack.create_database(name)
    settings = own | {
        "JOB_RETENTION": RETENTION,
        "EVENT_RETENTION": RETENTION,
        "DELIVERY_RETENTION": RETENTION,
        # Nothing relays the steps of the uploads.
        "TENANT_WAITING_MAX": "1000000",
        "SYSTEM_WAITING_MAX": "10000000",
    }
    try:
        with Stack(system.stack.state_dir / name, settings=settings, table=TABLE) as stack:
            stack.migrate()
            seed(own["DATABASE_URL"], History(rows=extent.jobs, active=200, span=SPAN))
            stack.start_services("gateway")
            key = stack.create_api_key(tenant="bench-retention")
            before = _for_a_while(stack, key, length=extent.alone)
            count = _count(own["DATABASE_URL"])
            during = _beside_the_sweep(stack, key)
            left = _count(own["DATABASE_URL"])
            after = _for_a_while(stack, key, length=extent.alone)
    finally:
        system.stack.drop_database(name)
    deleted = Deleted(jobs=count.jobs - left.jobs, deliveries=count.deliveries - left.deliveries)
    return section([before, after], during, deleted=deleted, extent=extent)


def _count(url: str) -> Deleted:
    engine = create_engine(url)
    with Session(engine) as session:
        counts = [
            session.scalar(select(func.count()).select_from(query)) or 0
            for query in (
                # Not the jobs of the uploads that are measured.
                select(Job.id).where(Job.created_at < func.now() - timedelta(days=1)).subquery(),
                Delivery,
            )
        ]
    engine.dispose()
    return Deleted(jobs=counts[0], deliveries=counts[1])


def _for_a_while(stack: Stack, key: str, *, length: timedelta) -> Run:
    ended = threading.Event()
    timer = threading.Timer(length.total_seconds(), ended.set)
    timer.start()
    return _upload_until(ended, stack, key)


def _beside_the_sweep(stack: Stack, key: str) -> Run:
    ended = threading.Event()

    def sweep() -> None:
        try:
            stack.run((sys.executable, "-m", "dev.bench.retention"))
        finally:
            ended.set()

    with ThreadPoolExecutor(1) as pool:
        sweeping = pool.submit(sweep)
        run = _upload_until(ended, stack, key)
        sweeping.result()
    return run


def _upload_until(ended: threading.Event, stack: Stack, key: str) -> Run:
    def client() -> list[float]:
        samples = []
        headers = {"Authorization": f"Bearer {key}"}
        with closing(Connection(stack.url, headers=headers)) as connection:
            while not ended.is_set():
                began = time.perf_counter()
                calls = looks.upload()
                call = next(calls)
                with suppress(StopIteration):
                    while True:
                        answer = connection.ask(
                            call.method,
                            API_PREFIX + call.path,
                            body=call.body,
                            headers=call.headers,
                        )
                        call = calls.send(answer.json)
                samples.append((time.perf_counter() - began) * 1000)
        return samples

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        samples = [each.result() for each in [pool.submit(client) for _ in range(CLIENTS)]]
    return Run(seconds=time.monotonic() - began, uploads=list(chain.from_iterable(samples)))


def section(alone: Sequence[Run], beside: Run, *, deleted: Deleted, extent: Extent) -> Section:
    of_alone = list(chain.from_iterable(each.uploads for each in alone))
    together = Run(seconds=sum(each.seconds for each in alone), uploads=of_alone)
    ratio = beside.p99 / together.p99
    return Section(
        title="Retention beside uploads",
        question=(
            f"The sweep of old rows on a history of {extent.jobs:,} jobs with their steps, chunks,"
            f" events and deliveries, all but the last day; meanwhile {CLIENTS} clients upload one"
            " small file after the other (create, chunk, finalize, cancel). Alone is the time of"
            " the same uploads before and after. Goal: p99 at most"
            f" {RATIO_MAX} times that of alone."
        ),
        tables=[
            Table(
                headings=["milliseconds per upload", "uploads", "p50", "p99"],
                rows=[
                    [
                        name,
                        f"{len(each.uploads):,}",
                        f"{median(each.uploads):.1f}",
                        f"{each.p99:.1f}",
                    ]
                    for name, each in (("alone", together), ("beside the sweep", beside))
                ],
            )
        ],
        remarks=[
            f"p99 beside the sweep is {ratio:.2f} times that of alone.",
            (
                f"Deleted in {beside.seconds:.0f} s: {deleted.jobs:,} jobs and"
                f" {deleted.deliveries:,} deliveries."
            ),
        ],
        measured_on=datetime.now(UTC).date(),
    )


def sweep_everything() -> None:
    """Run the sweep of old rows until nothing is due."""
    context = build_context(Settings.load(), will_be_read=registry.will_be_read)
    install_context(context)
    jobs = retention.jobs(kept_for=context.settings.job_retention).limit(1)
    while True:
        SweepRows().run()
        with context.transaction() as session:
            if session.execute(jobs).first() is None:
                break
    context.engine.dispose()


if __name__ == "__main__":
    sweep_everything()
