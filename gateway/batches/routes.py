"""`/batches`: many files by reference or upload id, in one request."""

from http import HTTPStatus
from typing import Annotated, Final
from uuid import uuid4

import msgspec
from litestar import Response, Router, get, post
from litestar.enums import HttpMethod
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from gateway.batches import change, queries, view
from gateway.batches.cancel import cancel_batch
from gateway.batches.errors import BatchEnded
from gateway.batches.receive import NewBatch, receive_batch
from gateway.batches.report import MEDIA_TYPES, report_of
from gateway.context import ApiRequest
from gateway.http import declarations, digests, openapi, paging, request_log
from gateway.http.idempotency import IdempotencyKey
from gateway.http.pairs import pairs_of
from gateway.http.problems import BODY_ERRORS, InvalidRequest, answers
from gateway.http.security import requires
from gateway.uploads.routes import BACKLOG_ERRORS
from schemas.api import uploads
from schemas.api.batches import BatchItemView, BatchLine, BatchView, ReportFormat
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import BatchId
from schemas.lifecycle import BatchEvents, BatchLineState, BatchStatus
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent
from schemas.tables.batches import Batch

JSON_LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")

SendLines = openapi.reads_body(
    "one JSON object per line; a line that is not valid is rejected alone",
    {media_type: openapi.schema_of(BatchLine) for media_type in JSON_LINES},
)

Events = Annotated[
    BatchEvents,
    QueryParameter(
        description="which events webhooks receive: `each` those of every document, `batch` those of"
        " the batch alone. The feed has all of them"
    ),
]
Metadata = Annotated[
    list[str] | None,
    QueryParameter(
        max_items=uploads.METADATA_COUNT_MAX,
        required=False,
        description="`name:value`, added to the metadata of each line; repeatable",
    ),
]
State = Annotated[
    BatchLineState | None,
    QueryParameter(name="state", description="only lines in this state", required=False),
]
Format = Annotated[ReportFormat, QueryParameter(name="format", description="of the report")]


class LinePosition(msgspec.Struct, frozen=True, array_like=True):
    """A position among the lines of a batch."""

    line: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]


