"""`/uploads`: create, send chunks, see what is there, give up."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

from litestar import Response, Router, delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.openapi.spec import Parameter as HeaderDescription
from litestar.params import FromPath, JSONBody, QueryParameter

from gateway.context import ApiRequest
from gateway.http import openapi, request_log
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.prefer import Prefer
from gateway.http.problems import InvalidRequest, answers
from gateway.http.security import requires
from gateway.jobs import operations as jobs
from gateway.jobs.wait import answer_of
from gateway.settings import Settings
from gateway.uploads import chunking, digests, operations, queries
from gateway.uploads.receive import Offer, receive_chunk
from gateway.webhooks.operations import register_callback
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
from schemas.policy import quotas as quota_policy
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent
from schemas.settings import UploadSettings

DECLARED_CHUNK_BYTES: Final = 192
"""Room for one chunk in the body of a finalize, with generous white space."""

DIGEST_FIELDS = ("Content-Digest", "Repr-Digest")

NOT_ADMITTED: Final = (
    ErrorCode.FILE_TOO_LARGE,
    ErrorCode.TYPE_NOT_ALLOWED,
    ErrorCode.QUOTA_EXCEEDED,
    ErrorCode.TOO_MANY_OPEN_UPLOADS,
)
"""Why a tenant may not have an upload."""

Purge = Annotated[
    bool,
    QueryParameter(description="also delete what is stored: the object, and what was read of it"),
]


SendChunk = openapi.reads_body(
    "the chunk's bytes, as they are",
    {"application/octet-stream": openapi.BINARY},
    headers=[
        HeaderDescription(
            name=field,
            param_in="header",
            required=False,
            description="`sha-256=:<base64>:`, `sha-512` or `crc32c` likewise (RFC 9530); "
            "checked before the chunk counts as received",
            schema=Schema(type=OpenAPIType.STRING),
        )
        for field in DIGEST_FIELDS
    ],
)


@post(
    "/",
    summary="Create an upload",
    guards=[requires(Scope.UPLOADS_WRITE)],
    responses=answers(
        *NOT_ADMITTED,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        ErrorCode.WEBHOOK_URL_REFUSED,
        ErrorCode.STAGING_FULL,
    ),
)
async def create_upload(
    request: ApiRequest,
    *,
    data: JSONBody[CreateUpload],
    idempotency_key: IdempotencyKey = None,
) -> Response[UploadCreated]:
    """Answer the size to cut the file into, and until when its chunks are taken."""
    context = request.context
    created = await operations.open_upload(
        context.database,
        context.staging,
        tenant_id=request.user.tenant_id,
        request=data,
        keyed=KeyedRequest.of(idempotency_key, operation="create_upload", request=data),
        terms=terms_of(context.settings),
        now=context.clock(),
        register_callback=callback_of(context.settings),
    )
    request_log.bind(upload_id=created.upload_id)
    return Response(created, headers={"Location": created.status_url.removesuffix("/status")})


@post(
    "/upload",
    summary="Finalize an upload",
    guards=[requires(Scope.UPLOADS_WRITE)],
    status_code=HTTPStatus.ACCEPTED,
    responses=answers(
        ErrorCode.UPLOAD_NOT_FOUND,
        ErrorCode.UPLOAD_NOT_OPEN,
        ErrorCode.UPLOAD_EXPIRED,
        ErrorCode.UPLOAD_INCOMPLETE,
        ErrorCode.MANIFEST_MISMATCH,
        ErrorCode.FILE_DIGEST_MISMATCH,
        ErrorCode.FILE_TOO_LARGE,
        ErrorCode.TYPE_NOT_ALLOWED,
        ErrorCode.QUOTA_EXCEEDED,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
    )
    | {
        HTTPStatus.OK: ResponseSpec(
            JobView,
            generate_examples=False,
            description="the job settled while the request waited",
        )
    },
)
async def finalize_upload(
    request: ApiRequest,
    *,
    data: JSONBody[FinalizeUpload],
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[JobView]:
    """Declare that all chunks are sent; what follows happens outside the request.

    Sent again, it answers the same job.
    """
    request_log.bind(upload_id=data.upload_id)
    context = request.context
    async with context.database.tenant_lock(request.user.tenant_id) as session:
        job = await jobs.finalize(
            session,
            tenant_id=request.user.tenant_id,
            request=data,
            keyed=KeyedRequest.of(idempotency_key, operation="finalize_upload", request=data),
            check=partial(operations.check_complete_upload, settings=context.settings),
            traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
            now=context.clock(),
        )
    request_log.bind(job_id=job.job_id)
    answer = await answer_of(job, request=request)
    return Response(answer.job, status_code=answer.status_code, headers=answer.headers)


@put(
    "/{upload_id:uuid}/chunks/{index:int}",
    summary="Send a chunk",
    guards=[requires(Scope.UPLOADS_WRITE)],
    operation_class=SendChunk,
    # A chunk is streamed to disk and has a limit of its own: its size.
    request_max_body_size=None,
    responses=answers(
        ErrorCode.CHUNK_INDEX_OUT_OF_RANGE,
        ErrorCode.CHUNK_SIZE_MISMATCH,
        ErrorCode.CHUNK_DIGEST_MISMATCH,
        ErrorCode.DIGEST_INVALID,
        ErrorCode.UPLOAD_NOT_FOUND,
        ErrorCode.UPLOAD_NOT_OPEN,
        ErrorCode.UPLOAD_EXPIRED,
        ErrorCode.CHUNK_CONFLICT,
        ErrorCode.CHUNK_IN_PROGRESS,
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
    """Store a chunk: in any order, in parallel, again.

    The answer comes when the bytes are on disk for good. Other bytes for a
    stored chunk are refused.
    """
    context = request.context
    stored = await receive_chunk(
        context.autocommit,
        context.staging,
        tenant_id=request.user.tenant_id,
        offer=_offer(request, upload_id=upload_id, index=index),
        body=request.stream(),
        lock_wait=context.settings.chunk_lock_wait,
        clock=context.clock,
    )
    return Response(stored, headers={"ETag": f'"{stored.sha256}"'})


@get(
    "/{upload_id:uuid}",
    summary="See which chunks are there",
    guards=[requires(Scope.UPLOADS_READ)],
    responses=answers(ErrorCode.UPLOAD_NOT_FOUND),
)
async def get_upload(request: ApiRequest, *, upload_id: FromPath[UploadId]) -> UploadManifest:
    """List the stored chunks; after a break, send the others."""
    async with request.context.database.transaction() as session:
        upload = await queries.upload_of(
            session, tenant_id=request.user.tenant_id, upload_id=upload_id
        )
        return await queries.manifest_of(session, upload)


@delete(
    "/{upload_id:uuid}",
    status_code=200,
    summary="Give an upload up",
    guards=[requires(Scope.UPLOADS_WRITE)],
    responses=answers(ErrorCode.UPLOAD_NOT_FOUND, ErrorCode.UPLOAD_ALREADY_SETTLED),
)
async def abandon_upload(
    request: ApiRequest,
    *,
    upload_id: FromPath[UploadId],
    purge: Purge = False,
) -> UploadAbandoned:
    """Cancel before, during or after sending; everything temporary goes.

    What is stored already stays, unless it is to be purged: then the object and
    all that was read from it go too, and a job that had completed is cancelled.
    """
    context = request.context
    return await operations.abandon_upload(
        context.database,
        context.staging,
        tenant_id=request.user.tenant_id,
        upload_id=upload_id,
        purge=purge,
        now=context.clock(),
    )


router = Router(
    "/uploads",
    route_handlers=[create_upload, send_chunk, get_upload, abandon_upload],
    tags=["uploads"],
)


def finalize_router(settings: UploadSettings, *, body_max: int) -> Router:
    """Return the route of finalize; the body may name every chunk, so the route has its own limit."""
    return Router(
        "/",
        route_handlers=[finalize_upload],
        request_max_body_size=body_max + settings.chunk_count_max * DECLARED_CHUNK_BYTES,
        tags=["jobs"],
    )


def callback_of(settings: Settings) -> operations.RegisterCallback:
    return partial(register_callback, allow_loopback=settings.webhook_allow_loopback)


def terms_of(settings: Settings) -> operations.Terms:
    return operations.Terms(
        limits=chunking.Limits(
            default=settings.chunk_size_default,
            smallest=settings.chunk_size_min,
            largest=settings.chunk_size_max,
            most_chunks=settings.chunk_count_max,
        ),
        lifetime=settings.upload_ttl,
        quotas=quota_policy.Quotas.from_settings(settings),
    )


def _offer(request: ApiRequest, *, upload_id: UploadId, index: int) -> Offer:
    """Read everything the head of the request says about its body.

    Raises:
        DigestInvalid: a digest field is malformed.
        InvalidRequest: the body is encoded, or a part of something.
    """
    headers = request.headers
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest("chunks are stored as they are sent", field="Content-Encoding")
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        # The server undoes the chunking alone; what is left would be stored still encoded.
        raise InvalidRequest("chunks are stored as they are sent", field="Transfer-Encoding")
    if "content-range" in headers:
        # RFC 9110, 14.5: who ignored it would store a part as the whole.
        raise InvalidRequest("a chunk is sent whole", field="Content-Range")
    return Offer(
        upload_id=upload_id,
        index=index,
        declared_size=request.content_length,
        expected=tuple(
            one
            for field in DIGEST_FIELDS
            for one in digests.parse(", ".join(headers.getall(field, [])), field=field)
        ),
    )
