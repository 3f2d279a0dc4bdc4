"""Runs the processes of one state directory and records them."""

import asyncio
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

from dev.stack import leftovers, ownership, state
from dev.stack.errors import ProcessDidNotEnd, ProgramMissing, StackAlreadyRunning
from dev.stack.execution import Execution
from dev.stack.specification import ProcessSpec, Report
from dev.stack.state import Phase, StackRecord, SupervisorRecord
from dev.stack.supervised import SupervisedProcess


class Supervisor:
    """Keeps processes running; stops them in reverse order of their start.

    A file lock allows one supervisor for each state directory. The kernel releases the lock
    when its holder dies.
    """

    def __init__(
        self, state_dir: Path, *, stack_id: str, execution: Execution, report: Report
    ) -> None:
        self.state_dir = state_dir
        self.processes: dict[str, SupervisedProcess] = {}
        self._stack_id = stack_id
        self._execution = execution
        self._report = report
        self._phase = Phase.STARTING
        self._started_together: list[list[SupervisedProcess]] = []
        self._own_start = ownership.start_ticks(os.getpid()) or 0

    async def start(self, *specs: ProcessSpec) -> None:
        """Start processes concurrently and wait until all of them are ready."""
        batch = [self._add(spec) for spec in specs]
        self._started_together.append(batch)
        for process in batch:
            process.start()
        async with asyncio.TaskGroup() as waiting:
            for process in batch:
                waiting.create_task(process.wait_ready())

    async def stop(self) -> None:
        """Stop everything in reverse order and kill every remaining process of the stack.

        Raises:
            ProcessDidNotEnd: a process survived SIGKILL.
        """
        await self.enter(Phase.STOPPING)
        failures: list[BaseException] = []
        for together in reversed(self._started_together):
            began = time.monotonic()
            stopping = (process.stop() for process in together)
            outcomes = await asyncio.gather(*stopping, return_exceptions=True)
            failures.extend(each for each in outcomes if isinstance(each, BaseException))
            names = ", ".join(process.spec.name for process in together)
            self._report(f"{names} stopped after {time.monotonic() - began:.1f} s")
        strays = await asyncio.to_thread(ownership.marked, self._stack_id)
        ownership.kill(strays)
        remaining = await asyncio.to_thread(
            ownership.wait_until_gone, strays, timeout=leftovers.AFTER_KILL
        )
        if remaining:
            raise ProcessDidNotEnd([f"{process.name()} ({process.pid})" for process in remaining])
        state.clear(self.state_dir)
        if failures:  # everything else has been stopped
            raise failures[0]

    async def enter(self, phase: Phase) -> None:
        """Record the phase; on the event loop, as every other change."""
        self._phase = phase
        self._write_state()

    def _add(self, spec: ProcessSpec) -> SupervisedProcess:
        log_dir = self.state_dir / "log"
        log_dir.mkdir(parents=True, exist_ok=True)
        log_file = log_dir / f"{spec.name}.log"
        if log_file.exists():  # one file for each run; the log of the last run stays readable
            log_file.replace(log_dir / f"{spec.name}.log.1")
        process = SupervisedProcess(
            spec,
            log_file=log_file,
            execution=self._execution,
            on_change=self._write_state,
            report=self._report,
        )
        self.processes[spec.name] = process
        return process

    def _write_state(self) -> None:
        state.save(
            self.state_dir,
            StackRecord(
                boot_id=ownership.boot_id(),
                stack_id=self._stack_id,
                phase=self._phase,
                supervisor=SupervisorRecord(pid=os.getpid(), started=self._own_start),
                processes={name: process.record() for name, process in self.processes.items()},
            ),
        )


def lock(state_dir: Path) -> IO[str]:
    """Lock the state directory; closing the returned file releases it.

    Processes left by a killed supervisor are ended.

    Raises:
        StackAlreadyRunning: another process holds the lock.
        ProgramMissing: `setpriv` is not installed.
    """
    if shutil.which("setpriv") is None:
        raise ProgramMissing("setpriv", remedy="apt-get install util-linux")
    state_dir.mkdir(parents=True, exist_ok=True)
    holder = (state_dir / "stack.lock").open("w")
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder.close()
        record = state.load(state_dir)
        pid = record.supervisor.pid if record else None
        raise StackAlreadyRunning(state_dir, pid=pid) from None
    leftovers.end(state_dir)
    return holder
