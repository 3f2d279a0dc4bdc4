"""Writes `docs/benchmarks/README.md` from the last section of every benchmark."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from dev.bench import sections
from dev.bench.machine import Machine
from dev.bench.sections import Section
from dev.stack.checkout import CHECKOUT

DOCUMENTATION: Final = CHECKOUT / "docs" / "benchmarks"

INTRODUCTION: Final = """\
# Benchmarks

Written by `make bench`, with every figure and plot on this page.

The peers of a comparison alternate on the same machine, and the first one rotates from round to
round. Read the ratios ("times as fast": above 1 is faster than the peer), not the absolute
figures, which depend on the machine. A ratio compares values of the same round; the table shows
the median of the rounds and the range.
"""


def keep(section: Section, *, name: str, directory: Path) -> None:
    """Store a section, so that the page can be written after any single benchmark."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_bytes(msgspec.json.encode(section))


def kept(names: Sequence[str], *, directory: Path) -> list[Section]:
    """Return the stored sections in the order of `names`."""
    files = [directory / f"{name}.json" for name in names]
    return [msgspec.json.decode(file.read_bytes(), type=Section) for file in files if file.exists()]


def publish(every: Sequence[Section], *, machine: Machine, plots: Path, to: Path) -> Path:
    """Write the page and copy its plots next to it; return the page's path."""
    to.mkdir(parents=True, exist_ok=True)
    for section in every:
        for plot in section.plots:
            shutil.copyfile(plots / plot, to / plot)
    page = to / "README.md"
    page.write_text(compose(every, machine=machine))
    return page


def compose(every: Sequence[Section], *, machine: Machine) -> str:
    parts = [INTRODUCTION, f"Machine: {machine}.\n", *map(sections.as_markdown, every)]
    return "\n".join(parts)
