"""Waits until a job is settled, or streams the changes of the job."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Final, TypeAlias

import msgspec
import structlog
from litestar.params import QueryParameter
from sqlalchemy.exc import SQLAlchemyError

from gateway.change_listener import JobChangeListener
from gateway.context import ApiRequest
from gateway.http import prefer, sse
from gateway.http.disconnect import disconnection_of
from gateway.jobs import queries
from gateway.jobs.queries import Snapshot
from schemas.api.jobs import JobView
from schemas.ids import JobId
from schemas.lifecycle import SETTLED_JOBS

log = structlog.stdlib.get_logger(__name__)

POLL_INTERVAL: Final = timedelta(seconds=1)
"""Longest delay of a waiting request when a notification is lost."""

STREAM_POLL_INTERVAL: Final = timedelta(seconds=5)
"""The same delay for a stream: longer, because each of many streams reads once per interval."""

POLL_AFTER_SECONDS: Final = 1

Wait = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=2**31 - 1,
        description="seconds to hold the request until the job settles; capped by the server",
    ),
]

Read: TypeAlias = Callable[[], Awaitable[Snapshot]]
"""Reads the job, in a transaction of its own."""


@dataclass(frozen=True, kw_only=True)
class JobAnswer:
    """The answer after the wait that the client prefers: job, status code and headers."""

    job: JobView
    status_code: HTTPStatus
    headers: dict[str, str]


async def answer_of(job: JobView, *, request: ApiRequest) -> JobAnswer:
    """Wait as long as the client prefers, or as long as the settings say."""
    settings = request.context.settings
    preferences = prefer.preferences_of(request.headers.getall("prefer", []))
    wait, applied = timedelta(), []
    if preferences.wait is not None:
        wait = min(preferences.wait, settings.wait_max)
    elif not settings.uploads_async_enabled and not preferences.respond_async:
        wait = settings.sync_wait_max
    job = await settled_within(wait, job=job, request=request)
    is_settled = bool(wait) and job.status in SETTLED_JOBS
    if preferences.respond_async and not is_settled:
        applied.append("respond-async")
    if preferences.wait is not None:
        applied.append(f"wait={int(wait.total_seconds())}")
    headers = {"Location": job.status_url}
    if applied:
        headers["Preference-Applied"] = ", ".join(applied)
    if not is_settled:
        headers["Retry-After"] = str(POLL_AFTER_SECONDS)
    return JobAnswer(
        job=job,
        status_code=HTTPStatus.OK if is_settled else HTTPStatus.ACCEPTED,
        headers=headers,
    )


async def settled_within(wait: timedelta, *, job: JobView, request: ApiRequest) -> JobView:
    """Return the job once it is settled, or its newest state when the wait ends."""
    if not wait or job.status in SETTLED_JOBS:
        return job
    async with disconnection_of(request) as disconnection:
        return await wait_until_settled(
            reader(request, job.job_id),
            request.context.job_changes,
            job_id=job.job_id,
            wait_max=wait,
            disconnection=disconnection,
        )


def reader(request: ApiRequest, job_id: JobId) -> Read:
    async def read() -> Snapshot:
        return await queries.snapshot_of(
            request.context.autocommit, tenant_id=request.user.tenant_id, job_id=job_id
        )

    return read


async def wait_until_settled(
    read: Read,
    listener: JobChangeListener,
    *,
    job_id: JobId,
    wait_max: timedelta,
    disconnection: asyncio.Future[None],
) -> JobView:
    """Return the job once it is settled, or its newest state when the wait ends."""
    log.debug("job.awaited", job_id=str(job_id), seconds=wait_max.total_seconds())
    async for _, newest in snapshots(
        read,
        listener,
        job_id=job_id,
        poll_interval=POLL_INTERVAL,
        wait_max=wait_max,
        disconnection=disconnection,
    ):
        job = newest
    return job


async def events(
    read: Read,
    listener: JobChangeListener,
    *,
    job_id: JobId,
    seen: int,
    poll_interval: timedelta = STREAM_POLL_INTERVAL,
) -> AsyncGenerator[bytes, None]:
    """Yield the job as an event, now and at every change, until it is settled.

    Each event is the newest state: states that a slow client misses are skipped.

    Args:
        read: reads the job.
        listener: reports changes.
        job_id: the job.
        seen: the revision that the client has; only later revisions are sent.
        poll_interval: the longest time without a read.
    """
    log.debug("job.streamed", job_id=str(job_id), seen=seen)

    async def read_in_turn() -> Snapshot:
        async with listener.stream_reads:
            return await read()

    changes = snapshots(read_in_turn, listener, job_id=job_id, poll_interval=poll_interval)
    try:
        async with aclosing(changes):
            async for revision, job in changes:
                if revision > seen:
                    seen = revision
                    yield event_of(job, revision=revision)
    except SQLAlchemyError as error:
        # The status is already sent. The client reconnects, and the answer to that request is the
        # error.
        log.warning("job.stream_broken", job_id=str(job_id), error=type(error).__name__)


async def snapshots(
    read: Read,
    listener: JobChangeListener,
    *,
    job_id: JobId,
    poll_interval: timedelta,
    wait_max: timedelta = timedelta.max,
    disconnection: asyncio.Future[None] | None = None,
) -> AsyncGenerator[Snapshot, None]:
    """Yield the job at once, and again whenever it may have changed.

    Ends once the job is settled, after `wait_max`, and when the client disconnects or the
    process stops.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_max.total_seconds()

    def must_end() -> bool:
        return listener.is_draining or (disconnection is not None and disconnection.done())

    with listener.changes_of(job_id) as changed:
        if disconnection is not None:
            disconnection.add_done_callback(lambda _: changed.set())
        while True:
            changed.clear()
            revision, job = await read()
            yield revision, job
            left = deadline - loop.time()
            if job.status in SETTLED_JOBS or left <= 0 or must_end():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, poll_interval.total_seconds())):
                    await changed.wait()
            # No last read: while the database is down, the streams of a stopping process would
            # wait for a connection, a few at a time.
            if must_end():
                return


def event_of(job: JobView, *, revision: int) -> bytes:
    """Return a job as an event, named `progress` or, for a settled job, after the status."""
    name = job.status if job.status in SETTLED_JOBS else "progress"
    # The encoded JSON has no line breaks: those in strings are escaped.
    return sse.event(name, event_id=revision, data=msgspec.json.encode(job))
