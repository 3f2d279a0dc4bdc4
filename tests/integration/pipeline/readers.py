"""The reader processes of workers."""

import psutil

from tests.integration.pipeline.workbench import Workbench


def readers_of(bench: Workbench, service: str) -> list[psutil.Process]:
    """Return the reader processes of a worker: the children of its pool's processes."""
    pid = bench.system.processes[service].pid
    assert pid is not None
    return [child for process in psutil.Process(pid).children() for child in process.children()]


def is_any_at_work(processes: list[psutil.Process]) -> bool:
    """Return whether a process computes; a reader without a request sleeps."""
    return any(
        process.is_running() and process.status() == psutil.STATUS_RUNNING for process in processes
    )
