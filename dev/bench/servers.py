"""Compares ASGI servers for the gateway: the same application, the same files."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Final

from dev.bench import backpressure, machine, plots, sending
from dev.bench.backpressure import Buffered
from dev.bench.figures import Ratio, Spread, starting_orders
from dev.bench.plots import Bars
from dev.bench.receivers import Waybill
from dev.bench.sections import Section, Table
from dev.bench.sending import Load
from dev.bench.system import OTHER_SERVERS, System
from dev.bench.usage import MIB, watched
from dev.bench.wire import Content

GIB: Final = 1024 * MIB
PRESENT: Final = "uvicorn"
"""The server of `waybill-gateway`, with the settings it has there."""
SERVICE_OF: Final = {PRESENT: "gateway", **{each.name: each.name for each in OTHER_SERVERS}}

GROWTH_MAX_MIB: Final = 32
"""A server that grows by more while the application does not read would buffer whole chunks."""
SPEEDUP_MIN: Final = 1.10
"""Minimum speed of another server, relative to the present server."""
MEMORY_MAX: Final = 1.25
"""Maximum memory of another server, relative to the present server."""


@dataclass(frozen=True, kw_only=True)
class Task:
    load: Load
    connections: int

    def __str__(self) -> str:
        plural = "s" if self.connections > 1 else ""
        return f"{self.load}, {self.connections} connection{plural}"


@dataclass(frozen=True, kw_only=True)
class Extent:
    rounds: int
    tasks: tuple[Task, ...]
    finalizes: int
    offered: int
    """Bytes offered to a server whose application does not read."""


FULL: Final = Extent(
    rounds=2,
    tasks=(
        Task(load=Load(files=1, size=GIB, chunk_size=8 * MIB), connections=1),
        Task(load=Load(files=1, size=GIB, chunk_size=8 * MIB), connections=4),
        Task(load=Load(files=1, size=256 * MIB, chunk_size=MIB), connections=4),
    ),
    finalizes=20,
    offered=256 * MIB,
)
QUICK: Final = Extent(
    rounds=1,
    tasks=(Task(load=Load(files=1, size=16 * MIB, chunk_size=8 * MIB), connections=2),),
    finalizes=3,
    offered=32 * MIB,
)
WARM_UP: Final = Task(load=Load(files=1, size=32 * MIB, chunk_size=8 * MIB), connections=4)


@dataclass(kw_only=True)
class Record:
    """The figures of one server over all rounds."""

    speeds: dict[Task, list[float]]
    cpu_per_gib: dict[Task, list[float]]
    finalize_ms: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


def run(system: System, *, extent: Extent) -> Section:
    records = {
        name: Record(
            speeds={task: [] for task in extent.tasks},
            cpu_per_gib={task: [] for task in extent.tasks},
        )
        for name in SERVICE_OF
    }
    for order in starting_orders(list(SERVICE_OF), rounds=extent.rounds):
        for name in order:
            _measure(system, name, record=records[name], extent=extent)
    taken = {name: backpressure.measure(name, offered=extent.offered) for name in SERVICE_OF}
    _plot(system, records, tasks=extent.tasks)
    return Section(
        title="The server under the gateway",
        question=(
            "The gateway's application under three ASGI servers, one process each, with uvloop;"
            f" {PRESENT} has the settings of `waybill-gateway`."
            f" Median of {extent.rounds} rounds; finalize over {extent.rounds * extent.finalizes}"
            " uploads."
        ),
        tables=[_speeds(records), _costs(records), _latency_and_memory(records, taken)],
        remarks=[_recommendation(records, taken)],
        plots=["servers.svg"],
        peers=machine.versions_of(*SERVICE_OF),
        measured_on=datetime.now(UTC).date(),
    )


def _measure(system: System, name: str, *, record: Record, extent: Extent) -> None:
    service = SERVICE_OF[name]
    system.run_only(service)
    receiver = Waybill(system.url, api_key=system.api_key)
    with watched({name: system.pid_of(service)}) as whole:
        _send(receiver, WARM_UP)
        for task in extent.tasks:
            os.sync()
            with watched({name: system.pid_of(service)}) as usage:
                seconds = _send(receiver, task)
            speed = task.load.total_mib / seconds
            record.speeds[task].append(speed)
            record.cpu_per_gib[task].append(usage.cpu_seconds[name] / task.load.total_mib * 1024)
            system.report(f"servers: {name}: {task}: {speed:.0f} MiB/s")
        record.finalize_ms += [_finalize_ms(receiver) for _ in range(extent.finalizes)]
    record.peak_mib = max(record.peak_mib, whole.peak_mib[name])


def _send(receiver: Waybill, task: Task) -> float:
    sent = sending.over_connections(
        receiver,
        task.load,
        content=Content.random(task.load.chunk_size),
        connections=task.connections,
    )
    sending.forget(receiver, sent)
    return sent.seconds


def _finalize_ms(receiver: Waybill) -> float:
    content = Content.random(MIB)
    with closing(receiver.connect()) as connection:
        upload = receiver.begin(connection, size=MIB, chunk_size=MIB)
        receiver.send(connection, upload, index=0, content=content)
        began = time.perf_counter()
        receiver.end(connection, upload)
        milliseconds = (time.perf_counter() - began) * 1000
        receiver.forget(connection, upload)
    return milliseconds


def _speeds(records: dict[str, Record]) -> Table:
    present = records[PRESENT]
    rows = []
    for task in present.speeds:
        row = [str(task)]
        for name, record in records.items():
            row.append(f"{median(record.speeds[task]):.0f}")
            if name != PRESENT:
                row.append(str(Ratio.between(record.speeds[task], present.speeds[task])))
        rows.append(row)
    others = [name for name in records if name != PRESENT]
    headings = ["MiB/s", PRESENT]
    for name in others:
        headings += [name, f"times {PRESENT} (range)"]
    return Table(headings=headings, rows=rows)


def _costs(records: dict[str, Record]) -> Table:
    return Table(
        title="Cost",
        headings=["CPU seconds per GiB", *records],
        rows=[
            [str(task), *(f"{median(each.cpu_per_gib[task]):.1f}" for each in records.values())]
            for task in records[PRESENT].speeds
        ],
    )


def _latency_and_memory(records: dict[str, Record], taken: dict[str, Buffered]) -> Table:
    rows = []
    for name, record in records.items():
        finalize = Spread.of(record.finalize_ms)
        rows.append(
            [
                name,
                f"{finalize.p50:.1f} ms",
                f"{finalize.p95:.1f} ms",
                f"{record.peak_mib:.0f} MiB",
                f"{taken[name].sent_mib:.0f} MiB",
                f"{taken[name].grown_mib:+.0f} MiB",
            ]
        )
    return Table(
        title="Latency and memory",
        headings=[
            "server",
            "finalize p50",
            "finalize p95",
            "peak RSS",
            "buffered of an unread body",
            "memory growth",
        ],
        rows=rows,
    )


def choose(
    speedups: Mapping[str, Sequence[float]],
    *,
    peak_mib: Mapping[str, float],
    grown_mib: Mapping[str, float],
) -> str:
    """Return the recommended server.

    Another server than the present server must be a tenth faster in the median of the tasks,
    with at most a quarter more memory, and must not buffer what the application does not read.

    Args:
        speedups: of every other server over the present one, for each task.
        peak_mib: peak memory of each server under load.
        grown_mib: growth of each server while the application did not read.
    """
    better = {
        name: median(ratios)
        for name, ratios in speedups.items()
        if median(ratios) >= SPEEDUP_MIN
        and peak_mib[name] <= MEMORY_MAX * peak_mib[PRESENT]
        and grown_mib[name] <= GROWTH_MAX_MIB
    }
    return max(better, key=lambda name: better[name], default=PRESENT)


def _recommendation(records: dict[str, Record], taken: dict[str, Buffered]) -> str:
    present = records[PRESENT]
    chosen = choose(
        {
            name: [
                Ratio.between(record.speeds[task], present.speeds[task]).median
                for task in present.speeds
            ]
            for name, record in records.items()
            if name != PRESENT
        },
        peak_mib={name: record.peak_mib for name, record in records.items()},
        grown_mib={name: each.grown_mib for name, each in taken.items()},
    )
    return (
        f"By these figures: {chosen}. The rule: another server than {PRESENT} must be"
        f" {SPEEDUP_MIN - 1:.0%} faster in the median with at most {MEMORY_MAX - 1:.0%} more"
        f" memory, and must not grow by more than {GROWTH_MAX_MIB} MiB while the application does"
        " not read."
    )


def _plot(system: System, records: dict[str, Record], *, tasks: Sequence[Task]) -> None:
    plots.bars(
        Bars(
            title="The gateway under three servers (higher is better)",
            unit="MiB/s",
            groups=[plots.two_lines(str(task)) for task in tasks],
            series={
                name: [record.speeds[task] for task in tasks] for name, record in records.items()
            },
            ours=(PRESENT,),
        ),
        to=system.plots / "servers.svg",
    )
