"""`/uploads` and `/upload`: create, send chunks, list them, finalize, follow, cancel."""

from http import HTTPStatus
from typing import Annotated, Final

from litestar import Response, Router, delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.openapi.spec import Parameter as HeaderDescription
from litestar.params import FromPath, JSONBody, QueryParameter

from gateway.context import ApiRequest
from gateway.http import declarations, digests, openapi, request_log, revalidation
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.preconditions import Preconditions
from gateway.http.prefer import Prefer
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import requires
from gateway.http.wait_limit import WAIT_ERRORS
from gateway.jobs.wait import Wait, answer_of, polled
from gateway.uploads import cancel, create, finalize, passwords, queries
from gateway.uploads.receive import IncomingChunk, receive_chunk
from gateway.webhooks import queries as webhooks
from schemas.api.jobs import JobView
from schemas.api.scopes import Scope
from schemas.api.uploads import (
    ChunkStored,
    CreateUpload,
    FinalizeUpload,
    UploadAbandoned,
    UploadCreated,
    UploadManifest,
)
from schemas.errors import ErrorCode
from schemas.ids import UploadId
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent
from schemas.settings import UploadSettings

DECLARED_CHUNK_BYTES: Final = 192
"""Room for one chunk in the body of a finalize, with generous white space."""

QUOTA_ERRORS: Final = (
    ErrorCode.FILE_TOO_LARGE,
    ErrorCode.TYPE_NOT_ALLOWED,
    ErrorCode.QUOTA_EXCEEDED,
    ErrorCode.TOO_MANY_OPEN_UPLOADS,
    ErrorCode.STAGED_BYTES_EXCEEDED,
)

BACKLOG_ERRORS: Final = (ErrorCode.TOO_MANY_WAITING, ErrorCode.SYSTEM_BUSY)

Purge = Annotated[
    bool, QueryParameter(description="also delete the stored object and the document read from it")
]


def settled_answer(body: type) -> dict[int, ResponseSpec]:
    return {
        HTTPStatus.OK: ResponseSpec(
            body,
            generate_examples=False,
            description="the job settled while the request waited",
        )
    }


def _field(name: str, description: str) -> HeaderDescription:
    return HeaderDescription(
        name=name,
        param_in="header",
        required=False,
        description=description,
        schema=Schema(type=OpenAPIType.STRING),
    )


SendChunk = openapi.reads_body(
    "the bytes of the chunk",
    {"application/octet-stream": openapi.BINARY},
    headers=[
        *(
            _field(
                name,
                "`sha-256=:<base64>:`, `sha-512`, `crc32c`, `md5`, `sha` or `adler` likewise "
                "(RFC 9530); checked before the chunk counts as received",
            )
            for name in digests.FIELDS
        ),
        _field(digests.CONTENT_MD5, "base64 of the MD5 (RFC 1864); checked likewise"),
        _field(
            digests.DIGEST,
            f"`sha-256=<base64>`; {', '.join(digests.LEGACY_ALGORITHMS)} (RFC 3230) are checked "
            "likewise, others are refused",
        ),
        _field("If-Match", "the ETag of the stored chunk, its sha256 in quotes, or `*`"),
        _field("If-None-Match", "`*`: only if the chunk is not stored yet"),
    ],
)


@post(
    "/",
    summary="Create an upload",
    opt=requires(Scope.UPLOADS_WRITE),
    responses=answers(
        *BODY_ERRORS,
        *QUOTA_ERRORS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        ErrorCode.WEBHOOK_URL_REFUSED,
        ErrorCode.STAGING_FULL,
        has_json=True,
    ),
)
async def create_upload(
    request: ApiRequest,
    *,
    data: JSONBody[CreateUpload],
    idempotency_key: IdempotencyKey = None,
) -> Response[UploadCreated]:
    """Create an upload; the answer has the size of its chunks and the time of its expiry."""
    context = request.context
    created = await create.create_upload(
        context,
        tenant_id=request.user.tenant_id,
        request=data,
        keyed=KeyedRequest.of(
            idempotency_key,
            operation="create_upload",
            request=passwords.hashable(data, keys=context.secret_keys),
        ),
        lifetime=context.settings.upload_ttl,
    )
    request_log.bind(upload_id=created.upload_id)
    return Response(created, headers={"Location": created.status_url.removesuffix("/status")})


