"""One supervised process."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dev.stack import ownership, specification
from dev.stack.errors import ProcessKeepsDying, ProcessNotReady
from dev.stack.execution import Execution
from dev.stack.specification import ProcessSpec, Report
from dev.stack.state import ProcessRecord, ProcessState

BETWEEN_PROBES: Final = timedelta(seconds=0.1)
DEATHS_ALLOWED: Final = 5
# PostgreSQL's and Celery's children end when they lose their parent.
ORPHAN_GRACE: Final = timedelta(seconds=1)
RUNNING: Final = frozenset({ProcessState.STARTING, ProcessState.READY})


class SupervisedProcess:
    """Starts a process, and restarts it when it dies unexpectedly.

    Belongs to one event loop. The process leads its own session, so that its children can be
    found and ended with it.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        log_file: Path,
        execution: Execution,
        on_change: Callable[[], None],
        report: Report,
    ) -> None:
        self.spec = spec
        self.log_file = log_file
        self.state = ProcessState.STOPPED
        self.pid: int | None = None
        self.restarts = 0
        self._started: int | None = None
        self._failures = 0  # deaths in a row
        self._exit_code: int | None = None
        self._execution = execution
        self._on_change = on_change
        self._report = report
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    def record(self) -> ProcessRecord:
        return ProcessRecord(
            pid=self.pid,
            started=self._started,
            state=self.state,
            restarts=self.restarts,
            stop_signal=self.spec.stop_signal,
            log_file=str(self.log_file),
        )

    def start(self) -> None:
        if self._runner is None or self._runner.done():
            self._failures = 0
            self._stopping = asyncio.Event()
            self._runner = asyncio.create_task(self._keep_running(), name=self.spec.name)

    async def wait_ready(self, *, max_wait: timedelta | None = None) -> None:
        """Wait until the process, or its successor, is ready.

        Raises:
            ProcessKeepsDying: it died several times in a row.
            ProcessNotReady: it is alive but did not become ready in time.
        """
        max_wait = max_wait or self.spec.start_timeout
        try:
            async with asyncio.timeout(max_wait.total_seconds()):
                while self.state is not ProcessState.READY:
                    if self._failures >= DEATHS_ALLOWED:
                        raise ProcessKeepsDying(
                            self.spec.name,
                            deaths=self._failures,
                            exit_code=self._exit_code,
                            log_file=self.log_file,
                        )
                    await self._changed.wait()
        except TimeoutError:
            raise ProcessNotReady(self.spec.name, waited=max_wait, log_file=self.log_file) from None

    async def kill(self) -> None:
        """Send SIGKILL, as the kernel does when memory runs out; the process is restarted.

        Returns when the death is on record, so that a later `wait_ready` waits for the successor.
        """
        victim = self.pid
        self.signal(signal.SIGKILL)
        while self.pid == victim and self.state in RUNNING:
            await self._changed.wait()

    async def halt(self) -> None:
        """Send SIGKILL; the process stays down until `start`."""
        self._stopping.set()
        self.signal(signal.SIGKILL)
        await self._ended()

    async def stop(self) -> None:
        """Stop the process in an orderly way, with SIGKILL after its grace period; it stays down."""
        self._stopping.set()
        try:
            async with asyncio.timeout(self.spec.stop_grace.total_seconds()):
                if self.state in RUNNING:
                    self._become(ProcessState.STOPPING)
                    try:
                        if self.spec.before_stop is not None:
                            await self.spec.before_stop()
                    finally:
                        self.signal(self.spec.stop_signal)
                await self._ended()
        except TimeoutError:
            grace = self.spec.stop_grace.total_seconds()
            self._report(f"{self.spec.name} did not stop within {grace:.0f} s: killing it")
            self.signal(signal.SIGKILL)
            await self._ended()

    def signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self._started is not None:
            process = ownership.find(self.pid, started=self._started)
            if process is not None:
                process.send_signal(number)

    async def _ended(self) -> None:
        if self._runner is not None:
            await asyncio.shield(self._runner)

    async def _keep_running(self) -> None:
        while not self._stopping.is_set():
            await self._run_once()
            if self._stopping.is_set():
                break
            delay = specification.restart_delay(self._failures).total_seconds()
            self._report(
                f"{self.spec.name} died (exit code {self._exit_code}); restarting in {delay:.1f} s"
            )
            with suppress(TimeoutError):  # the usual end of the wait
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
        self._become(ProcessState.STOPPED)

    async def _run_once(self) -> None:
        began = datetime.now(UTC)
        with self.log_file.open("ab") as log:
            child = await self._execution.start(self.spec, log=log)
        self.pid = child.pid
        self._started = ownership.start_ticks(child.pid)
        self._become(ProcessState.STARTING)
        readiness = asyncio.create_task(self._await_readiness(began))
        try:
            self._exit_code = await child.wait()
        finally:
            readiness.cancel()
        self.pid = self._started = None
        if not self._stopping.is_set():
            self.restarts += 1
            self._failures += 1
            self._become(ProcessState.WAITING)
        await asyncio.to_thread(_end_session, child.pid)

    async def _await_readiness(self, began: datetime) -> None:
        while not await self.spec.is_ready(began):  # noqa: ASYNC110  # the readiness of another process raises no event here
            await asyncio.sleep(BETWEEN_PROBES.total_seconds())
        self._failures = 0
        if self.state is ProcessState.STARTING:
            self._become(ProcessState.READY)

    def _become(self, state: ProcessState) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()


def _end_session(session_id: int) -> None:
    orphans = ownership.in_session(session_id)
    ownership.kill(ownership.wait_until_gone(orphans, timeout=ORPHAN_GRACE))
