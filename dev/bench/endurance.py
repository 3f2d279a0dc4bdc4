"""Memory of the worker that reads documents, after many small documents."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, cycle, islice
from pathlib import Path
from typing import Final, Self

import psutil
from sqlalchemy import Engine, create_engine, func, select

from dev.bench import plots, waiting_work
from dev.bench.papers import Words, write_text_pdf
from dev.bench.plots import Lines
from dev.bench.sections import Section, Table
from dev.bench.system import TENANT, System
from dev.bench.usage import MIB
from dev.stack.object_store import ObjectStore
from schemas.ids import TenantId
from schemas.lifecycle import RevisionState, StepStatus
from schemas.object_keys import ObjectKey
from schemas.outcomes import Outcome
from schemas.settings import IngestSettings, StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.documents import Revision
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant

SERVICES: Final = ("relay", "ingest")
WORKER: Final = "ingest"
GROWTH_MAX: Final = 50
"""MiB of the lasting processes together."""
BATCH: Final = 250
"""Documents that wait at once."""
TIMEOUT: Final = timedelta(minutes=10)
POLL_INTERVAL: Final = timedelta(milliseconds=500)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How many documents pass before each measurement, and how many different texts they have."""

    documents: Sequence[int]
    texts: int


FULL: Final = Extent(documents=(500, 2_000, 5_000, 10_000), texts=500)
QUICK: Final = Extent(documents=(8, 16), texts=4)


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Resident memory of a worker at rest, in MiB. Pages that processes share count several times.

    Attributes:
        lasting: the sum of the processes that live as long as the worker.
        largest: the largest of them.
        reader: the largest sandbox child; a child ends after some documents. None if none lives.
    """

    lasting: float
    largest: float
    reader: float | None

    @classmethod
    def of(cls, pid: int) -> Self:
        worker = psutil.Process(pid)
        pool = worker.children()
        sizes = [_resident(process) for process in (worker, *pool)]
        readers = [reader for process in pool for reader in process.children()]
        return cls(
            lasting=sum(sizes),
            largest=max(sizes),
            reader=max(map(_resident, readers), default=None),
        )


def _resident(process: psutil.Process) -> float:
    return process.memory_info().rss / MIB


class NotRead(Exception):
    """Documents were not read in time, or not as a whole."""


def run(system: System, *, extent: Extent) -> Section:
    system.run_only(*SERVICES)
    if not system.api_key:  # creates the tenant
        raise RuntimeError("no tenant")
    store = ObjectStore.from_settings(system.stack.environment).client
    bucket = system.stack.environment["S3_BUCKET"]
    contents = _contents(system.scratch / "small-papers", texts=extent.texts)
    measured: dict[int, Resident] = {}
    done = 0
    engine = create_engine(system.stack.environment["DATABASE_URL"])
    with engine.connect() as connection:
        tenant_id, began_at = connection.execute(
            select(Tenant.id, func.now()).where(Tenant.name == TENANT)
        ).one()

    def put(key: ObjectKey, content: bytes) -> None:
        store.put_object(Bucket=bucket, Key=key, Body=content)

    for documents in extent.documents:
        while done < documents:
            batch = list(islice(contents, min(BATCH, documents - done)))
            waiting_work.add_documents(engine, tenant_id, batch, put=put)
            _read(engine, tenant_id)
            done += len(batch)
        measured[done] = Resident.of(system.pid_of(WORKER))
        system.report(f"endurance: {done:,} documents: {measured[done].lasting:.1f} MiB")
    _check_read(engine, done, since=began_at)
    engine.dispose()
    system.empty_bucket()
    _plot(measured, to=system.plots / "endurance.svg")
    return section(measured, extent=extent)


def section(measured: dict[int, Resident], *, extent: Extent) -> Section:
    """Compare each measurement with the first one."""
    first, last = min(measured), max(measured)
    growth = max(each.lasting for each in measured.values()) - measured[first].lasting
    return Section(
        title="Memory over many documents",
        question=(
            f"{last:,} PDFs of one page, with {extent.texts} different texts and all with different"
            " bytes, are read by one worker with two processes. Resident memory at rest after so"
            " many documents: the processes that live as long as the worker, together and the"
            " largest; and the largest sandbox child, which ends after"
            f" {IngestSettings().reader_documents_max} documents."
        ),
        tables=[_table(measured)],
        remarks=[
            (
                f"The largest growth after {first:,} documents is {growth:+.1f} MiB,"
                f" {'within' if growth <= GROWTH_MAX else 'above'} the goal of {GROWTH_MAX} MiB."
            )
        ],
        plots=["endurance.svg"],
        measured_on=datetime.now(UTC).date(),
    )


def _contents(directory: Path, *, texts: int) -> Iterator[bytes]:
    """Yield the bytes of one-page PDFs without end; no two are equal."""
    directory.mkdir(exist_ok=True)
    words = Words(seed=5)
    pages = []
    for number in range(texts):
        path = directory / f"{number}.pdf"
        write_text_pdf(path, pages=1, words=words)
        pages.append(path.read_bytes())
    for number, page in zip(count(), cycle(pages)):
        # The result of the same bytes is reused. The time makes the bytes differ between runs.
        yield page + f"\n% {number} {datetime.now(UTC).isoformat()}\n".encode()


def _read(engine: Engine, tenant_id: TenantId) -> None:
    """Release the waiting readings, and return when none is left."""
    with engine.begin() as connection:
        connection.execute(steps.release(tenant_id, StepName.INGEST, settings=StepSettings()))
    left = (
        select(func.count())
        .select_from(Step)
        .where(Step.status.in_((StepStatus.WAITING, StepStatus.QUEUED, StepStatus.RUNNING)))
    )
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while True:
        with engine.connect() as connection:
            if not connection.scalar(left):
                return
        if time.monotonic() > deadline:
            raise NotRead
        time.sleep(POLL_INTERVAL.total_seconds())


def _check_read(engine: Engine, documents: int, *, since: datetime) -> None:
    complete = (
        select(func.count())
        .select_from(Revision)
        .where(
            Revision.state == RevisionState.PUBLISHED,
            Revision.outcome == Outcome.COMPLETE,
            Revision.created_at >= since,
            Revision.reused_from.is_(None),
        )
    )
    with engine.connect() as connection:
        read = connection.scalar(complete)
    if read != documents:
        raise NotRead(f"{read} of {documents}")


def _table(measured: dict[int, Resident]) -> Table:
    first = next(iter(measured.values()))
    return Table(
        headings=["documents", "RSS", "growth", "largest process", "growth", "largest reader"],
        rows=[
            [
                f"{documents:,}",
                f"{now.lasting:.1f} MiB",
                f"{now.lasting - first.lasting:+.1f} MiB",
                f"{now.largest:.1f} MiB",
                f"{now.largest - first.largest:+.1f} MiB",
                "none" if now.reader is None else f"{now.reader:.1f} MiB",
            ]
            for documents, now in measured.items()
        ],
    )


def _plot(measured: dict[int, Resident], *, to: Path) -> None:
    plots.lines(
        Lines(
            title="Memory of a worker over many documents (flat is good)",
            unit="RSS of its lasting processes, MiB",
            axis="documents",
            points=[f"{documents:,}" for documents in measured],
            series={WORKER: [each.lasting for each in measured.values()]},
            ours=(WORKER,),
        ),
        to=to,
    )
