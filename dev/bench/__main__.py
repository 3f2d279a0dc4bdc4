"""Runs benchmarks on their own system under `var/bench`.

The page in docs/benchmarks is written when every benchmark has run on this machine; later a
single benchmark renews its section. With --quick the page stays unchanged.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console

from dev.bench import page, sections
from dev.bench.suite import BENCHMARKS
from dev.bench.system import System
from dev.stack.checkout import CHECKOUT


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description=__doc__)
    parser.add_argument(
        "benchmarks", nargs="*", metavar="benchmark", help=f"{', '.join(BENCHMARKS)}; or all"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, as a smoke test")
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=CHECKOUT / "var" / "bench",
        help="on the disk to measure (var/bench)",
    )
    parser.add_argument(
        "--questions", type=Path, help="JSON list of questions for the benchmark retrieval"
    )
    parser.add_argument(
        "--documents",
        type=Path,
        nargs="+",
        default=(),
        help="directories of the PDFs that the questions and tables are about",
    )
    parser.add_argument(
        "--tables",
        type=Path,
        help="directory with the ground truth of the ICDAR 2013 table competition (*-str.xml)",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    chosen = arguments.benchmarks or list(BENCHMARKS)
    state_dir: Path = arguments.state_dir.resolve()
    results = state_dir / ("quick" if arguments.quick else "results")
    # Without a terminal, rich would fold tables to 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    with System.running(state_dir, plots=results, report=console.print) as system:
        system.questions, system.documents = arguments.questions, arguments.documents
        system.tables = arguments.tables
        for name in chosen:
            began = time.monotonic()
            benchmark = BENCHMARKS[name]
            section = (benchmark.quick if arguments.quick else benchmark.full)(system)
            console.print(sections.for_terminal(section))
            console.print(f"({name} took {time.monotonic() - began:.0f} s)")
            page.keep(section, name=name, directory=results)
        console.print(
            f"kept in {results}" if arguments.quick else _publish(system, results=results)
        )
    return 0


def _publish(system: System, *, results: Path) -> str:
    kept = page.kept(list(BENCHMARKS), directory=results)
    if len(kept) < len(BENCHMARKS):
        return "docs/benchmarks is unchanged: not every benchmark has run here yet"
    written = page.publish(kept, machine=system.machine, plots=results, to=page.DOCUMENTATION)
    return f"written: {written.relative_to(CHECKOUT)}"


if __name__ == "__main__":
    sys.exit(main())
