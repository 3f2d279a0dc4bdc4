"""Time from a finalized file to an object, compared with s5cmd and boto3 on the same store."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from dev.bench import journey, machine, plots, uploaders
from dev.bench.figures import Ratio, starting_orders
from dev.bench.plots import Bars
from dev.bench.sections import Section, Table
from dev.bench.sending import shown
from dev.bench.system import STAGING_IN_BUCKET, System
from dev.bench.uploaders import Transferred
from dev.bench.usage import MIB, watched
from dev.bench.wire import Content

GIB: Final = 1024 * MIB
CHUNK_SIZE: Final = 8 * MIB
WARM_UP: Final = 32 * MIB

OURS: Final = "Waybill"
OURS_BY_BUCKET: Final = "Waybill, STAGING=s3"
S5CMD: Final = "s5cmd"
BOTO3: Final = "boto3"


@dataclass(frozen=True, kw_only=True)
class Extent:
    rounds: int
    size: int


FULL: Final = Extent(rounds=3, size=GIB)
QUICK: Final = Extent(rounds=1, size=32 * MIB)

Uploads = dict[str, Callable[[], Transferred]]
Runs = dict[str, list[Transferred]]


def run(system: System, *, extent: Extent) -> Section:
    runs = _measure(system, extent=extent)
    _plot(system, runs, size=extent.size)
    return Section(
        title="From staging to the object store",
        question=(
            f"One file of {shown(extent.size)} into the same Swift: {OURS} from the moment a"
            " worker claims the finalized upload until the stored object is on record; s5cmd's"
            f" `cp` and boto3's `upload_file` with their default settings. Median of {extent.rounds}"
            " rounds."
        ),
        tables=[_table(runs, size=extent.size)],
        remarks=[
            (
                f"{OURS} checks every chunk against the checksum of its acknowledgement, the whole file,"
                " and the stored object with HEAD; it reports progress and renews its lease in the"
                " database. The peers check nothing."
            ),
            (
                f"With `STAGING=s3` the chunks of {shown(CHUNK_SIZE)} are objects already: the"
                " worker reads them once to check them, and the store copies them into one object."
            ),
        ],
        plots=["transfer.svg"],
        peers={
            S5CMD: machine.printed_version(str(uploaders.s5cmd_program()), "version") or "unknown",
            **machine.versions_of("boto3"),
        },
        measured_on=datetime.now(UTC).date(),
    )


def _measure(system: System, *, extent: Extent) -> Runs:
    file = system.scratch / "file"
    _write(file, size=extent.size)
    uploads: Uploads = {
        OURS: lambda: _ours(system, "gateway", size=extent.size),
        OURS_BY_BUCKET: lambda: _ours(system, STAGING_IN_BUCKET.name, size=extent.size),
        S5CMD: lambda: uploaders.by_s5cmd(file, system.store),
        BOTO3: lambda: uploaders.by_boto3(file, system.store),
    }
    # One file for each of the worker's processes.
    for _ in range(2):
        _ours(system, "gateway", size=WARM_UP)
    runs: Runs = {name: [] for name in uploads}
    for order in starting_orders(list(uploads), rounds=extent.rounds):
        for name in order:
            # The previous contestant's unwritten pages must not slow this one.
            os.sync()
            transferred = uploads[name]()
            runs[name].append(transferred)
            speed = extent.size / MIB / transferred.seconds
            system.report(f"transfer: {name}: {speed:.0f} MiB/s")
            system.empty_bucket()
    file.unlink()
    return runs


def _write(file: Path, *, size: int) -> None:
    with file.open("wb") as out:
        for _ in range(0, size, CHUNK_SIZE):
            out.write(os.urandom(CHUNK_SIZE))


def _ours(system: System, gateway: str, *, size: int) -> Transferred:
    system.run_only(gateway, "relay", "transfer")
    staged = journey.stage(system, size=size, content=Content.random(CHUNK_SIZE))
    os.sync()
    with watched({"transfer": system.pid_of("transfer")}) as usage:
        job = journey.finish(system, staged)
    began, ended = (datetime.fromisoformat(job[moment]) for moment in ("started_at", "stored_at"))
    return Transferred(
        seconds=(ended - began).total_seconds(),
        cpu_seconds=usage.cpu_seconds["transfer"],
        peak_mib=usage.largest_mib["transfer"],
    )


def _table(runs: Runs, *, size: int) -> Table:
    rows = []
    for name, its_runs in runs.items():
        seconds = [each.seconds for each in its_runs]
        row = [name, f"{size / MIB / median(seconds):.0f}"]
        for peer in (S5CMD, BOTO3):
            ratio = Ratio.between([each.seconds for each in runs[peer]], seconds)
            row.append("" if peer == name else str(ratio))
        cpu = median(each.cpu_seconds for each in its_runs) / size * GIB
        peak = max(each.peak_mib for each in its_runs)
        rows.append([*row, f"{cpu:.1f}", f"{peak:.0f} MiB"])
    headings = ["", "MiB/s", f"times {S5CMD} (range)", f"times {BOTO3} (range)"]
    return Table(headings=[*headings, "CPU seconds per GiB", "peak RSS"], rows=rows)


def _plot(system: System, runs: Runs, *, size: int) -> None:
    plots.bars(
        Bars(
            title=f"{shown(size)} from staging to the object store (higher is better)",
            unit="MiB/s",
            groups=list(runs),
            series={"": [[size / MIB / each.seconds for each in its] for its in runs.values()]},
            ours=(OURS, OURS_BY_BUCKET),
        ),
        to=system.plots / "transfer.svg",
    )
