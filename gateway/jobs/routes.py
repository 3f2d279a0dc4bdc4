"""`/upload`, `/jobs` and the status of an upload."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Final

from litestar import Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, FromQuery, HeaderParameter, QueryParameter
from litestar.response import Stream

from gateway.context import ApiRequest
from gateway.http import paging, request_log
from gateway.http.paging import CreatedPosition
from gateway.http.problems import answers
from gateway.http.security import requires
from gateway.jobs import operations, queries, stream
from schemas.api.jobs import JobView
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import JobId, UploadId
from schemas.lifecycle import SETTLED_JOBS, JobStatus

POLL_AFTER_SECONDS: Final = 1

# `wait` among the preferences of RFC 7240; what cannot be honoured is ignored there.
_WAIT: Final = re.compile(
    r"(?:^|,)[ \t]*wait[ \t]*=[ \t]*\"?([0-9]{1,9})\"?[ \t]*(?:[,;]|$)", re.IGNORECASE
)

# The other preference that is honoured; it has no value.
_RESPOND_ASYNC: Final = re.compile(r"(?:^|,)[ \t]*respond-async[ \t]*(?:[,;]|$)", re.IGNORECASE)

Wait = Annotated[
    int,
    QueryParameter(
        ge=0,
        le=2**31 - 1,
        description="seconds to hold the request until the job settles; capped by the server",
    ),
]
Prefer = Annotated[
    str | None,
    HeaderParameter(
        name="Prefer",
        required=False,
        description="`wait=N` holds the request for up to N seconds; `respond-async` does not "
        "wait for the end even where the server would (RFC 7240)",
    ),
]
LastEventId = Annotated[
    int,
    HeaderParameter(
        name="Last-Event-ID",
        ge=0,
        le=2**63 - 1,
        description="`id` of the last event that was seen; nothing is sent until there is a later one",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A job after the wait that was asked for, and how to answer it."""

    job: JobView
    status_code: HTTPStatus
    headers: dict[str, str]


@get(
    "/uploads/{upload_id:uuid}/status",
    summary="See how far an upload got",
    guards=[requires(Scope.UPLOADS_READ)],
    responses=answers(ErrorCode.UPLOAD_NOT_FOUND, ErrorCode.JOB_NOT_FOUND),
)
async def get_upload_status(
    request: ApiRequest,
    *,
    upload_id: FromPath[UploadId],
    wait: Wait = 0,
) -> JobView:
    """Show the job of a finalized upload."""
    async with request.context.database.transaction() as session:
        job = await queries.job_of_upload(
            session, tenant_id=request.user.tenant_id, upload_id=upload_id
        )
    request_log.bind(job_id=job.job_id)
    return await _settled_within(
        min(timedelta(seconds=wait), request.context.settings.wait_max), job=job, request=request
    )


@get(
    "/jobs/{job_id:uuid}",
    summary="See how far a job got",
    guards=[requires(Scope.UPLOADS_READ)],
    responses=answers(ErrorCode.JOB_NOT_FOUND),
)
async def get_job(
    request: ApiRequest,
    *,
    job_id: FromPath[JobId],
    wait: Wait = 0,
) -> JobView:
    """Show a job; `progress` goes back only where the object store has lost parts of the file."""
    async with request.context.database.transaction() as session:
        job = await queries.job_of(session, tenant_id=request.user.tenant_id, job_id=job_id)
    request_log.bind(upload_id=job.upload_id)
    return await _settled_within(
        min(timedelta(seconds=wait), request.context.settings.wait_max), job=job, request=request
    )


