"""The table of benchmarks, at full size and as a smoke test."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from dev.bench import (
    batches,
    endurance,
    exports,
    fairness,
    ingest,
    jobs,
    lanes,
    memory,
    reading,
    recognition,
    requests,
    retention,
    retrieval,
    scale,
    search,
    servers,
    small,
    stalled,
    stream,
    tables,
    transfer,
    waits,
    wakeup,
    webhook_isolation,
    webhook_rate,
)
from dev.bench.sections import Section
from dev.bench.system import System


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    full: Callable[[System], Section]
    quick: Callable[[System], Section]


BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "ingest": Benchmark(
        full=partial(ingest.run, rounds=3, loads=ingest.LOADS),
        quick=partial(ingest.run, rounds=1, loads=ingest.QUICK_LOADS),
    ),
    "servers": Benchmark(
        full=partial(servers.run, extent=servers.FULL),
        quick=partial(servers.run, extent=servers.QUICK),
    ),
    "transfer": Benchmark(
        full=partial(transfer.run, extent=transfer.FULL),
        quick=partial(transfer.run, extent=transfer.QUICK),
    ),
    "memory": Benchmark(
        full=partial(memory.run, sizes=memory.SIZES),
        quick=partial(memory.run, sizes=memory.QUICK_SIZES),
    ),
    "reading": Benchmark(
        full=partial(reading.run, extent=reading.FULL),
        quick=partial(reading.run, extent=reading.QUICK),
    ),
    "recognition": Benchmark(
        full=partial(recognition.run, pages=4, rounds=3),
        quick=partial(recognition.run, pages=1, rounds=1),
    ),
    "tables": Benchmark(
        full=partial(tables.run, documents_max=None),
        quick=partial(tables.run, documents_max=3),
    ),
    "endurance": Benchmark(
        full=partial(endurance.run, extent=endurance.FULL),
        quick=partial(endurance.run, extent=endurance.QUICK),
    ),
    "lanes": Benchmark(
        full=partial(lanes.run, extent=lanes.FULL),
        quick=partial(lanes.run, extent=lanes.QUICK),
    ),
    "requests": Benchmark(
        full=partial(requests.run, extent=requests.FULL),
        quick=partial(requests.run, extent=requests.QUICK),
    ),
    "small": Benchmark(
        full=partial(small.run, count=1_000),
        quick=partial(small.run, count=40),
    ),
    "wakeup": Benchmark(
        full=partial(wakeup.run, rounds=100),
        quick=partial(wakeup.run, rounds=5),
    ),
    "waits": Benchmark(
        full=partial(waits.run, extent=waits.FULL),
        quick=partial(waits.run, extent=waits.QUICK),
    ),
    "stream": Benchmark(
        full=partial(stream.run, extent=stream.FULL),
        quick=partial(stream.run, extent=stream.QUICK),
    ),
    "stalled": Benchmark(
        full=partial(stalled.run, extent=stalled.FULL),
        quick=partial(stalled.run, extent=stalled.QUICK),
    ),
    "fairness": Benchmark(
        full=partial(fairness.run, extent=fairness.FULL),
        quick=partial(fairness.run, extent=fairness.QUICK),
    ),
    "webhook_rate": Benchmark(
        full=partial(webhook_rate.run, extent=webhook_rate.FULL),
        quick=partial(webhook_rate.run, extent=webhook_rate.QUICK),
    ),
    "webhook_isolation": Benchmark(
        full=partial(webhook_isolation.run, extent=webhook_isolation.FULL),
        quick=partial(webhook_isolation.run, extent=webhook_isolation.QUICK),
    ),
    "exports": Benchmark(
        full=partial(exports.run, extent=exports.FULL),
        quick=partial(exports.run, extent=exports.QUICK),
    ),
    "batches": Benchmark(
        full=partial(batches.run, extent=batches.FULL),
        quick=partial(batches.run, extent=batches.QUICK),
    ),
    "jobs": Benchmark(
        full=partial(jobs.run, extent=jobs.FULL),
        quick=partial(jobs.run, extent=jobs.QUICK),
    ),
    "retention": Benchmark(
        full=partial(retention.run, extent=retention.FULL),
        quick=partial(retention.run, extent=retention.QUICK),
    ),
    "retrieval": Benchmark(
        full=partial(retrieval.run, external=True),
        quick=partial(retrieval.run, external=False),
    ),
    "search": Benchmark(
        full=partial(search.run, extent=search.FULL),
        quick=partial(search.run, extent=search.QUICK),
    ),
    "scale": Benchmark(
        full=partial(scale.run, extent=scale.FULL),
        quick=partial(scale.run, extent=scale.QUICK),
    ),
}
