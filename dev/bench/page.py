"""`docs/benchmarks/README.md`, put together from what every benchmark said last."""

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

Written by `make bench`; every figure and plot on this page comes out of it.

The peers of a comparison run on the same machine in the same minutes, taking turns,
and each round another one goes first. What counts are the ratios ("times as fast": above
1 is faster than the peer). They are taken within a round, and the median of the rounds
is given with its range, because absolute figures say more about a machine than about a
program.
"""


def keep(section: Section, *, name: str, directory: Path) -> None:
    """Remember a section, so that the page can be written after any single benchmark."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_bytes(msgspec.json.encode(section))


def kept(names: Sequence[str], *, directory: Path) -> list[Section]:
    """Return the sections that are there, in this order."""
    files = [directory / f"{name}.json" for name in names]
    return [msgspec.json.decode(file.read_bytes(), type=Section) for file in files if file.exists()]


def publish(every: Sequence[Section], *, machine: Machine, plots: Path, to: Path) -> Path:
    """Write the page, with the plots it shows next to it; return where it is."""
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
