"""`/documents`: stored files, and the text and entities read from them."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from litestar import Router, get
from litestar.enums import HttpMethod
from litestar.params import FromPath, PathParameter, QueryParameter
from litestar.response import Redirect, Stream

from gateway.context import ApiRequest
from gateway.documents import listing, queries, view
from gateway.documents.content_disposition import content_disposition, media_type_of
from gateway.documents.errors import check_is_served
from gateway.documents.listing import Filters
from gateway.documents.queries import PlaceOnPage
from gateway.http import paging
from gateway.http.pairs import Metadata, metadata_of
from gateway.http.problems import InvalidRequest, answers
from gateway.http.security import requires
from gateway.http.times import Time, time_of
from schemas.api.documents import (
    DocumentAttachments,
    DocumentEntity,
    DocumentOutline,
    DocumentPage,
    DocumentPassage,
    DocumentView,
)
from schemas.api.paging import PageOf
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import DocumentId
from schemas.lifecycle import DocumentStatus
from schemas.object_keys import ObjectKey
from schemas.outcomes import Outcome
from schemas.tables.documents import Revision

PAGE_MAX: Final = 2**31 - 1

WITHHELD: Final = (
    ErrorCode.SCAN_PENDING,
    ErrorCode.MALWARE_FOUND,
    ErrorCode.DOCUMENT_UNSCANNABLE,
)
"""Why a file is not served."""

PARTS_OF_PAGE: Final = frozenset({"lines", "sentences"})

NO_NUL: Final = r"^[^\x00]*$"

PageNumber = Annotated[int, PathParameter(ge=1, le=PAGE_MAX, description="the first page is 1")]
FirstPage = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="the first page to read")]
LastPage = Annotated[int, QueryParameter(ge=1, le=PAGE_MAX, description="the last page to read")]
Include = Annotated[
    str, QueryParameter(max_length=64, description="`lines`, `sentences`, or both with a comma")
]


def _filter(description: str, *, max_length: int, pattern: str = NO_NUL) -> Any:  # noqa: ANN401  # the framework has no public type
    return QueryParameter(
        max_length=max_length, pattern=pattern, required=False, description=description
    )


Label = Annotated[
    str | None, _filter("only entities of this label, such as `PERSON` or `DATE`", max_length=64)
]
Status = Annotated[
    DocumentStatus | None,
    QueryParameter(required=False, description="only documents of this status"),
]
ChosenOutcome = Annotated[
    Outcome | None, QueryParameter(required=False, description="only documents of this outcome")
]
Language = Annotated[
    str | None, _filter("only documents in this language, such as `de`", max_length=16)
]
ContentType = Annotated[
    str | None,
    _filter("only files of this media type; parameters are not compared", max_length=255),
]
Sha256 = Annotated[
    str | None,
    _filter("only files with these bytes, hex", max_length=64, pattern="^[0-9a-f]{64}$"),
]
FilenamePrefix = Annotated[
    str | None,
    _filter("only files whose name begins so; the list is then ordered by name", max_length=1024),
]


@get(
    "/",
    summary="List documents",
    responses=answers(),
)
async def list_documents(  # noqa: PLR0913  # one for each filter
    request: ApiRequest,
    *,
    status: Status = None,
    outcome: ChosenOutcome = None,
    language: Language = None,
    content_type: ContentType = None,
    sha256: Sha256 = None,
    filename_prefix: FilenamePrefix = None,
    created_after: Time = None,
    created_before: Time = None,
    metadata: Metadata = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[DocumentView]:
    """List the tenant's documents, newest first; with `filename_prefix`, by name.

    A page of several filters may have fewer items than `limit`, even none: follow `next_cursor`
    until it is null.
    """
    filters = Filters(
        status=status,
        outcome=outcome,
        language=language,
        content_type=content_type,
        sha256=sha256,
        filename_prefix=filename_prefix,
        created_after=time_of(created_after, field="created_after"),
        created_before=time_of(created_before, field="created_before"),
        metadata=metadata_of(metadata),
    )
    async with request.context.database.transaction() as session:
        return await listing.page_of(
            session,
            filters,
            tenant_id=request.user.tenant_id,
            cursor=cursor,
            limit=min(limit, request.context.settings.page_size_max),
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
    """Show a document: its file, and what was read from it."""
    async with request.context.database.transaction() as session:
        document = await queries.document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        revisions = await queries.revisions_to_show(session, [document])
    return view.show(document, revisions.get(document_id))


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
    page_from: FirstPage = 1,
    page_to: LastPage = PAGE_MAX,
) -> Stream:
    """Stream the text of all pages, or of some, separated by form feeds.

    While pages wait for OCR, their text is empty.
    """
    async with request.context.database.transaction() as session:
        _, revision = await queries.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        last = min(page_to, await queries.last_page_of(session, revision))
    # The answer to HEAD ends after its head: the server would cut off the first query, and the
    # driver would close its connection.
    is_head = request.method == HttpMethod.HEAD
    return Stream(
        ()
        if is_head
        else queries.text_of(request.context.database, revision.id, first=page_from, last=last),
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
    include: Include = "",
) -> DocumentPage:
    """Show the text of one page, or why it could not be read."""
    included = _included(include)
    async with request.context.database.transaction() as session:
        document, revision = await queries.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        return await queries.page_of_document(
            session,
            document,
            revision,
            number=number,
            has_sentences="sentences" in included,
            has_lines="lines" in included,
        )


@get(
    "/{document_id:uuid}/outline",
    summary="Show the outline",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND),
)
async def get_outline(request: ApiRequest, *, document_id: FromPath[DocumentId]) -> DocumentOutline:
    """Show the bookmarks of a document, as far as its format has any."""
    async with request.context.database.transaction() as session:
        document = await queries.document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        items, is_cut = await queries.structure_of(session, document, Revision.outline)
    return view.show_outline(document, items, is_cut=is_cut)


@get(
    "/{document_id:uuid}/attachments",
    summary="List the files inside a document",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND, *WITHHELD),
)
async def list_attachments(
    request: ApiRequest, *, document_id: FromPath[DocumentId]
) -> DocumentAttachments:
    """List the files that are embedded in a document; `…/file` has their bytes."""
    async with request.context.database.transaction() as session:
        document = await queries.document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        check_is_served(document)
        items, is_cut = await queries.structure_of(session, document, Revision.attachments)
    return view.show_attachments(document, items, is_cut=is_cut)


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
        _, revision = await queries.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        page = paging.page_of(
            await queries.entities_of(
                session,
                revision,
                label=label,
                after=paging.decode(cursor, to=PlaceOnPage),
                limit=limit,
            ),
            limit=limit,
            show=lambda entity: entity,
            position=lambda one: PlaceOnPage(page=one.page, ordinal=one.ordinal),
        )
        return PageOf(
            items=await queries.show_entities(session, page.items), next_cursor=page.next_cursor
        )


@get(
    "/{document_id:uuid}/passages",
    summary="List the passages of a document",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND, ErrorCode.DOCUMENT_NOT_READY),
)
async def list_passages(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    cursor: paging.Cursor = None,
    limit: paging.Limit = paging.LIMIT_DEFAULT,
) -> PageOf[DocumentPassage]:
    """List passages in reading order: the parts of a document that search finds.

    Headers and footers are left out. `start` and `end` are offsets in the text of the page; those of a
    table are both 0 if its cells are not a part of that text.
    """
    limit = min(limit, request.context.settings.page_size_max)
    async with request.context.database.transaction() as session:
        _, revision = await queries.readable_document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
        passages = await queries.passages_of(
            session, revision, after=paging.decode(cursor, to=PlaceOnPage), limit=limit
        )
    return paging.page_of(
        passages,
        limit=limit,
        show=lambda passage: passage,
        position=lambda last: PlaceOnPage(page=last.page, ordinal=last.ordinal),
    )


@get(
    "/{document_id:uuid}/file",
    summary="Download the file",
    status_code=HTTPStatus.TEMPORARY_REDIRECT,
    response_description="`Location` is a URL in the object store",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND, *WITHHELD),
)
async def get_file(request: ApiRequest, *, document_id: FromPath[DocumentId]) -> Redirect:
    """Redirect to the stored file in the object store, under a URL that works for a few minutes.

    PDFs and images open in a browser; other files are downloaded. A type that can run scripts is
    served as bytes. A file that the malware scan has not passed is withheld.
    """
    async with request.context.database.transaction() as session:
        document = await queries.document_of(
            session, tenant_id=request.user.tenant_id, document_id=document_id
        )
    check_is_served(document)
    return await redirect_to(
        request,
        ObjectKey(document.object_key),
        filename=document.filename,
        content_type=document.content_type,
    )


async def redirect_to(
    request: ApiRequest, key: ObjectKey, *, filename: str, content_type: str
) -> Redirect:
    """Return the redirect to an object.

    Raises:
        NoStore: the gateway has no settings of the object store.
    """
    url = await request.context.links.url_of(
        key,
        media_type=media_type_of(content_type),
        disposition=content_disposition(filename, content_type=content_type),
        is_head=request.method == HttpMethod.HEAD,
    )
    return Redirect(url, status_code=HTTPStatus.TEMPORARY_REDIRECT.value)


router = Router(
    "/documents",
    route_handlers=[
        list_documents,
        get_document,
        get_text,
        get_page,
        list_entities,
        list_passages,
        get_outline,
        list_attachments,
        get_file,
    ],
    opt=requires(Scope.DOCUMENTS_READ),
    tags=["documents"],
)


def _included(include: str) -> frozenset[str]:
    """Return the parts of a page that are asked for.

    Raises:
        InvalidRequest: there is no such part.
    """
    included = frozenset(each.strip() for each in include.split(",") if each.strip())
    unknown = included - PARTS_OF_PAGE
    if unknown:
        raise InvalidRequest(
            f"{min(unknown)!r} is none of {', '.join(sorted(PARTS_OF_PAGE))}", field="include"
        )
    return included
