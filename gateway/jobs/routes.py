"""`/jobs`: list, show and follow them."""

from http import HTTPStatus
from typing import Annotated

from litestar import Response, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from gateway.context import ApiRequest
from gateway.db import SessionStatements, transaction_time
from gateway.http import paging, request_log, revalidation, sse, stream_tokens
from gateway.http.pairs import Metadata, metadata_of
from gateway.http.problems import answers
from gateway.http.security import SENDS_STREAM, requires
from gateway.http.stream_tokens import StreamToken
from gateway.http.times import Time, time_of
from gateway.http.wait_limit import WAIT_ERRORS
from gateway.job_watch import Snapshot
from gateway.jobs import listing, queries
from gateway.jobs.wait import Wait, event_stream, polled
from gateway.settings import API_PREFIX
from schemas.api.jobs import JobFilter, JobSort, JobView
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.api.streams import StreamTokenCreated
from schemas.errors import ErrorCode
from schemas.ids import BatchId, JobId
from schemas.lifecycle import JobKind, JobStatus, Priority
from schemas.steps import JobStage

Status = Annotated[
    JobStatus | None, QueryParameter(description="only jobs of this status", required=False)
]
Kind = Annotated[
    JobKind | None, QueryParameter(description="only jobs of this kind", required=False)
]
Stage = Annotated[
    JobStage | None,
    QueryParameter(
        description="only jobs that are in this step, or failed in it; `done` for completed jobs",
        required=False,
    ),
]
ChosenPriority = Annotated[
    Priority | None, QueryParameter(description="only jobs of this priority", required=False)
]
Batch = Annotated[
    BatchId | None, QueryParameter(description="only jobs of this batch", required=False)
]
Sort = Annotated[
    JobSort, QueryParameter(description="`-created_at` lists the newest jobs first", required=False)
]
Token = Annotated[
    str | None,
    QueryParameter(
        description="from `POST /jobs/{job_id}/stream-token`, instead of an `Authorization` header",
        required=False,
    ),
]
LastEventId = Annotated[
    str,
    HeaderParameter(
        name="Last-Event-ID",
        description="`id` of the last event that the client received; only later ones are sent. "
        "A value that is no `id` of this job counts as none",
    ),
]


@get(
    "/jobs/{job_id:uuid}",
    summary="Show the progress of a job",
    opt=requires(Scope.UPLOADS_READ),
    responses=answers(ErrorCode.JOB_NOT_FOUND, *WAIT_ERRORS) | revalidation.NOT_MODIFIED,
)
async def get_job(
    request: ApiRequest,
    *,
    job_id: FromPath[JobId],
    wait: Wait = 0,
) -> Response[JobView]:
    """Show a job; `progress` decreases only if the store loses parts of the file, or at a retry.

    The ETag changes with the job, also with a place in line. With `wait`, the answer to a current
    `If-None-Match` is 304 after the wait.
    """
    job = await _read(request, job_id)
    return await polled(wait, job=job, request=request)


@post(
    "/jobs/{job_id:uuid}/stream-token",
    summary="Create a token that follows a job",
    opt=requires(Scope.UPLOADS_READ),
    responses=answers(ErrorCode.JOB_NOT_FOUND),
)
async def create_stream_token(
    request: ApiRequest, *, job_id: FromPath[JobId]
) -> StreamTokenCreated:
    """Return a URL for `EventSource`, which cannot send an `Authorization` header.

    The token in it opens `GET /jobs/{job_id}/events` of this job and nothing else, until it
    expires or the API key of this request is revoked or expires.
    """
    caller, context = request.user, request.context
    async with context.database.transaction() as session:
        await queries.snapshot_of(
            SessionStatements(session), tenant_id=caller.tenant_id, job_id=job_id
        )
        now = await transaction_time(session)
    token = StreamToken(
        tenant_id=caller.tenant_id,
        job_id=job_id,
        key_id=caller.key_id,
        expires_at=stream_tokens.expiry(now, lifetime=context.settings.stream_token_ttl),
    )
    return stream_tokens.issued(
        token, keys=context.secret_keys, path=f"{API_PREFIX}/jobs/{job_id}/events"
    )


@get(
    "/jobs/{job_id:uuid}/events",
    summary="Follow a job",
    opt=requires(Scope.UPLOADS_READ) | {SENDS_STREAM: True},
    media_type=sse.MEDIA_TYPE,
    responses=answers(ErrorCode.JOB_NOT_FOUND, *WAIT_ERRORS)
    | {
        HTTPStatus.NO_CONTENT: ResponseSpec(
            None,
            generate_examples=False,
            description="the job is settled and the client has its last event: do not reconnect",
        )
    },
)
async def follow_job(
    request: ApiRequest,
    *,
    job_id: FromPath[JobId],
    last_event_id: LastEventId = "",
    token: Token = None,  # noqa: ARG001  # the authentication reads it
) -> Stream:
    """Send the job at every change, as Server-Sent Events, until it is settled.

    Events are named `progress`; the last one is named `completed`, `failed` or `cancelled`.
    Their data is the job as `GET /jobs/{job_id}` shows it; their id counts its changes. A slow
    client gets the newest state and may miss states in between.
    """
    job = await _read(request, job_id)
    seen = sse.last_event_id(last_event_id, newest=job.revision)
    if job.is_settled and seen == job.revision:
        return Stream((), status_code=HTTPStatus.NO_CONTENT)
    context, key_id = request.context, request.user.key_id
    if not job.is_settled:
        context.key_waits.check(key_id)
    return event_stream(job, seen=seen, context=context, key_id=key_id)


@get(
    "/jobs",
    summary="List jobs",
    opt=requires(Scope.UPLOADS_READ),
    responses=answers(),
)
async def list_jobs(  # noqa: PLR0913  # one for each filter
    request: ApiRequest,
    *,
    status: Status = None,
    kind: Kind = None,
    stage: Stage = None,
    priority: ChosenPriority = None,
    batch_id: Batch = None,
    metadata: Metadata = None,
    created_after: Time = None,
    created_before: Time = None,
    sort: Sort = JobSort.NEWEST_FIRST,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[JobView]:
    """List the tenant's jobs, by default newest first.

    A page of several filters may have fewer items than `limit`, even none: follow `next_cursor`
    until it is null.
    """
    job_filter = JobFilter(
        status=status,
        kind=kind,
        stage=stage,
        priority=priority,
        batch_id=batch_id,
        metadata=metadata_of(metadata),
        created_after=time_of(created_after, field="created_after"),
        created_before=time_of(created_before, field="created_before"),
    )
    async with request.context.database.snapshot() as session:
        return await listing.page_of(
            session,
            job_filter,
            tenant_id=request.user.tenant_id,
            sort=sort,
            cursor=cursor,
            limit=min(limit, request.context.settings.page_size_max),
        )


router = Router(
    "/",
    route_handlers=[get_job, create_stream_token, follow_job, list_jobs],
    tags=["jobs"],
)


async def _read(request: ApiRequest, job_id: JobId) -> Snapshot:
    """Read a job of the tenant.

    Raises:
        JobNotFound: the tenant has no such job.
    """
    snapshot = await queries.snapshot_of(
        request.context.autocommit, tenant_id=request.user.tenant_id, job_id=job_id
    )
    if snapshot.job.upload_id is not None:
        request_log.bind(upload_id=snapshot.job.upload_id)
    return snapshot
