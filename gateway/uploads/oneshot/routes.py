"""`/upload-async` and `POST /jobs`: a whole file in one request, or the name of one.

A form that is refused leaves its connection open: the server throws away what
still comes of it. Closed at once, the connection would be reset under a client
that is still sending, and the answer lost with it.
"""

import re
from functools import partial
from http import HTTPStatus
from typing import Final

import msgspec
from litestar import Response, Router, post
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec

from gateway.context import ApiRequest
from gateway.http import openapi, request_log
from gateway.http.idempotency import IdempotencyKey
from gateway.http.prefer import Prefer
from gateway.http.problems import InvalidRequest, answers
from gateway.http.security import requires
from gateway.jobs.wait import answer_of
from gateway.uploads.body import until_silence
from gateway.uploads.oneshot import operations
from gateway.uploads.oneshot.form import MEDIA_TYPE, Form
from gateway.uploads.oneshot.operations import Accepted, LengthRequired, Reception
from gateway.uploads.operations import check_complete_upload
from gateway.uploads.receive import SILENCE_MAX, receive_chunk
from gateway.uploads.routes import NOT_ADMITTED, callback_of, terms_of
from schemas.api.scopes import Scope
from schemas.api.submissions import FormFields, SubmitReference, Submitted
from schemas.errors import ErrorCode
from schemas.lifecycle import JobStatus
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent

JSON: Final = "application/json"

# How msgspec says where in a document something is wrong.
_PLACE: Final = re.compile(r"(?P<reason>.*) - at `\$\.?(?P<field>.*)`", re.DOTALL)

_MESSAGES: Final = {
    JobStatus.COMPLETED: "the file is stored",
    JobStatus.CANCELLED: "the upload was cancelled",
}

ON_ITS_WAY: Final = "the file was taken and is on its way"

NOT_TAKEN: Final = (
    *NOT_ADMITTED,
    ErrorCode.LENGTH_REQUIRED,
    ErrorCode.FILE_DIGEST_MISMATCH,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.WEBHOOK_URL_REFUSED,
    ErrorCode.STAGING_FULL,
    ErrorCode.STORE_UNAVAILABLE,
    ErrorCode.STORE_REJECTED,
)

TAKEN: Final = {
    HTTPStatus.OK: ResponseSpec(
        Submitted,
        generate_examples=False,
        description="the job settled while the request waited",
    )
}

FORM: Final = {MEDIA_TYPE: openapi.schema_of(FormFields, file="file")}

SubmitFile = openapi.reads_body("one file, with a filename; a `Content-Length` is needed", FORM)

SubmitFileOrReference = openapi.reads_body(
    "a form with one file, or the name of an object in the bucket",
    FORM | {JSON: openapi.schema_of(SubmitReference)},
)


@post(
    "/upload-async",
    summary="Submit a file in a form",
    guards=[requires(Scope.UPLOADS_WRITE)],
    status_code=HTTPStatus.ACCEPTED,
    operation_class=SubmitFile,
    # A form is streamed to staging and has a limit of its own: the largest file's.
    request_max_body_size=None,
    responses=answers(*NOT_TAKEN) | TAKEN,
)
async def submit_file(
    request: ApiRequest,
    *,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[Submitted]:
    """Take a file in one request: create, chunks and finalize in one.

    It is stored as it comes in; where the request breaks off, nothing of it is
    kept. Fields before the file are better than fields after it.
    """
    accepted = await operations.submit_form(
        _reception(request), _form(request), request=_request(request, key=idempotency_key)
    )
    return await _answer(accepted, request=request)


@post(
    "/jobs",
    summary="Submit a file in a form, or an object in the bucket by its key",
    guards=[requires(Scope.UPLOADS_WRITE)],
    status_code=HTTPStatus.ACCEPTED,
    operation_class=SubmitFileOrReference,
    request_max_body_size=None,
    responses=answers(*NOT_TAKEN, ErrorCode.REFERENCE_REFUSED) | TAKEN,
)
async def create_job(
    request: ApiRequest,
    *,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[Submitted]:
    """Take a file as `/upload-async` does, or copy an object that lies under `incoming/<tenant>/`."""
    context = request.context
    submitted_by = _request(request, key=idempotency_key)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON:
        reference = await _reference(request, bytes_max=context.settings.request_body_max)
        async with context.database.transaction() as session:
            accepted = await operations.submit_reference(
                session,
                reference=reference,
                request=submitted_by,
                register_callback=callback_of(context.settings),
                settings=context.settings,
                now=context.clock(),
            )
    else:
        accepted = await operations.submit_form(
            _reception(request), _form(request), request=submitted_by
        )
    return await _answer(accepted, request=request)


router = Router(
    "/",
    route_handlers=[submit_file, create_job],
    tags=["jobs"],
)


def _reception(request: ApiRequest) -> Reception:
    context, settings = request.context, request.context.settings
    return Reception(
        database=context.database,
        staging=context.staging,
        register_callback=callback_of(settings),
        check=partial(check_complete_upload, settings=settings),
        terms=terms_of(settings),
        form_lease=settings.form_lease,
        receive_chunk=partial(
            receive_chunk,
            context.autocommit,
            context.staging,
            lock_wait=settings.chunk_lock_wait,
            clock=context.clock,
        ),
        clock=context.clock,
    )


def _form(request: ApiRequest) -> Form:
    """Return the form a request carries; nothing of it is read yet.

    Raises:
        FormRefused: it carries none.
        LengthRequired: it does not say how long it is.
    """
    if request.content_length is None:
        raise LengthRequired
    return Form.of(
        until_silence(request.stream(), longest=SILENCE_MAX),
        content_type=request.headers.get("content-type", ""),
        length=request.content_length,
    )


async def _reference(request: ApiRequest, *, bytes_max: int) -> SubmitReference:
    """Read a JSON body; the route has no limit of its own for it.

    Raises:
        InvalidRequest: it is not what it should be.
        LengthRequired: it does not say how long it is.
    """
    if request.content_length is None:
        raise LengthRequired
    if request.content_length > bytes_max:
        raise HTTPException(
            status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            detail=f"a JSON body has at most {bytes_max} bytes",
        )
    try:
        return msgspec.json.decode(await request.body(), type=SubmitReference)
    except msgspec.ValidationError as error:
        place = _PLACE.fullmatch(str(error))
        reason, field = (place["reason"], place["field"]) if place else (str(error), "body")
        raise InvalidRequest(reason, field=field) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest("is not JSON", field="body") from error


def _request(request: ApiRequest, *, key: str | None) -> operations.Request:
    return operations.Request(
        tenant_id=request.user.tenant_id,
        idempotency_key=key,
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )


async def _answer(
    accepted: Accepted,
    *,
    request: ApiRequest,
) -> Response[Submitted]:
    request_log.bind(upload_id=accepted.job.upload_id, job_id=accepted.job.job_id)
    answer = await answer_of(accepted.job, request=request)
    job = answer.job
    return Response(
        Submitted(
            success=job.status not in {JobStatus.FAILED, JobStatus.CANCELLED},
            message=job.error.detail if job.error else _MESSAGES.get(job.status, ON_ITS_WAY),
            job_id=job.job_id,
            upload_id=job.upload_id,
            filename=accepted.filename,
            status=job.status,
            status_endpoint=job.status_url,
            callback_secret=accepted.callback_secret,
        ),
        status_code=answer.status_code,
        headers=answer.headers,
    )
