"""Runs the processes of one state directory and writes down which they are."""

import asyncio
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

from dev.stack import leftovers, ownership, state
from dev.stack.errors import ProcessDidNotEnd, ProgramMissing, StackAlreadyRunning
from dev.stack.specification import ProcessSpec, Report
from dev.stack.state import Phase, StackRecord, SupervisorRecord
from dev.stack.supervised import SupervisedProcess


class Supervisor:
    """Keeps processes running until it is told to stop them, the last started first.

    There is one per state directory: a lock, which the kernel drops with the process
    that holds it, sees to that.
    """

    def __init__(self, state_dir: Path, *, stack_id: str, report: Report) -> None:
        self.state_dir = state_dir
        self.processes: dict[str, SupervisedProcess] = {}
        self._stack_id = stack_id
        self._report = report
        self._phase = Phase.STARTING
        self._started_together: list[list[SupervisedProcess]] = []
        self._own_start = ownership.start_ticks(os.getpid()) or 0

    async def start(self, *specs: ProcessSpec) -> None:
        """Start processes side by side and wait until all of them are ready."""
        batch = [self._add(spec) for spec in specs]
        self._started_together.append(batch)
        for process in batch:
            process.start()
        async with asyncio.TaskGroup() as waiting:
            for process in batch:
                waiting.create_task(process.wait_ready())

    async def stop(self) -> None:
        """Stop everything in reverse order and make sure that nothing of it is left.

        Raises:
            ProcessDidNotEnd: something survived SIGKILL.
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
        immortal = await asyncio.to_thread(
            ownership.wait_until_gone, strays, patience=leftovers.AFTER_KILL
        )
        if immortal:
            raise ProcessDidNotEnd([f"{process.name()} ({process.pid})" for process in immortal])
        state.clear(self.state_dir)
        if failures:  # after everything else was stopped all the same
            raise failures[0]

    async def enter(self, phase: Phase) -> None:
        """Write the phase down; on the loop, where every other change is written too."""
        self._phase = phase
        self._write_state()

    def _add(self, spec: ProcessSpec) -> SupervisedProcess:
        log_dir = self.state_dir / "log"
        log_dir.mkdir(parents=True, exist_ok=True)
        log_file = log_dir / f"{spec.name}.log"
        if log_file.exists():  # one run, one file; the last run's stays readable
            log_file.replace(log_dir / f"{spec.name}.log.1")
        process = SupervisedProcess(
            spec, log_file=log_file, on_change=self._write_state, report=self._report
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
    """Take the state directory for this process; closing the returned file gives it back.

    Whatever a killed supervisor left running there is ended first.

    Raises:
        StackAlreadyRunning: a living process holds it.
        ProgramMissing: ``setpriv`` is not there.
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
