"""Waits until a job is settled, or streams the changes of the job."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Final

import structlog
from litestar import Response
from litestar.params import QueryParameter
from litestar.types import Receive

from gateway.context import ApiRequest, Context
from gateway.http import prefer, revalidation, sse
from gateway.http.disconnect import on_disconnect
from gateway.job_watch import JobDeleted, JobWait, Snapshot
from gateway.jobs.queries import JobNotFound
from schemas.api.jobs import JobView
from schemas.ids import ApiKeyId

log = structlog.stdlib.get_logger(__name__)

POLL_AFTER_SECONDS: Final = 1

UNKNOWN_REVISION: Final = 0
"""Less than every revision: the job is read once when the wait begins."""

Wait = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=2**31 - 1,
        description="seconds to hold the request until the job settles; capped by the server",
    ),
]


@dataclass(frozen=True, kw_only=True)
class JobAnswer:
    """The answer after the wait that the client prefers: job, status code and headers."""

    job: JobView
    status_code: HTTPStatus
    headers: dict[str, str]


async def answer_of(created: JobView, *, request: ApiRequest) -> JobAnswer:
    """Wait as long as the client prefers, or as long as the settings say.

    The work of the request is committed: if too many requests of the API key wait, the answer comes
    at once.
    """
    context = request.context
    settings = context.settings
    job = Snapshot(revision=UNKNOWN_REVISION, job=created)
    preferences = prefer.preferences_of(request.headers.getall("prefer", []))
    may_wait = context.key_waits.has_room(request.user.key_id)
    wait, applied = timedelta(), []
    if preferences.wait is not None:
        wait = min(preferences.wait, settings.wait_max)
    elif not settings.uploads_async_enabled and not preferences.respond_async:
        wait = settings.sync_wait_max
    if may_wait:
        job = await settled_within(wait, job=job, request=request)
    is_settled = bool(wait) and job.is_settled
    if preferences.respond_async and not is_settled:
        applied.append("respond-async")
    if preferences.wait is not None and may_wait:
        applied.append(f"wait={int(wait.total_seconds())}")
    headers = {"Location": job.job.status_url}
    if applied:
        headers["Preference-Applied"] = ", ".join(applied)
    if not is_settled:
        headers["Retry-After"] = str(POLL_AFTER_SECONDS)
    return JobAnswer(
        job=job.job,
        status_code=HTTPStatus.OK if is_settled else HTTPStatus.ACCEPTED,
        headers=headers,
    )


async def polled(wait: int, *, job: Snapshot, request: ApiRequest) -> Response[JobView]:
    """Answer with the job once it is settled, or with its newest state after `wait` seconds.

    The answer is 304 if the client has that state.

    Raises:
        TooManyWaits: too many requests of the API key wait.
        InvalidRequest: a condition is malformed.
    """
    granted = min(timedelta(seconds=wait), request.context.settings.wait_max)
    if granted and not job.is_settled:
        request.context.key_waits.check(request.user.key_id)
    newest = await settled_within(granted, job=job, request=request)
    return revalidation.answer(request, newest.encoded)


async def settled_within(wait: timedelta, *, job: Snapshot, request: ApiRequest) -> Snapshot:
    """Return the job once it is settled, or its newest state when the wait ends."""
    if not wait or job.is_settled:
        return job
    context = request.context
    with (
        context.job_watch.waiting(job) as changes,
        context.key_waits.counted(request.user.key_id, end=changes.end),
    ):
        async with on_disconnect(request.receive, changes.end):
            return await until_settled(changes, job=job, wait_max=wait)


async def until_settled(changes: JobWait, *, job: Snapshot, wait_max: timedelta) -> Snapshot:
    """Return the job once it is settled, or its newest state when the wait ends.

    While the database is down the newest state is the last one that was read before.

    Raises:
        JobNotFound: the job was deleted.
    """
    log.debug("job.awaited", job_id=str(job.job.job_id), seconds=wait_max.total_seconds())
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_max.total_seconds()
    try:
        while newer := await changes.newer(within=timedelta(seconds=deadline - loop.time())):
            job = newer
            if job.is_settled:
                break
    except JobDeleted as error:
        raise JobNotFound(job.job.job_id) from error
    return job


def event_stream(
    job: Snapshot, *, seen: int, context: Context, key_id: ApiKeyId
) -> sse.EventStream:
    """Return an answer with the job as an event, now and at every change, until it is settled.

    Args:
        job: the job as the client's tenant has read it.
        seen: the revision that the client has; only later revisions are sent.
        context: of the process.
        key_id: the client's API key.
    """

    async def send_events(write: sse.Write, receive: Receive) -> None:
        log.debug("job.streamed", job_id=str(job.job.job_id), seen=seen)
        with (
            context.job_watch.waiting(job) as changes,
            context.key_waits.counted(key_id, end=changes.end),
        ):
            async with on_disconnect(receive, changes.end):
                await send_changes(changes, write, job=job, seen=seen)

    return sse.EventStream(send_events)


async def send_changes(
    changes: JobWait,
    write: sse.Write,
    *,
    job: Snapshot,
    seen: int,
    heartbeat: timedelta = sse.HEARTBEAT,
) -> None:
    """Write the job as an event, now and at every change, and comments in between.

    Each event is the newest state: states that a slow client misses are skipped. While the
    database is down there are only comments.
    """
    if job.revision > seen:
        await write(event_of(job))
    while not (job.is_settled or changes.is_ended):
        try:
            newer = await changes.newer(within=heartbeat)
        except JobDeleted:
            # The client reconnects, and the answer to that request is 404.
            return
        if newer is not None:
            job = newer
            await write(event_of(job))
        elif not changes.is_ended:
            await write(sse.COMMENT)


def event_of(snapshot: Snapshot) -> bytes:
    """Return a job as an event, named `progress` or, for a settled job, after the status."""
    name = snapshot.job.status if snapshot.is_settled else "progress"
    # The encoded JSON has no line breaks: those in strings are escaped.
    return sse.event(name, event_id=snapshot.revision, data=snapshot.encoded)
