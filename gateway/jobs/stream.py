"""A job as Server-Sent Events: its state whenever it changes, until it is settled.

What is sent is always the newest state, never one of a list of changes: a slow
reader misses states in between and has nothing to catch up with.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeAlias

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from gateway.change_listener import JobChangeListener
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import SETTLED_JOBS

log = structlog.stdlib.get_logger(__name__)

MEDIA_TYPE: Final = "text/event-stream"

HEARTBEAT: Final = timedelta(seconds=15)
"""Proxies close what is silent for longer; often that is a minute, sometimes half of one."""

LOOK_AGAIN: Final = timedelta(seconds=5)
"""Longest time a notification that was lost goes unnoticed; each reader costs a look per such time."""

RETRY: Final = b"retry: 1000\n\n"
"""Milliseconds until a reader whose stream broke comes back."""

COMMENT: Final = b":\n\n"

WATCH_STOP: Final = timedelta(seconds=1)
"""Longest time until a stream notices that the process is about to stop."""

Snapshot: TypeAlias = tuple[int, JobView]
"""A job, and how often it had changed by then."""


async def events(
    look: Callable[[], Awaitable[Snapshot]],
    watch: JobChangeListener,
    *,
    job_id: JobId,
    seen: int,
    heartbeat: timedelta = HEARTBEAT,
    look_again: timedelta = LOOK_AGAIN,
) -> AsyncIterator[bytes]:
    """Yield the job at once and at every change, until it is settled or the process stops.

    Args:
        look: reads the job, in a transaction of its own.
        watch: says when looking is worth while.
        job_id: the job.
        seen: the revision the reader has; nothing is sent until there is a later one.
        heartbeat: the longest silence.
        look_again: the longest time without a look.
    """
    log.debug("job.streamed", job_id=str(job_id), seen=seen)
    loop = asyncio.get_running_loop()
    yield RETRY
    spoke_at = looked_at = loop.time()
    with watch.changes_of(job_id) as changed:
        changed.set()
        while not watch.is_draining:
            if changed.is_set() or loop.time() - looked_at >= look_again.total_seconds():
                changed.clear()
                try:
                    async with watch.looking:
                        revision, job = await look()
                except SQLAlchemyError as error:
                    # The reader comes back; in the middle of an answer it cannot be told why.
                    log.warning("job.stream_broken", job_id=str(job_id), error=type(error).__name__)
                    return
                looked_at = loop.time()
                if revision > seen:
                    seen = revision
                    yield event_of(job, revision=revision)
                    spoke_at = loop.time()
                if job.status in SETTLED_JOBS:
                    return
            if loop.time() - spoke_at >= heartbeat.total_seconds():
                yield COMMENT
                spoke_at = loop.time()
            patience = min(WATCH_STOP, heartbeat, look_again)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience.total_seconds()):
                    await changed.wait()


def event_of(job: JobView, *, revision: int) -> bytes:
    """Return a job as one event; it is named for its end, and `progress` before that."""
    name = job.status if job.status in SETTLED_JOBS else "progress"
    # JSON has no line breaks of its own, and those in strings are escaped.
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        revision,
        name.encode(),
        msgspec.json.encode(job),
    )