@get(
    "/jobs/{job_id:uuid}/events",
    summary="Follow a job",
    guards=[requires(Scope.UPLOADS_READ)],
    media_type=stream.MEDIA_TYPE,
    responses=answers(ErrorCode.JOB_NOT_FOUND)
    | {
        HTTPStatus.NO_CONTENT: ResponseSpec(
            None,
            generate_examples=False,
            description="the job is settled, and its last event was seen: do not come back",
        )
    },
)
async def follow_job(
    request: ApiRequest,
    *,
    job_id: FromPath[JobId],
    last_event_id: LastEventId = 0,
) -> Stream:
    """Send the job whenever it changes, as Server-Sent Events, until it is settled.

    Events are named `progress`, and the last one `completed`, `failed` or
    `cancelled`; their data is the job as `GET /jobs/{job_id}` shows it, their
    id counts its changes. A slow reader gets the newest state, not every one.
    """

    async def look() -> stream.Snapshot:
        async with request.context.database.transaction() as session:
            return await queries.snapshot_of(
                session, tenant_id=request.user.tenant_id, job_id=job_id
            )

    revision, job = await look()
    request_log.bind(upload_id=job.upload_id)
    if job.status in SETTLED_JOBS and revision <= last_event_id:
        return Stream((), status_code=HTTPStatus.NO_CONTENT)
    return Stream(
        stream.events(look, request.context.job_changes, job_id=job_id, seen=last_event_id),
        media_type=stream.MEDIA_TYPE,
        # nginx would hold the events back until its buffer is full.
        headers={"X-Accel-Buffering": "no"},
    )


@get(
    "/jobs",
    summary="List jobs",
    guards=[requires(Scope.UPLOADS_READ)],
    responses=answers(),
)
async def list_jobs(
    request: ApiRequest,
    *,
    status: FromQuery[JobStatus | None] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[JobView]:
    """List the tenant's jobs, newest first."""
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        jobs = await queries.jobs_of(
            session,
            tenant_id=request.user.tenant_id,
            status=status,
            after=paging.decode(cursor, to=CreatedPosition),
            limit=limit,
        )
    return paging.page_of(
        jobs,
        limit=limit,
        show=queries.show,
        position=lambda job: CreatedPosition(created_at=job.created_at, id=job.id),
    )


router = Router(
    "/",
    route_handlers=[get_upload_status, get_job, follow_job, list_jobs],
    tags=["jobs"],
)


def preferred_wait(prefer: str | None, *, longest: timedelta) -> timedelta | None:
    """Return how long the `Prefer` header asks to wait, at most `longest`; None where it does not."""
    match = _WAIT.search(prefer or "")
    return min(timedelta(seconds=int(match[1])), longest) if match else None


def prefers_async(prefer: str | None) -> bool:
    """Say whether the `Prefer` header asks for an answer before the work is done."""
    return _RESPOND_ASYNC.search(prefer or "") is not None


async def outcome_of(job: JobView, *, request: ApiRequest) -> Outcome:
    """Wait for the job as long as its client prefers, or as the server does for those who say nothing."""
    settings = request.context.settings
    # Preferences may stand in several lines (RFC 7240, 2).
    prefer = ", ".join(request.headers.getall("prefer", []))
    preferred = preferred_wait(prefer, longest=settings.wait_max)
    is_async = prefers_async(prefer)
    wait = preferred or timedelta()
    if preferred is None and not settings.uploads_async_enabled and not is_async:
        wait = settings.sync_wait_max
    job = await _settled_within(wait, job=job, request=request)
    is_settled = bool(wait) and job.status in SETTLED_JOBS
    applied = []
    if is_async and not is_settled:
        applied.append("respond-async")
    if preferred is not None:
        applied.append(f"wait={int(preferred.total_seconds())}")
    headers = {"Location": job.status_url}
    if applied:
        headers["Preference-Applied"] = ", ".join(applied)
    if is_settled:
        return Outcome(job=job, status_code=HTTPStatus.OK, headers=headers)
    headers["Retry-After"] = str(POLL_AFTER_SECONDS)
    return Outcome(job=job, status_code=HTTPStatus.ACCEPTED, headers=headers)


async def _settled_within(wait: timedelta, *, job: JobView, request: ApiRequest) -> JobView:
    if not wait or job.status in SETTLED_JOBS:
        return job

    async def look() -> JobView:
        async with request.context.database.transaction() as session:
            return await queries.job_of(
                session, tenant_id=request.user.tenant_id, job_id=job.job_id
            )

    async with _departure(request) as gone:
        return await operations.wait_until_settled(
            look, request.context.job_changes, job_id=job.job_id, longest=wait, gone=gone
        )


@asynccontextmanager
async def _departure(request: ApiRequest) -> AsyncIterator[asyncio.Future[None]]:
    """Watch, within the block, for the client to close the connection."""

    async def until_disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.create_task(until_disconnected())
    try:
        yield gone
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
