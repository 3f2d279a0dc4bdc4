"""Checks whether new uploads can be staged."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from gateway.staging.backends import Staging

PROBE_TIMEOUT: Final = timedelta(seconds=2)
"""Shorter than the usual timeout of a health check, so that the check reads the reason."""


@dataclass(frozen=True, kw_only=True)
class StagingHealth:
    """What a probe found.

    Attributes:
        check: `ok` or the problem.
        used_percent: of the staging disk; None if the bytes are in the bucket or unknown.
    """

    check: str
    used_percent: int | None = None


class StagingProbe:
    """Asks staging whether it can be written to; at most one call runs at a time.

    A call to a disk that hangs cannot be cancelled: it keeps its thread until the disk
    answers. Probes that overlap share one call.
    """

    def __init__(self, staging: Staging, *, timeout: timedelta) -> None:
        self._staging = staging
        self._timeout = timeout
        self._call: asyncio.Task[StagingHealth] | None = None

    async def ask(self) -> StagingHealth:
        """Return the state of staging, within the timeout."""
        # A local variable: while this probe waits, another probe may replace a finished call.
        call = self._call
        if call is None or call.done():
            call = self._call = asyncio.create_task(self._look())
        # `wait` does not cancel the call when the time is up; `asyncio.timeout` would cancel the
        # call, and would still wait for the thread.
        finished, _ = await asyncio.wait([call], timeout=self._timeout.total_seconds())
        if not finished:
            return StagingHealth(check="not answering")
        return call.result()

    async def _look(self) -> StagingHealth:
        backend = self._staging.primary
        if not await backend.is_writable():
            return StagingHealth(check="not writable")
        try:
            disk = await backend.disk()
        except OSError as error:
            return StagingHealth(check=f"unreadable ({type(error).__name__})")
        if disk is None:
            return StagingHealth(check="ok")
        return StagingHealth(check="full" if disk.is_full else "ok", used_percent=disk.used_percent)
