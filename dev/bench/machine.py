"""The machine and the peers' versions, for the page."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from typing import Self

import psutil

from dev.bench.usage import MIB


@dataclass(frozen=True, kw_only=True)
class Machine:
    cores: int
    memory_mib: int
    python: str

    @classmethod
    def here(cls) -> Self:
        return cls(
            cores=psutil.cpu_count() or 1,
            memory_mib=psutil.virtual_memory().total // MIB,
            python=platform.python_version(),
        )

    def __str__(self) -> str:
        return (
            f"{self.cores} processor cores, {round(self.memory_mib / 1024)} GiB of memory,"
            f" Python {self.python}; everything on this one machine, over loopback"
        )


def versions_of(*distributions: str) -> dict[str, str]:
    return {name: version(name) for name in distributions}


def printed_version(*command: str) -> str | None:
    """Return the version that a program prints; None if it is not installed."""
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return result.stdout.strip().removeprefix("v").partition("-")[0]
