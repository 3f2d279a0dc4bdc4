"""`/search`: passages of all documents."""

from typing import Annotated, Final

from litestar import Router, get
from litestar.params import QueryParameter

from gateway.context import ApiRequest
from gateway.documents.routes import NO_NUL
from gateway.http import paging
from gateway.http.pairs import Metadata, metadata_of
from gateway.http.problems import answers
from gateway.http.security import requires
from gateway.http.times import Time, time_of
from gateway.search.find import find
from gateway.search.query import LENGTH_MAX
from gateway.search.request import DocumentFilters, SearchRequest
from schemas.api.scopes import Scope
from schemas.api.search import SearchMode, SearchResults
from schemas.errors import ErrorCode
from schemas.ids import DocumentId
from schemas.lifecycle import PassageKind
from schemas.policy import media_types

LIMIT_DEFAULT: Final = 10

Words = Annotated[
    str,
    QueryParameter(
        name="q",
        max_length=LENGTH_MAX,
        pattern=NO_NUL,
        description=(
            'words or a question; `"…"` is a phrase, `word*` the beginning of a word, `-word` excludes,'
            " `OR` and `AND` stand between two"
        ),
    ),
]
Mode = Annotated[
    SearchMode,
    QueryParameter(description="`words`, `vectors` (other words for the same), or both"),
]
InDocument = Annotated[
    DocumentId | None, QueryParameter(required=False, description="only this document")
]
Language = Annotated[
    str | None,
    QueryParameter(
        required=False,
        max_length=16,
        pattern=NO_NUL,
        description="only passages in this language, such as `de`",
    ),
]
Kind = Annotated[
    PassageKind | None,
    QueryParameter(required=False, description="only passages of text, or of tables"),
]
ContentType = Annotated[
    str | None,
    QueryParameter(
        required=False,
        max_length=255,
        pattern=NO_NUL,
        description="only files of this media type; parameters are not compared",
    ),
]
FilenamePrefix = Annotated[
    str | None,
    QueryParameter(
        required=False,
        max_length=1024,
        pattern=NO_NUL,
        description="only files whose name begins so",
    ),
]


@get(
    "/",
    summary="Search passages",
    responses=answers(ErrorCode.SEARCH_QUERY_INVALID, ErrorCode.SEARCH_TIMEOUT),
)
async def search_passages(  # noqa: PLR0913  # one for each filter
    request: ApiRequest,
    *,
    words: Words,
    mode: Mode = SearchMode.HYBRID,
    document_id: InDocument = None,
    language: Language = None,
    kind: Kind = None,
    content_type: ContentType = None,
    filename_prefix: FilenamePrefix = None,
    created_after: Time = None,
    created_before: Time = None,
    metadata: Metadata = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = LIMIT_DEFAULT,
) -> SearchResults:
    """Find passages of the tenant's documents by their words and by their meaning, the best first.

    Plain words need not all be there: passages with more and rarer ones come first. Phrases, beginnings
    of words, `OR` and `AND` are required. Only the reading that a document shows is searched.

    A ranking has at most `SEARCH_RESULTS_MAX` hits. `semantic` says whether vectors were searched; if
    they cannot be, words alone answer.
    """
    settings = request.context.settings
    return await find(
        request.context,
        SearchRequest(
            tenant_id=request.user.tenant_id,
            text=words,
            mode=mode,
            language=language and language.lower(),
            kind=kind,
            document_id=document_id,
            documents=DocumentFilters(
                content_type=None if content_type is None else media_types.essence_of(content_type),
                filename_prefix=filename_prefix,
                created_after=time_of(created_after, field="created_after"),
                created_before=time_of(created_before, field="created_before"),
                metadata=metadata_of(metadata),
            ),
            cursor=cursor,
            limit=min(limit, settings.page_size_max),
        ),
    )


router = Router(
    "/search",
    route_handlers=[search_passages],
    opt=requires(Scope.DOCUMENTS_READ),
    tags=["search"],
)
