"""`/documents/{id}/tables` and `/figures`: what stands on the pages beside their text."""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from litestar import MediaType, Response, Router, get
from litestar.datastructures.headers import Accept
from litestar.params import FromPath, PathParameter, QueryParameter

from gateway.context import ApiRequest
from gateway.document_tables import queries, view
from gateway.document_tables.queries import NumberPosition
from gateway.documents import queries as documents
from gateway.documents.content_disposition import content_disposition
from gateway.documents.routes import PAGE_MAX
from gateway.http import openapi, paging, revalidation
from gateway.http.problems import answers
from gateway.http.security import requires
from schemas.api.document_tables import DocumentFigure, DocumentTable, TableSummary
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import DocumentId

CSV: Final = "text/csv"
"""The framework adds `charset=utf-8`."""


class TableFormat(StrEnum):
    """The format of a table."""

    JSON = "json"
    CSV = "csv"


Number = Annotated[int, PathParameter(ge=1, le=PAGE_MAX, description="the first is 1")]
OnPage = Annotated[
    int | None,
    QueryParameter(
        name="page", ge=1, le=PAGE_MAX, required=False, description="only those of this page"
    ),
]
Format = Annotated[
    TableFormat | None,
    QueryParameter(name="format", required=False, description="instead of the header `Accept`"),
]

LIST_ERRORS: Final = (ErrorCode.DOCUMENT_NOT_FOUND, ErrorCode.DOCUMENT_NOT_READY)


@get(
    "/{document_id:uuid}/tables",
    summary="List the tables of a document",
    responses=answers(*LIST_ERRORS),
)
async def list_tables(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    page: OnPage = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[TableSummary]:
    """List tables in reading order, without their cells.

    They are found after the text is read: until `tables` of the document is `complete`, the list may
    grow.
    """
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        _, revision = await documents.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        found = await queries.tables_of(
            session,
            revision,
            page=page,
            after=paging.decode(cursor, to=NumberPosition),
            limit=limit,
        )
    return paging.page_of(
        found,
        limit=limit,
        show=view.show_summary,
        position=lambda table: NumberPosition(number=table.number),
    )


@get(
    "/{document_id:uuid}/tables/{number:int}",
    summary="Read a table",
    operation_class=openapi.answers_also(CSV),
    responses=answers(*LIST_ERRORS, ErrorCode.NOT_FOUND) | revalidation.NOT_MODIFIED,
)
async def get_table(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    number: Number,
    table_format: Format = None,
) -> Response[DocumentTable]:
    """Show a table with its cells; as CSV with `Accept: text/csv` or `format=csv`.

    In CSV, the text of a cell that covers several places is in the first of them, and text that a
    spreadsheet would calculate gets an apostrophe in front. 304 if the table is as `If-None-Match`
    says.
    """
    async with request.context.database.transaction() as session:
        document, revision = await documents.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        table = await queries.table_of_document(session, document_id, revision, number=number)
    if (table_format or _accepted(request)) is TableFormat.CSV:
        name = f"{document.filename}-table-{number}.csv"
        return revalidation.answer(
            request,
            view.csv_of(table),
            media_type=CSV,
            headers={
                "Content-Disposition": content_disposition(name, content_type=CSV),
                "Vary": "Accept",
            },
        )
    body = msgspec.json.encode(view.show_table(table, document))
    return revalidation.answer(request, body, headers={"Vary": "Accept"})


@get(
    "/{document_id:uuid}/figures",
    summary="List the figures of a document",
    responses=answers(*LIST_ERRORS),
)
async def list_figures(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    page: OnPage = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[DocumentFigure]:
    """List images and charts in reading order, with their places; found together with the tables."""
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        _, revision = await documents.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        found = await queries.figures_of(
            session,
            revision,
            page=page,
            after=paging.decode(cursor, to=NumberPosition),
            limit=limit,
        )
    return paging.page_of(
        found,
        limit=limit,
        show=view.show_figure,
        position=lambda figure: NumberPosition(number=figure.number),
    )


router = Router(
    "/documents",
    route_handlers=[list_tables, get_table, list_figures],
    opt=requires(Scope.DOCUMENTS_READ),
    tags=["documents"],
)


def _accepted(request: ApiRequest) -> TableFormat:
    """Return the format that the header `Accept` prefers; JSON if it names neither."""
    preferred = Accept(request.headers.get("accept", "*/*")).best_match([MediaType.JSON, CSV])
    return TableFormat.CSV if preferred == CSV else TableFormat.JSON
