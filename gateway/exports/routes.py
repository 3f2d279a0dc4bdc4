"""`/exports`: files with the rows of a query."""

from http import HTTPStatus

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from litestar.response import Redirect

from gateway.context import ApiRequest
from gateway.documents.routes import redirect_to
from gateway.exports import queries
from gateway.exports.create import create_export
from gateway.exports.discard import delete_export
from gateway.http import paging, request_log, revalidation
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import requires
from gateway.uploads.routes import BACKLOG_ERRORS
from schemas.api.exports import CreateExport, ExportView
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import ExportId
from schemas.policy import media_types
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent
from schemas.tables.exports import Export


@post(
    "/",
    summary="Create an export",
    status_code=HTTPStatus.ACCEPTED,
    opt=requires(Scope.EXPORTS_WRITE),
    responses=answers(
        *BODY_ERRORS,
        ErrorCode.EXPORT_NOT_FOUND,
        *BACKLOG_ERRORS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        has_json=True,
    ),
)
async def post_export(
    request: ApiRequest, *, data: JSONBody[CreateExport], idempotency_key: IdempotencyKey = None
) -> Response[ExportView]:
    """Start to write the rows of a query into a file: those of one moment, oldest first.

    Follow the export, its job, or the event `export.completed`; then download the file.
    """
    export = await create_export(
        request.context,
        tenant_id=request.user.tenant_id,
        request=data,
        keyed=KeyedRequest.of(idempotency_key, operation="create_export", request=data),
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )
    request_log.bind(job_id=export.job_id)
    return Response(
        export, status_code=HTTPStatus.ACCEPTED, headers={"Location": export.status_url}
    )


@get("/", summary="List exports", responses=answers())
async def list_exports(
    request: ApiRequest, *, cursor: paging.Cursor = None, limit: paging.Limit = paging.LIMIT_DEFAULT
) -> PageOf[ExportView]:
    """List the tenant's exports, newest first."""
    async with request.context.database.transaction() as session:
        page = await paging.newest_first(
            session,
            queries.exports_of(request.user.tenant_id),
            Export,
            cursor=cursor,
            limit=min(limit, request.context.settings.page_size_max),
            show=lambda export: export,
        )
        return PageOf(
            items=await queries.show_all(session, page.items), next_cursor=page.next_cursor
        )


@get(
    "/{export_id:uuid}",
    summary="Show an export",
    responses=answers(ErrorCode.EXPORT_NOT_FOUND) | revalidation.NOT_MODIFIED,
)
async def get_export(request: ApiRequest, *, export_id: FromPath[ExportId]) -> Response[ExportView]:
    """Show an export with its progress in rows; 304 if it is as `If-None-Match` says."""
    async with request.context.database.transaction() as session:
        export = await queries.export_of(
            session, tenant_id=request.user.tenant_id, export_id=export_id
        )
    return revalidation.answer(request, msgspec.json.encode(export))


@get(
    "/{export_id:uuid}/file",
    summary="Download the file of an export",
    status_code=HTTPStatus.TEMPORARY_REDIRECT,
    response_description="`Location` is a URL in the object store",
    responses=answers(
        ErrorCode.EXPORT_NOT_FOUND, ErrorCode.EXPORT_NOT_READY, ErrorCode.EXPORT_EXPIRED
    ),
)
async def get_export_file(request: ApiRequest, *, export_id: FromPath[ExportId]) -> Redirect:
    """Redirect to the file in the object store, under a URL that works for a few minutes."""
    async with request.context.database.transaction() as session:
        file = await queries.file_of(session, tenant_id=request.user.tenant_id, export_id=export_id)
    return await redirect_to(
        request, file.key, filename=file.filename, content_type=media_types.EXPORTED[file.format]
    )


@delete(
    "/{export_id:uuid}",
    summary="Delete an export",
    opt=requires(Scope.EXPORTS_WRITE),
    responses=answers(ErrorCode.EXPORT_NOT_FOUND),
)
async def remove_export(request: ApiRequest, *, export_id: FromPath[ExportId]) -> None:
    """Delete an export, and its file within minutes; one that has not ended is cancelled."""
    async with request.context.database.transaction() as session:
        await delete_export(
            session,
            tenant_id=request.user.tenant_id,
            export_id=export_id,
            settings=request.context.settings,
        )


router = Router(
    "/exports",
    route_handlers=[post_export, list_exports, get_export, get_export_file, remove_export],
    opt=requires(Scope.EXPORTS_READ),
    tags=["exports"],
)
