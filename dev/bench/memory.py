"""Peak memory for files of growing size."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from dev.bench import journey, plots
from dev.bench.plots import Lines
from dev.bench.sections import Section, Table
from dev.bench.sending import shown
from dev.bench.system import System
from dev.bench.usage import MIB, Usage, watched
from dev.bench.wire import Content

GIB: Final = 1024 * MIB
CHUNK_SIZE: Final = 64 * MIB
PROCESSES: Final = ("gateway", "transfer")
SIZES: Final = (64 * MIB, 512 * MIB, 2 * GIB, 8 * GIB)
QUICK_SIZES: Final = (8 * MIB, 32 * MIB)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    peak_mib: dict[str, float]
    grown_mib: dict[str, float]

    @classmethod
    def of(cls, usage: Usage) -> Self:
        return cls(peak_mib=usage.largest_mib, grown_mib=usage.grown_mib)


def run(system: System, *, sizes: tuple[int, ...]) -> Section:
    system.run_only("gateway", "relay", "transfer")
    # One file for each of the worker's processes.
    for _ in range(2):
        _through_the_system(system, size=sizes[0])
    footprints = {}
    for size in sizes:
        footprints[size] = _through_the_system(system, size=size)
        system.empty_bucket()
        grown = footprints[size].grown_mib
        system.report(
            f"memory: {shown(size)}: "
            + ", ".join(f"{name} {grown[name]:+.1f} MiB over idle" for name in PROCESSES)
        )
    _plot(system, footprints)
    return Section(
        title="Memory",
        question=(
            f"Files of zeros in chunks of {shown(CHUNK_SIZE)}, from the client into the store."
            " Peak resident memory of the gateway, and of the transfer worker's largest process,"
            " sampled twenty times a second; idle is the size after two small files."
        ),
        tables=[_table(footprints)],
        plots=["memory.svg"],
        measured_on=datetime.now(UTC).date(),
    )


def _through_the_system(system: System, *, size: int) -> Footprint:
    content = Content.zeros(min(CHUNK_SIZE, size))
    with watched({name: system.pid_of(name) for name in PROCESSES}) as usage:
        journey.finish(system, journey.stage(system, size=size, content=content))
    os.sync()
    return Footprint.of(usage)


def _table(footprints: dict[int, Footprint]) -> Table:
    headings = [""]
    for name in PROCESSES:
        headings += [f"{name}: peak RSS", f"{name}: over idle"]
    rows = []
    for size, footprint in footprints.items():
        row = [shown(size)]
        for name in PROCESSES:
            row += [
                f"{footprint.peak_mib[name]:.0f} MiB",
                f"{footprint.grown_mib[name]:+.1f} MiB",
            ]
        rows.append(row)
    spread = ["over all sizes"]
    for name in PROCESSES:
        peaks = [footprint.peak_mib[name] for footprint in footprints.values()]
        spread += [f"± {(max(peaks) - min(peaks)) / 2:.1f} MiB", ""]
    return Table(headings=headings, rows=[*rows, spread])


def _plot(system: System, footprints: dict[int, Footprint]) -> None:
    plots.lines(
        Lines(
            title="Memory while a file passes through (flat is good)",
            unit="peak RSS, MiB",
            axis="size of the file",
            points=[shown(size) for size in footprints],
            series={
                name: [footprint.peak_mib[name] for footprint in footprints.values()]
                for name in PROCESSES
            },
            ours=PROCESSES,
        ),
        to=system.plots / "memory.svg",
    )
