"""Speed and cost of receiving files, compared with `@tus/server`."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from dev.bench import machine, plots, sending, tus_server
from dev.bench.figures import Ratio, starting_orders
from dev.bench.plots import Bars
from dev.bench.receivers import Receiver, Tus, Waybill
from dev.bench.sections import Section, Table
from dev.bench.sending import Load
from dev.bench.system import System
from dev.bench.tus_server import TusUnavailable
from dev.bench.usage import MIB, watched
from dev.bench.wire import Content

GIB: Final = 1024 * MIB
OURS: Final = "Waybill"
TUS: Final = "@tus/server"

SMALL_CHUNKS: Final = Load(files=1, size=GIB, chunk_size=MIB)
LARGE_CHUNKS: Final = Load(files=1, size=GIB, chunk_size=8 * MIB)
LOADS: Final = (
    Load(files=1, size=GIB, chunk_size=64 * MIB),
    LARGE_CHUNKS,
    SMALL_CHUNKS,
    Load(files=8, size=128 * MIB, chunk_size=8 * MIB),
)
QUICK_LOADS: Final = (
    Load(files=1, size=16 * MIB, chunk_size=8 * MIB),
    Load(files=2, size=8 * MIB, chunk_size=MIB),
)
WARM_UP: Final = Load(files=2, size=16 * MIB, chunk_size=8 * MIB)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    name: str
    receiver: Receiver
    pids: dict[str, int]
    """The server's processes; memory is measured in the first process."""
    make_durable: Callable[[str], None]
    """Syncs the file with this id to disk, if the server does not."""
    discard: Callable[[str], None]
    """Removes the file with this id, if the server does not."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    seconds: float
    durable_seconds: float
    """Until every byte is on disk."""
    cpu_seconds: dict[str, float]
    client_cpu_seconds: float
    peak_mib: float


Outcomes = dict[str, list[Outcome]]
"""One load: for each contestant one outcome per round."""


def run(system: System, *, rounds: int, loads: Sequence[Load]) -> Section:
    system.run_only("gateway")
    remarks = [
        (
            f"{OURS} checks the digest of every chunk and syncs it to disk before it answers;"
            f' {TUS} does neither. "…, then synced" is {TUS} with one `fsync` of the file after its'
            f" last answer: then every byte is on disk, as it is at the end of {OURS}'s time."
        ),
        (
            f"{OURS}'s time ends with the 202 of finalize. Its processor time includes"
            " PostgreSQL's, which stores the manifest."
        ),
    ]
    with ExitStack() as peers:
        contestants = [_ours(system)]
        versions = {}
        try:
            server = peers.enter_context(tus_server.running(system.stack.state_dir / "tus"))
        except TusUnavailable as reason:
            system.report(f"ingest: without {TUS}: {reason}")
            remarks = [f"{TUS} did not take part: {reason}."]
        else:
            contestants.append(_tus(server))
            versions = tus_server.versions()
            versions["Node.js"] = machine.printed_version("node", "--version") or "unknown"
        measured = _measure(contestants, loads=loads, rounds=rounds, report=system.report)
    if {SMALL_CHUNKS, LARGE_CHUNKS} <= measured.keys():
        remarks.append(_cost_of_small_chunks(measured))
    section = Section(
        title="Receiving files",
        question=(
            f"The same client sends the same bytes to {OURS} and to {TUS}: plain connections,"
            " one chunk at a time, each after the acknowledgement of the previous one. Everything"
            " is on one disk."
            f" Median of {rounds} rounds."
        ),
        tables=[_speeds(measured), _costs(measured)],
        remarks=remarks,
        plots=["ingest.svg"],
        peers=versions,
        measured_on=datetime.now(UTC).date(),
    )
    _plot(measured, to=system.plots / "ingest.svg")
    return section


def _ours(system: System) -> Contestant:
    staging = Path(system.stack.environment["STAGING_DIR"])
    return Contestant(
        name=OURS,
        receiver=Waybill(system.url, api_key=system.api_key),
        pids={"gateway": system.pid_of("gateway"), "PostgreSQL": system.pid_of("postgres")},
        make_durable=lambda _: None,
        # The worker deletes the file of a finalized upload; no worker runs here.
        discard=lambda id_: (staging / id_).unlink(missing_ok=True),
    )


def _tus(server: tus_server.TusServer) -> Contestant:
    return Contestant(
        name=TUS,
        receiver=Tus(server.url),
        pids={"node": server.pid},
        make_durable=lambda id_: _sync(server.directory / id_),
        discard=lambda _: None,
    )


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _measure(
    contestants: Sequence[Contestant],
    *,
    loads: Sequence[Load],
    rounds: int,
    report: Callable[[str], None],
) -> dict[Load, Outcomes]:
    content = Content.random(WARM_UP.chunk_size)
    for contestant in contestants:
        _send(contestant, WARM_UP, content=content)
    measured: dict[Load, Outcomes] = {
        load: {contestant.name: [] for contestant in contestants} for load in loads
    }
    contents = {load: Content.random(load.chunk_size) for load in loads}
    for order in starting_orders(contestants, rounds=rounds):
        for load in loads:
            for contestant in order:
                outcome = _send(contestant, load, content=contents[load])
                measured[load][contestant.name].append(outcome)
                speed = load.total_mib / outcome.seconds
                report(f"ingest: {load}: {contestant.name} {speed:.0f} MiB/s")
    return measured


def _send(contestant: Contestant, load: Load, *, content: Content) -> Outcome:
    # The previous contestant's unwritten pages must not slow this one.
    os.sync()
    with watched(contestant.pids) as usage:
        sent = sending.file_by_file(contestant.receiver, load, content=content)
    began = time.perf_counter()
    for each in sent.sendings:
        contestant.make_durable(each.id)
    syncing = time.perf_counter() - began
    sending.forget(contestant.receiver, sent)
    for each in sent.sendings:
        contestant.discard(each.id)
    return Outcome(
        seconds=sent.seconds,
        durable_seconds=sent.seconds + syncing,
        cpu_seconds=usage.cpu_seconds,
        client_cpu_seconds=sent.client_cpu_seconds,
        peak_mib=next(iter(usage.peak_mib.values())),
    )


def _speeds(measured: dict[Load, Outcomes]) -> Table:
    rows = []
    for load, outcomes in measured.items():
        ours = outcomes[OURS]
        row = [str(load), f"{_speed(load, [each.seconds for each in ours]):.0f}"]
        if TUS in outcomes:
            for theirs in (
                [each.seconds for each in outcomes[TUS]],
                [each.durable_seconds for each in outcomes[TUS]],
            ):
                ratio = Ratio.between(theirs, [each.seconds for each in ours])
                row += [f"{_speed(load, theirs):.0f}", str(ratio)]
        rows.append(row)
    headings = [
        "MiB/s",
        OURS,
        TUS,
        "times as fast (range)",
        f"{TUS}, then synced",
        "times as fast (range)",
    ]
    return Table(headings=headings[: len(rows[0])], rows=rows)


def _cost_of_small_chunks(measured: dict[Load, Outcomes]) -> str:
    """Compare chunks of 1 MiB with chunks of 8 MiB of the same round."""
    ratios = {
        name: Ratio.between(
            [each.seconds for each in measured[LARGE_CHUNKS][name]],
            [each.seconds for each in measured[SMALL_CHUNKS][name]],
        )
        for name in measured[SMALL_CHUNKS]
    }
    ratios_text = " and ".join(f"{name} is {ratio} times" for name, ratio in ratios.items())
    return f"In chunks of 1 MiB, {ratios_text} as fast as in chunks of 8 MiB."


def _costs(measured: dict[Load, Outcomes]) -> Table:
    rows = []
    for load, outcomes in measured.items():
        for name, its_outcomes in outcomes.items():
            cpu = " + ".join(
                f"{median(each.cpu_seconds[process] for each in its_outcomes) / load.total_mib * 1024:.1f} {process}"
                for process in its_outcomes[0].cpu_seconds
            )
            client = median(each.client_cpu_seconds / each.seconds for each in its_outcomes)
            peak = max(each.peak_mib for each in its_outcomes)
            rows.append([f"{name}: {load}", f"{peak:.0f} MiB", cpu, f"{client:.0%}"])
    return Table(
        title="Cost",
        headings=["server", "peak RSS", "CPU seconds per GiB", "CPU of the client"],
        rows=rows,
    )


def _speed(load: Load, seconds: Sequence[float]) -> float:
    return load.total_mib / median(seconds)


def _plot(measured: dict[Load, Outcomes], *, to: Path) -> None:
    times: dict[str, dict[Load, list[float]]] = {OURS: {}, f"{TUS}, then synced": {}, TUS: {}}
    for load, outcomes in measured.items():
        times[OURS][load] = [each.seconds for each in outcomes[OURS]]
        if TUS in outcomes:
            times[TUS][load] = [each.seconds for each in outcomes[TUS]]
            times[f"{TUS}, then synced"][load] = [each.durable_seconds for each in outcomes[TUS]]
    plots.bars(
        Bars(
            title="Receiving files (higher is better)",
            unit="MiB/s",
            groups=[plots.two_lines(str(load)) for load in measured],
            series={
                name: [[load.total_mib / each for each in seconds] for load, seconds in of.items()]
                for name, of in times.items()
                if of
            },
            ours=(OURS,),
        ),
        to=to,
    )
