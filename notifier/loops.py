"""Runs the loops of a process side by side."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.stdlib.get_logger(__name__)


class LoopEnded(Exception):
    """A loop that must run for ever ended, so the process must end too."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the loop {name!r} ended")


async def run_together(**loops: Coroutine[Any, Any, None]) -> None:
    """Run loops side by side until cancelled; when one ends, cancel the others.

    Not a task group: a task group treats a loop whose task a library cancelled
    as finished and continues without it.
    """
    tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = ended.pop()
        raise LoopEnded(first.get_name()) from None if first.cancelled() else first.exception()
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for task, end in zip(tasks, ends, strict=True):
            if isinstance(end, Exception):
                log.error("process.loop_failed", loop=task.get_name(), exc_info=end)
