"""How much memory processes take while something happens, above what they take at rest."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

import psutil

INTERVAL: Final = 0.05
MIB: Final = 1024 * 1024


def resident(pid: int) -> int:
    """Return the resident memory of the largest process in a tree, in bytes.

    Forked workers share pages, so a sum would count those many times.
    """
    root = psutil.Process(pid)
    sizes = []
    for process in (root, *root.children(recursive=True)):
        try:
            sizes.append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return max(sizes)


class Growth:
    """Largest growth over the idle size seen so far, by process name, in MiB."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._idle = {name: resident(pid) for name, pid in pids.items()}
        self.mib = dict.fromkeys(pids, 0.0)

    def sample(self) -> None:
        for name, pid in self._pids.items():
            grown = (resident(pid) - self._idle[name]) / MIB
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
