"""`/upload-async` and `POST /jobs`: a whole file in one request, or the key of an object.

After a refused form the connection stays open, and the server discards the rest of the form. If the
server closed the connection at once, a client that is still sending would get a connection reset
and lose the answer.
"""

import re
from http import HTTPStatus
from typing import Final

import msgspec
from litestar import Response, Router, post

from gateway.context import ApiRequest
from gateway.http import declarations, digests, openapi, request_log
from gateway.http.idempotency import IdempotencyKey
from gateway.http.prefer import Prefer
from gateway.http.problems import BODY_ERRORS, InvalidRequest, answers
from gateway.http.security import requires
from gateway.jobs.wait import answer_of
from gateway.uploads.oneshot.form import MEDIA_TYPE, Form
from gateway.uploads.oneshot.part import FILE
from gateway.uploads.oneshot.submission import Accepted, Submission
from gateway.uploads.oneshot.submit_form import submit_form
from gateway.uploads.oneshot.submit_reference import submit_reference
from gateway.uploads.routes import BACKLOG_ERRORS, QUOTA_ERRORS, settled_answer
from schemas.api.scopes import Scope
from schemas.api.submissions import FormFields, SubmitReference, Submitted
from schemas.errors import DomainError, ErrorCode
from schemas.lifecycle import JobStatus
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent

JSON: Final = "application/json"

# How msgspec names the field that is invalid.
_INVALID_FIELD: Final = re.compile(r"(?P<reason>.*) - at `\$\.?(?P<field>.*)`", re.DOTALL)

_MESSAGES: Final = {
    JobStatus.COMPLETED: "the file is stored",
    JobStatus.CANCELLED: "the upload was cancelled",
}

ACCEPTED_MESSAGE: Final = "the file was accepted and is being processed"

SUBMISSION_ERRORS: Final = (
    *QUOTA_ERRORS,
    *BACKLOG_ERRORS,
    ErrorCode.LENGTH_REQUIRED,
    *BODY_ERRORS,
    ErrorCode.FILE_DIGEST_MISMATCH,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.WEBHOOK_URL_REFUSED,
    ErrorCode.STAGING_FULL,
    ErrorCode.STORE_UNAVAILABLE,
    ErrorCode.STORE_REJECTED,
)

FORM: Final = {MEDIA_TYPE: openapi.schema_of(FormFields, file=FILE, others="metadata")}

SubmitFile = openapi.reads_body(
    "one file, with a filename; other fields are kept as metadata; a `Content-Length` is required",
    FORM,
)

SubmitFileOrReference = openapi.reads_body(
    "a form with one file, or the key of an object in the bucket",
    FORM | {JSON: openapi.schema_of(SubmitReference)},
)


class LengthRequired(DomainError):
    """The form has no `Content-Length`: its file's quota is reserved before its first byte."""

    code = ErrorCode.LENGTH_REQUIRED

    def __init__(self) -> None:
        super().__init__(
            "send the form with a Content-Length, or create an upload and send its chunks"
        )


@post(
    "/upload-async",
    summary="Submit a file in a form",
    opt=requires(Scope.UPLOADS_WRITE),
    status_code=HTTPStatus.ACCEPTED,
    operation_class=SubmitFile,
    # A form is streamed to staging; the largest file allowed is the limit.
    request_max_body_size=None,
    responses=answers(*SUBMISSION_ERRORS) | settled_answer(Submitted),
)
async def submit_file(
    request: ApiRequest,
    *,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[Submitted]:
    """Submit a whole file in one request: create, chunks and finalize in one.

    The file is stored while it arrives; if the request breaks off, nothing of the file is kept.
    Send the fields before the file if possible.
    """
    accepted = await _submitted_form(request, submission=_submission(request, key=idempotency_key))
    return await _answer(accepted, request=request)


@post(
    "/jobs",
    summary="Submit a file in a form, or an object in the bucket by its key",
    opt=requires(Scope.UPLOADS_WRITE),
    status_code=HTTPStatus.ACCEPTED,
    operation_class=SubmitFileOrReference,
    request_max_body_size=None,
    responses=answers(*SUBMISSION_ERRORS, ErrorCode.REFERENCE_REFUSED, has_json=True)
    | settled_answer(Submitted),
)
async def create_job(
    request: ApiRequest,
    *,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[Submitted]:
    """Submit a file as to `/upload-async`, or an object under `incoming/<tenant>/`, which is copied."""
    submission = _submission(request, key=idempotency_key)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON:
        reference = await _reference(request)
        accepted = await submit_reference(request.context, reference, submission=submission)
    else:
        accepted = await _submitted_form(request, submission=submission)
    return await _answer(accepted, request=request)


router = Router(
    "/",
    route_handlers=[submit_file, create_job],
    tags=["jobs"],
)


async def _submitted_form(request: ApiRequest, *, submission: Submission) -> Accepted:
    with request.context.bodies.arriving(submission.tenant_id):
        return await submit_form(request.context, _form(request), submission=submission)


def _form(request: ApiRequest) -> Form:
    """Return the form of a request; nothing of the body is read yet.

    Raises:
        FormRefused: the request has no form.
        InvalidRequest: the form is encoded or is only a part.
        DigestInvalid, DigestUnsupported: a digest of the whole form cannot be checked.
        LengthRequired: the request has no `Content-Length`.
    """
    declarations.check_plain(request.headers)
    expected = declarations.digests_of(request.headers)
    return Form.of(
        digests.checked(request.stream(), expected=expected),
        content_type=request.headers.get("content-type", ""),
        length=_length(request),
    )


async def _reference(request: ApiRequest) -> SubmitReference:
    """Read a JSON body.

    Raises:
        InvalidRequest: the body is not a valid reference.
        RequestEntityTooLarge: the body is too large.
        TooManyBodies, BodiesBusy: too many bodies arrive at once.
    """
    try:
        return msgspec.convert(await request.json(), SubmitReference)
    except msgspec.ValidationError as error:
        found = _INVALID_FIELD.fullmatch(str(error))
        reason, field = (found["reason"], found["field"]) if found else (str(error), "body")
        raise InvalidRequest(reason, field=field) from error


def _length(request: ApiRequest) -> int:
    if request.content_length is None:
        raise LengthRequired
    return request.content_length


def _submission(request: ApiRequest, *, key: str | None) -> Submission:
    return Submission(
        tenant_id=request.user.tenant_id,
        idempotency_key=key,
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )


async def _answer(accepted: Accepted, *, request: ApiRequest) -> Response[Submitted]:
    request_log.bind(upload_id=accepted.upload_id, job_id=accepted.job.job_id)
    answer = await answer_of(accepted.job, request=request)
    job = answer.job
    return Response(
        Submitted(
            success=job.status not in {JobStatus.FAILED, JobStatus.CANCELLED},
            message=job.error.detail if job.error else _MESSAGES.get(job.status, ACCEPTED_MESSAGE),
            job_id=job.job_id,
            upload_id=accepted.upload_id,
            task_id=job.task_id,
            filename=accepted.filename,
            status=job.status,
            status_endpoint=job.status_url,
            callback_secret=accepted.callback.secret,
            callback_webhook_id=accepted.callback.webhook_id,
        ),
        status_code=answer.status_code,
        headers=answer.headers,
    )
