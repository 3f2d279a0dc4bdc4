"""`/jobs/{job_id}/cancel`, `/jobs/{job_id}/retry` and `/jobs/bulk`."""

from http import HTTPStatus

from litestar import Response, Router, post
from litestar.params import FromPath, JSONBody

from gateway.context import ApiRequest
from gateway.http import request_log
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.prefer import Prefer
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import SCOPE_OF_JOB, requires
from gateway.job_actions import cancel, create, retry
from gateway.jobs.wait import answer_of
from gateway.uploads.routes import BACKLOG_ERRORS, settled_answer
from schemas.api.jobs import ActOnJobs, JobView
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import JobId
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent


@post(
    "/jobs/{job_id:uuid}/cancel",
    summary="Cancel a job",
    status_code=HTTPStatus.OK,
    opt={SCOPE_OF_JOB: True},
    responses=answers(ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_NOT_CANCELLABLE),
)
async def cancel_job(request: ApiRequest, *, job_id: FromPath[JobId]) -> JobView:
    """Cancel a job in whatever step it is; its worker stops within two seconds.

    A job of kind `upload` is cancelled with its upload, and everything that it stored is deleted.
    The other kinds leave what they worked on: `reprocess` the document and its earlier revision,
    `replay` the deliveries that are due already. Needs the scope that starts a job of its kind:
    `uploads:write`, `documents:write`, `exports:write` or `webhooks:write`.
    """
    request_log.bind(job_id=job_id)
    return await cancel.cancel_job(request.context, caller=request.user, job_id=job_id)


@post(
    "/jobs/{job_id:uuid}/retry",
    summary="Retry a job",
    status_code=HTTPStatus.ACCEPTED,
    opt={SCOPE_OF_JOB: True},
    responses=answers(
        ErrorCode.JOB_NOT_FOUND,
        ErrorCode.JOB_NOT_RETRYABLE,
        ErrorCode.JOB_SOURCE_GONE,
        ErrorCode.JOB_BUSY,
        *BACKLOG_ERRORS,
    ),
)
async def retry_job(request: ApiRequest, *, job_id: FromPath[JobId]) -> JobView:
    """Do the failed or cancelled steps of a job again; completed steps are not repeated.

    A failed transfer of chunks, and a cancelled job of kind `upload`, cannot be retried: their bytes
    are deleted. Needs the same scope as cancel.
    """
    request_log.bind(job_id=job_id)
    return await retry.retry_job(request.context, caller=request.user, job_id=job_id)


@post(
    "/jobs/bulk",
    summary="Cancel or retry the jobs of a filter",
    status_code=HTTPStatus.ACCEPTED,
    opt=requires(Scope.UPLOADS_WRITE),
    responses=answers(
        *BODY_ERRORS, *BACKLOG_ERRORS, ErrorCode.IDEMPOTENCY_KEY_REUSED, has_json=True
    )
    | settled_answer(JobView),
)
async def act_on_jobs(
    request: ApiRequest,
    *,
    data: JSONBody[ActOnJobs],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[JobView]:
    """Start a job of kind `bulk` that cancels or retries every job that the filter selects.

    It acts on the jobs that exist at the time of the request, except jobs of kind `bulk`, and those
    of kinds for which the API key lacks the scope. `result` counts the jobs that were `done`, those
    that were `skipped` because they had ended or cannot be retried, and those that `failed` because
    a worker was busy with them. If the job is cancelled, what it has done stays.
    """
    job = await create.act_on_jobs(
        request.context,
        caller=request.user,
        request=data,
        keyed=KeyedRequest.of(idempotency_key, operation="act_on_jobs", request=data),
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )
    request_log.bind(job_id=job.job_id)
    answer = await answer_of(job, request=request)
    return Response(answer.job, status_code=answer.status_code, headers=answer.headers)


router = Router("/", route_handlers=[cancel_job, retry_job, act_on_jobs], tags=["jobs"])
