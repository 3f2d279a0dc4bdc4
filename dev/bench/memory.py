"""How much memory processes take while something happens, above what they take at rest."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Final

import psutil

INTERVAL: Final = 0.05
MIB: Final = 1024 * 1024


def resident(pid: int) -> dict[int, int]:
    """Return the resident memory of every process in a tree, in bytes, by pid.

    Apart, because forked workers share pages and a sum would count those many times.
    """
    root = psutil.Process(pid)
    sizes = {}
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            sizes[process.pid] = process.memory_info().rss
    return sizes


class Growth:
    """Largest growth of any one process over its idle size seen so far, by name, in MiB."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._idle = {name: resident(pid) for name, pid in pids.items()}
        self.mib = dict.fromkeys(pids, 0.0)

    def sample(self) -> None:
        for name, pid in self._pids.items():
            idle = self._idle[name]
            for each, size in resident(pid).items():
                grown = (size - idle.setdefault(each, size)) / MIB
                self.mib[name] = max(self.mib[name], grown)


@contextmanager
def watched(pids: Mapping[str, int]) -> Iterator[Growth]:
    """Sample processes twenty times a second while the block runs."""
    growth, ended = Growth(pids), Event()

    def sample() -> None:
        while not ended.wait(INTERVAL):
            growth.sample()

    sampler = Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield growth
    finally:
        ended.set()
        sampler.join()
