"""`/documents`: stored files, and the text and entities read from them."""

from http import HTTPStatus
from typing import Annotated

from litestar import Router, get
from litestar.enums import HttpMethod
from litestar.params import FromPath, PathParameter, QueryParameter
from litestar.response import Redirect, Stream

from gateway.context import ApiRequest
from gateway.documents import queries
from gateway.documents.content_disposition import content_disposition, media_type_of
from gateway.documents.queries import EntityPosition
from gateway.http import paging
from gateway.http.problems import answers
from gateway.http.security import requires
from schemas.api.documents import DocumentEntity, DocumentPage, DocumentView
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import DocumentId
from schemas.object_keys import ObjectKey
from schemas.tables.documents import Document

PageNumber = Annotated[int, PathParameter(ge=1, le=2**31 - 1, description="the first page is 1")]
Label = Annotated[
    str | None,
    QueryParameter(
        max_length=64,
        pattern=r"^[^\x00]*$",
        required=False,
        description="only entities of this label, such as `PERSON` or `DATE`",
    ),
]


@get(
    "/",
    summary="List documents",
    responses=answers(),
)
async def list_documents(
    request: ApiRequest,
    *,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[DocumentView]:
    """List the tenant's documents, newest first."""
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        return await paging.newest_first(
            session,
            queries.documents_of(request.user.tenant_id),
            Document,
            cursor=cursor,
            limit=limit,
            show=queries.show,
        )


@get(
    "/{document_id:uuid}",
    summary="Show a document",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND),
)
async def get_document(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
) -> DocumentView:
    """Show a document: its file, and the result of ingesting it."""
    async with request.context.database.transaction() as session:
        document = await queries.document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
    return queries.show(document)


@get(
    "/{document_id:uuid}/text",
    summary="Read the text",
    media_type="text/plain",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND, ErrorCode.DOCUMENT_NOT_READY),
)
async def get_text(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
) -> Stream:
    """Stream the text of all pages, separated by form feeds."""
    async with request.context.database.transaction() as session:
        document = await queries.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
    # The answer to HEAD ends after its head: the server would cut off the first query, and the
    # driver would close its connection.
    is_head = request.method == HttpMethod.HEAD
    return Stream(
        ()
        if is_head or document.revision is None
        else queries.text_of(request.context.database, document.revision.id),
        media_type="text/plain; charset=utf-8",
    )


@get(
    "/{document_id:uuid}/pages/{number:int}",
    summary="Read a page",
    responses=answers(
        ErrorCode.DOCUMENT_NOT_FOUND, ErrorCode.NOT_FOUND, ErrorCode.DOCUMENT_NOT_READY
    ),
)
async def get_page(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    number: PageNumber,
) -> DocumentPage:
    """Show the text of one page, or why it could not be read."""
    async with request.context.database.transaction() as session:
        document = await queries.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        return await queries.page_of_document(session, document, number=number)


@get(
    "/{document_id:uuid}/entities",
    summary="List the entities of a document",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND, ErrorCode.DOCUMENT_NOT_READY),
)
async def list_entities(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    label: Label = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[DocumentEntity]:
    """List entities in reading order."""
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        document = await queries.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        entities = await queries.entities_of(
            session,
            document,
            label=label,
            after=paging.decode(cursor, to=EntityPosition),
            limit=limit,
        )
    return paging.page_of(
        entities,
        limit=limit,
        show=queries.show_entity,
        position=lambda one: EntityPosition(page=one.page, ordinal=one.ordinal),
    )


@get(
    "/{document_id:uuid}/file",
    summary="Download the file",
    status_code=HTTPStatus.TEMPORARY_REDIRECT,
    response_description="`Location` is a URL in the object store",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND),
)
async def get_file(request: ApiRequest, *, document_id: FromPath[DocumentId]) -> Redirect:
    """Redirect to the stored file in the object store, under a URL that works for a few minutes.

    PDFs and images open in a browser; other files are downloaded. A type that can run scripts is
    served as bytes.
    """
    context = request.context
    async with context.database.transaction() as session:
        document = await queries.document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
    url = await context.links.url_of(
        ObjectKey(document.object_key),
        media_type=media_type_of(document.content_type),
        disposition=content_disposition(document.filename, content_type=document.content_type),
        is_head=request.method == HttpMethod.HEAD,
    )
    return Redirect(url, status_code=HTTPStatus.TEMPORARY_REDIRECT.value)


router = Router(
    "/documents",
    route_handlers=[list_documents, get_document, get_text, get_page, list_entities, get_file],
    opt=requires(Scope.DOCUMENTS_READ),
    tags=["documents"],
)
