"""Checks whether new uploads can be staged."""

import asyncio
from datetime import timedelta
from typing import Final

from gateway.staging.backends import Staging

PROBE_TIMEOUT: Final = timedelta(seconds=2)
"""Shorter than the usual timeout of a health check, so that the check reads the reason."""


class StagingProbe:
    """Asks staging whether it can be written to; at most one call runs at a time.

    A call to a disk that hangs cannot be cancelled: it keeps its thread until the disk
    answers. Probes that overlap share one call.
    """

    def __init__(self, staging: Staging, *, timeout: timedelta) -> None:
        self._staging = staging
        self._timeout = timeout
        self._call: asyncio.Task[bool] | None = None

    async def ask(self) -> str:
        """Return `ok` or the problem, within the timeout."""
        # A local variable: while this probe waits, another probe may replace a finished call.
        call = self._call
        if call is None or call.done():
            call = self._call = asyncio.create_task(self._staging.primary.is_writable())
        # `wait` does not cancel the call when the time is up; `asyncio.timeout` would cancel the
        # call, and would still wait for the thread.
        finished, _ = await asyncio.wait([call], timeout=self._timeout.total_seconds())
        if not finished:
            return "not answering"
        return "ok" if call.result() else "not writable"
