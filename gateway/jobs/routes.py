"""`/jobs`: list, show and follow them."""

from http import HTTPStatus
from typing import Annotated

from litestar import Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from gateway.context import ApiRequest
from gateway.db import SessionStatements, transaction_time
from gateway.http import paging, request_log, sse, stream_tokens
from gateway.http.problems import answers
from gateway.http.security import SENDS_STREAM, requires
from gateway.http.stream_tokens import StreamToken
from gateway.http.wait_limit import WAIT_ERRORS
from gateway.job_watch import Snapshot
from gateway.jobs import queries
from gateway.jobs.cancel import cancel_job
from gateway.jobs.wait import Wait, event_stream, polled
from gateway.settings import API_PREFIX
from schemas.api.jobs import JobView
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.api.streams import StreamTokenCreated
from schemas.errors import ErrorCode
from schemas.ids import JobId
from schemas.lifecycle import JobStatus
from schemas.tables.jobs import Job

Status = Annotated[
    JobStatus | None, QueryParameter(description="only jobs of this status", required=False)
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
    responses=answers(ErrorCode.JOB_NOT_FOUND, *WAIT_ERRORS),
)
async def get_job(
    request: ApiRequest,
    *,
    job_id: FromPath[JobId],
    wait: Wait = 0,
) -> JobView:
    """Show a job; `progress` decreases only if the object store loses parts of the file."""
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
async def list_jobs(
    request: ApiRequest,
    *,
    status: Status = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[JobView]:
    """List the tenant's jobs, newest first."""
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.snapshot() as session:
        page = await paging.newest_first(
            session,
            queries.jobs_of(request.user.tenant_id, status=status),
            Job,
            cursor=cursor,
            limit=limit,
            show=lambda job: job,
        )
        return PageOf(
            items=await queries.show_all(session, page.items), next_cursor=page.next_cursor
        )


@post(
    "/jobs/{job_id:uuid}/cancel",
    summary="Cancel a replay",
    status_code=HTTPStatus.OK,
    opt=requires(Scope.WEBHOOKS_WRITE),
    responses=answers(ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_NOT_CANCELLABLE),
)
async def cancel_replay(request: ApiRequest, *, job_id: FromPath[JobId]) -> JobView:
    """Cancel a job of kind `replay`: deliveries that are due already are sent, no others.

    `DELETE /uploads/{upload_id}` cancels the jobs of an upload.
    """
    return await cancel_job(request.context, tenant_id=request.user.tenant_id, job_id=job_id)


router = Router(
    "/",
    route_handlers=[get_job, create_stream_token, follow_job, list_jobs, cancel_replay],
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