@post(
    "/",
    summary="Create a batch",
    status_code=HTTPStatus.ACCEPTED,
    opt=requires(Scope.UPLOADS_WRITE),
    operation_class=SendLines,
    # Lines are stored while they arrive; `BATCH_BYTES_MAX` is the limit.
    request_max_body_size=None,
    responses=answers(
        *BODY_ERRORS,
        *BACKLOG_ERRORS,
        ErrorCode.BATCH_TOO_LARGE,
        ErrorCode.TOO_MANY_BATCHES,
        ErrorCode.BATCH_NOT_FOUND,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ),
)
async def post_batch(
    request: ApiRequest,
    *,
    events: Events = BatchEvents.EACH,
    metadata: Metadata = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[BatchView]:
    """Submit many files, one per line: an object in the bucket by its key, or an upload by its id.

    Lines become jobs of priority `bulk`, in their order, as many at a time as `BATCH_OPEN_MAX`. The
    answer comes once all lines are stored; if the request breaks off, none of them is kept. Rejected
    lines are in the report.
    """
    _check_type(request)
    declarations.check_plain(request.headers)
    expected = declarations.digests_of(request.headers)
    batch = NewBatch(
        id=BatchId(uuid4()),
        tenant_id=request.user.tenant_id,
        events=events,
        metadata=_metadata(metadata),
        idempotency_key=idempotency_key,
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )
    with request.context.bodies.arriving(batch.tenant_id) as arriving:
        received = await receive_batch(
            request.context,
            batch,
            digests.checked(request.stream(), expected=expected),
            length=request.content_length,
            arriving=arriving,
        )
    request_log.bind(batch_id=received.batch_id, job_id=received.job_id)
    return Response(
        received, status_code=HTTPStatus.ACCEPTED, headers={"Location": received.status_url}
    )


@get("/", summary="List batches", responses=answers())
async def list_batches(
    request: ApiRequest, *, cursor: paging.Cursor = None, limit: paging.Limit = paging.LIMIT_DEFAULT
) -> PageOf[BatchView]:
    """List the tenant's batches, newest first."""
    async with request.context.database.transaction() as session:
        return await paging.newest_first(
            session,
            queries.batches_of(request.user.tenant_id),
            Batch,
            cursor=cursor,
            limit=min(limit, request.context.settings.page_size_max),
            show=view.show,
        )


@get("/{batch_id:uuid}", summary="Show a batch", responses=answers(ErrorCode.BATCH_NOT_FOUND))
async def get_batch(request: ApiRequest, *, batch_id: FromPath[BatchId]) -> BatchView:
    """Show a batch with the number of its lines in each state."""
    return await _read(request, batch_id)


@get(
    "/{batch_id:uuid}/items",
    summary="List the lines of a batch",
    responses=answers(ErrorCode.BATCH_NOT_FOUND),
)
async def list_items(
    request: ApiRequest,
    *,
    batch_id: FromPath[BatchId],
    line_state: State = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[BatchItemView]:
    """List the lines of a batch in their order, with what became of each."""
    after = paging.decode(cursor, to=LinePosition)
    limit = min(limit, request.context.settings.page_size_max)
    await _read(request, batch_id)
    rows = await queries.lines_of(
        request.context.autocommit,
        batch_id,
        state=line_state,
        after=after.line if after else 0,
        limit=limit + 1,
    )
    return paging.page_of(
        rows,
        limit=limit,
        show=view.show_line,
        position=lambda row: LinePosition(line=row.line),
    )


@get(
    "/{batch_id:uuid}/report",
    summary="Download the report of a batch",
    media_type=MEDIA_TYPES[ReportFormat.JSONL],
    responses=answers(ErrorCode.BATCH_NOT_FOUND),
)
async def get_report(
    request: ApiRequest,
    *,
    batch_id: FromPath[BatchId],
    report_format: Format = ReportFormat.JSONL,
) -> Stream:
    """Stream every line with its state, its job and its error, as in `items`.

    While the batch is live, a line has the state of the moment in which it is read. In CSV, text
    that a spreadsheet would calculate gets an apostrophe in front.
    """
    batch = await _read(request, batch_id)
    name = f"batch-{batch.created_at:%Y%m%d-%H%M%S}.{report_format}"
    # The answer to HEAD ends after its head: the server would cut off the first query, and the
    # driver would close its connection.
    is_head = request.method == HttpMethod.HEAD
    return Stream(
        ()
        if is_head
        else report_of(
            request.context.autocommit,
            batch_id,
            lines=batch.counts.lines,
            report_format=report_format,
        ),
        media_type=MEDIA_TYPES[report_format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@post(
    "/{batch_id:uuid}/pause",
    summary="Pause a batch",
    status_code=HTTPStatus.OK,
    opt=requires(Scope.UPLOADS_WRITE),
    responses=answers(ErrorCode.BATCH_NOT_FOUND, ErrorCode.BATCH_ENDED),
)
async def pause_batch(request: ApiRequest, *, batch_id: FromPath[BatchId]) -> BatchView:
    """Let no further line become a job; jobs of lines that have started continue."""
    async with request.context.database.transaction() as session:
        return await change.pause(session, tenant_id=request.user.tenant_id, batch_id=batch_id)


@post(
    "/{batch_id:uuid}/resume",
    summary="Resume a batch",
    status_code=HTTPStatus.OK,
    opt=requires(Scope.UPLOADS_WRITE),
    responses=answers(ErrorCode.BATCH_NOT_FOUND, ErrorCode.BATCH_ENDED),
)
async def resume_batch(request: ApiRequest, *, batch_id: FromPath[BatchId]) -> BatchView:
    """Let the lines of a paused batch become jobs again, in their order."""
    async with request.context.database.transaction() as session:
        return await change.resume(session, tenant_id=request.user.tenant_id, batch_id=batch_id)


@post(
    "/{batch_id:uuid}/cancel",
    summary="Cancel a batch",
    status_code=HTTPStatus.OK,
    opt=requires(Scope.UPLOADS_WRITE),
    responses=answers(ErrorCode.BATCH_NOT_FOUND, ErrorCode.BATCH_ENDED),
)
async def post_cancel(request: ApiRequest, *, batch_id: FromPath[BatchId]) -> BatchView:
    """Cancel the lines that wait, and the jobs of those that have started; what is stored stays.

    No further line becomes a job. The counts follow within moments, then `finished_at` and the event
    `batch.cancelled`.
    """
    context, tenant_id = request.context, request.user.tenant_id
    async with context.database.tenant_lock(tenant_id) as session:
        await cancel_batch(
            session, tenant_id=tenant_id, batch_id=batch_id, settings=context.settings
        )
        batch = await queries.batch_of(session, tenant_id=tenant_id, batch_id=batch_id)
    if batch.status is not BatchStatus.CANCELLED:
        raise BatchEnded(batch_id, status=batch.status)
    return batch


router = Router(
    "/batches",
    route_handlers=[
        post_batch,
        list_batches,
        get_batch,
        list_items,
        get_report,
        pause_batch,
        resume_batch,
        post_cancel,
    ],
    opt=requires(Scope.UPLOADS_READ),
    tags=["batches"],
)


async def _read(request: ApiRequest, batch_id: BatchId) -> BatchView:
    """Read a batch of the tenant.

    Raises:
        BatchNotFound: the tenant has no such batch.
    """
    async with request.context.database.transaction() as session:
        return await queries.batch_of(session, tenant_id=request.user.tenant_id, batch_id=batch_id)


def _check_type(request: ApiRequest) -> None:
    """Check that the body is JSON Lines.

    Raises:
        InvalidRequest: the body is of another type, or of none.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in JSON_LINES:
        raise InvalidRequest(f"a batch is sent as {JSON_LINES[0]}", field="Content-Type")


def _metadata(pairs: list[str] | None) -> dict[str, str]:
    try:
        return msgspec.convert(pairs_of(pairs, field="metadata"), uploads.Metadata)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), field="metadata") from error