@post(
    "/upload",
    summary="Finalize an upload",
    opt=requires(Scope.UPLOADS_WRITE),
    status_code=HTTPStatus.ACCEPTED,
    responses=answers(
        *BODY_ERRORS,
        ErrorCode.UPLOAD_NOT_FOUND,
        ErrorCode.UPLOAD_NOT_OPEN,
        ErrorCode.UPLOAD_EXPIRED,
        ErrorCode.UPLOAD_INCOMPLETE,
        ErrorCode.MANIFEST_MISMATCH,
        ErrorCode.FILE_DIGEST_MISMATCH,
        ErrorCode.FILE_TOO_LARGE,
        ErrorCode.TYPE_NOT_ALLOWED,
        ErrorCode.QUOTA_EXCEEDED,
        *BACKLOG_ERRORS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        has_json=True,
    )
    | settled_answer(JobView),
)
async def finalize_upload(
    request: ApiRequest,
    *,
    data: JSONBody[FinalizeUpload],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[JobView]:
    """Declare that all chunks are sent; workers do the rest after the answer.

    A repetition returns the same job.
    """
    request_log.bind(upload_id=data.upload_id)
    context = request.context
    tenant_id = request.user.tenant_id
    async with (
        context.autocommit.turn(tenant_id),
        context.autocommit.transaction() as transaction,
    ):
        job = await finalize.finalize_upload(
            transaction,
            tenant_id=tenant_id,
            request=data,
            keyed=KeyedRequest.of(idempotency_key, operation="finalize_upload", request=data),
            settings=context.settings,
            backlog=context.backlog,
            traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
        )
    request_log.bind(job_id=job.job_id)
    answer = await answer_of(job, request=request)
    return Response(answer.job, status_code=answer.status_code, headers=answer.headers)


@put(
    "/{upload_id:uuid}/chunks/{index:int}",
    summary="Send a chunk",
    opt=requires(Scope.UPLOADS_WRITE),
    operation_class=SendChunk,
    # A chunk is streamed to staging; its own size is the limit.
    request_max_body_size=None,
    responses=answers(
        ErrorCode.BODY_TOO_SLOW,
        ErrorCode.TOO_MANY_BODIES,
        ErrorCode.SYSTEM_BUSY,
        ErrorCode.CHUNK_INDEX_OUT_OF_RANGE,
        ErrorCode.CHUNK_SIZE_MISMATCH,
        ErrorCode.CHUNK_DIGEST_MISMATCH,
        ErrorCode.DIGEST_INVALID,
        ErrorCode.UPLOAD_NOT_FOUND,
        ErrorCode.UPLOAD_NOT_OPEN,
        ErrorCode.UPLOAD_EXPIRED,
        ErrorCode.CHUNK_CONFLICT,
        ErrorCode.CHUNK_IN_PROGRESS,
        ErrorCode.PRECONDITION_FAILED,
        ErrorCode.STAGING_MISSING,
        ErrorCode.STAGING_FULL,
        ErrorCode.STORE_UNAVAILABLE,
        ErrorCode.STORE_REJECTED,
    ),
)
async def send_chunk(
    request: ApiRequest,
    *,
    upload_id: FromPath[UploadId],
    index: FromPath[int],
) -> Response[ChunkStored]:
    """Store a chunk; chunks may be sent in any order, in parallel, and repeatedly.

    The answer comes when the bytes are durable. Other bytes for a stored chunk
    are refused.
    """
    context, tenant_id = request.context, request.user.tenant_id
    chunk = _incoming_chunk(request, upload_id=upload_id, index=index)
    with context.bodies.arriving(tenant_id):
        stored = await receive_chunk(
            context, tenant_id=tenant_id, chunk=chunk, body=request.stream()
        )
    return Response(stored, headers={"ETag": f'"{stored.sha256}"'})


@get(
    "/{upload_id:uuid}",
    summary="List the stored chunks of an upload",
    opt=requires(Scope.UPLOADS_READ),
    responses=answers(ErrorCode.UPLOAD_NOT_FOUND),
)
async def get_upload(request: ApiRequest, *, upload_id: FromPath[UploadId]) -> UploadManifest:
    """Show an upload with its stored chunks; after an interruption, send the missing chunks."""
    async with request.context.database.transaction() as session:
        upload = await queries.upload_of(
            session, tenant_id=request.user.tenant_id, upload_id=upload_id
        )
        callback = await webhooks.callback_of(session, upload_id)
        return await queries.manifest_of(session, upload, callback=callback)


@get(
    "/uploads/{upload_id:uuid}/status",
    summary="Show the progress of an upload",
    opt=requires(Scope.UPLOADS_READ),
    responses=answers(ErrorCode.UPLOAD_NOT_FOUND, ErrorCode.JOB_NOT_FOUND, *WAIT_ERRORS)
    | revalidation.NOT_MODIFIED,
)
async def get_upload_status(
    request: ApiRequest,
    *,
    upload_id: FromPath[UploadId],
    wait: Wait = 0,
) -> Response[JobView]:
    """Show the job of a finalized upload, as `GET /jobs/{job_id}` does, with its ETag."""
    job = await queries.job_of_upload(
        request.context.autocommit, tenant_id=request.user.tenant_id, upload_id=upload_id
    )
    request_log.bind(job_id=job.job.job_id)
    return await polled(wait, job=job, request=request)


@delete(
    "/{upload_id:uuid}",
    status_code=200,
    summary="Cancel an upload",
    opt=requires(Scope.UPLOADS_WRITE),
    responses=answers(ErrorCode.UPLOAD_NOT_FOUND, ErrorCode.UPLOAD_ALREADY_SETTLED),
)
async def abandon_upload(
    request: ApiRequest,
    *,
    upload_id: FromPath[UploadId],
    purge: Purge = False,
) -> UploadAbandoned:
    """Cancel an upload before, during or after sending, and delete its staged bytes.

    A stored upload is cancelled only by a purge, which also deletes the object
    and the document read from it, and cancels a completed job.
    """
    return await cancel.cancel_upload(
        request.context, tenant_id=request.user.tenant_id, upload_id=upload_id, purge=purge
    )


router = Router(
    "/uploads",
    route_handlers=[create_upload, send_chunk, get_upload, abandon_upload],
    tags=["uploads"],
)


def job_router(settings: UploadSettings, *, body_max: int) -> Router:
    """Return the routes that answer with a job; a finalize may name every chunk in its body."""
    return Router(
        "/",
        route_handlers=[finalize_upload, get_upload_status],
        request_max_body_size=body_max + settings.chunk_count_max * DECLARED_CHUNK_BYTES,
        tags=["jobs"],
    )


def _incoming_chunk(request: ApiRequest, *, upload_id: UploadId, index: int) -> IncomingChunk:
    """Read what the head of the request declares about its body.

    Raises:
        DigestInvalid, DigestUnsupported: a digest cannot be checked.
        InvalidRequest: the body is encoded or is only a part of the chunk, or a condition is
            malformed.
    """
    headers = request.headers
    declarations.check_plain(headers)
    return IncomingChunk(
        upload_id=upload_id,
        index=index,
        declared_size=request.content_length,
        expected=declarations.digests_of(headers),
        preconditions=Preconditions.of(lambda field: headers.getall(field, [])),
    )
