"""Measures memory and processor time of processes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Final

import psutil

INTERVAL: Final = 0.05
# A search for children reads every process of the machine, so it is done less often.
SAMPLES_PER_SEARCH: Final = 20
MIB: Final = 1024 * 1024


class Tree:
    """A process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._processes: list[psutil.Process] = []
        self.search()

    def search(self) -> None:
        """Find descendants that have started since the last search."""
        with suppress(psutil.NoSuchProcess):
            self._processes = [self._root, *self._root.children(recursive=True)]

    def resident(self) -> dict[int, int]:
        """Return the resident memory of each process, in bytes, by pid."""
        sizes = {}
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                sizes[process.pid] = process.memory_info().rss
        return sizes

    def cpu_seconds(self) -> float:
        """Return the processor time of all processes, including ended children."""
        total = 0.0
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])
        return total


class Usage:
    """Usage of process trees, by name, since the creation of this object."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._trees = {name: Tree(pid) for name, pid in pids.items()}
        self._idle = {name: tree.resident() for name, tree in self._trees.items()}
        self._cpu_before = {name: tree.cpu_seconds() for name, tree in self._trees.items()}
        self.cpu_seconds = dict.fromkeys(pids, 0.0)
        self.peak_mib = dict.fromkeys(pids, 0.0)
        """The largest sum over a tree. Pages shared by forked workers count several times."""
        self.largest_mib = dict.fromkeys(pids, 0.0)
        """The largest size of a single process."""
        self.grown_mib = dict.fromkeys(pids, 0.0)
        """The largest growth of a single process since the beginning."""
        self._samples = 0

    def sample(self) -> None:
        self._samples += 1
        for name, tree in self._trees.items():
            if self._samples % SAMPLES_PER_SEARCH == 0:
                tree.search()
            sizes = tree.resident()
            self.peak_mib[name] = max(self.peak_mib[name], sum(sizes.values()) / MIB)
            largest = max(sizes.values(), default=0) / MIB
            self.largest_mib[name] = max(self.largest_mib[name], largest)
            for pid, size in sizes.items():
                grown = (size - self._idle[name].setdefault(pid, size)) / MIB
                self.grown_mib[name] = max(self.grown_mib[name], grown)

    def finish(self) -> None:
        self.sample()
        for name, tree in self._trees.items():
            tree.search()
            self.cpu_seconds[name] = tree.cpu_seconds() - self._cpu_before[name]


@contextmanager
def watched(pids: Mapping[str, int]) -> Iterator[Usage]:
    """Sample processes twenty times a second while the block runs."""
    usage, ended = Usage(pids), Event()

    def sample() -> None:
        while not ended.wait(INTERVAL):
            usage.sample()

    sampler = Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield usage
    finally:
        ended.set()
        sampler.join()
        usage.finish()
