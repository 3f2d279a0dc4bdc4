"""Search: passages that match a query."""

from enum import StrEnum
from typing import Annotated

import msgspec

from schemas.api.documents import Box
from schemas.ids import DocumentId
from schemas.lifecycle import PassageKind


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class SearchMode(StrEnum):
    """What passages are found by."""

    HYBRID = "hybrid"
    WORDS = "words"
    VECTORS = "vectors"


class SemanticStatus(StrEnum):
    """Whether the meaning of the query was searched."""

    OK = "ok"
    NOT_WANTED = "not_wanted"  # the mode is `words`
    OFF = "off"  # the server has no model
    BUILDING = "building"  # no worker has begun to make vectors
    FAILED = "failed"
    TIMEOUT = "timeout"


class Semantic(msgspec.Struct, frozen=True, kw_only=True):
    """Whether vectors were searched, and why not."""

    status: Annotated[
        SemanticStatus,
        _described(
            "`not_wanted`: the mode is `words`; `off`: the server has no model; `building`: no vector is"
            " made yet; `failed`: the model cannot be loaded; `timeout`: it took longer than `SEARCH_TIMEOUT`"
        ),
    ]
    model: Annotated[str | None, _described("whose vectors were searched")] = None


class MatchedBy(StrEnum):
    """What led to a hit."""

    WORDS = "words"
    VECTORS = "vectors"


class Highlight(msgspec.Struct, frozen=True, kw_only=True):
    """A word or phrase of the query in a snippet: its first character, and the one after its last."""

    start: Annotated[int, _described("in characters of `text`")]
    end: int


class SearchSnippet(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a passage that matches best."""

    text: Annotated[str, _described("plain text, with spaces for line breaks")]
    html: Annotated[
        str,
        _described(
            "the text escaped for HTML, with `<mark>` around the highlights; safe to insert"
        ),
    ]
    highlights: list[Highlight]


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage of a page or of a table.

    `…/documents/{document_id}/pages/{page}` is the page; `start` and `end` are in its text.
    """

    document_id: DocumentId
    filename: str
    title: str | None
    revision: Annotated[int, _described("number of the reading that has the passage")]
    page: int
    page_label: Annotated[str | None, _described("the number printed on the page, such as `iv`")]
    passage: Annotated[int, _described("number of the passage on its page")]
    kind: PassageKind
    table: Annotated[
        int | None,
        _described(
            "number of the table in `…/documents/{document_id}/tables/{number}`; null for text"
        ),
    ]
    start: Annotated[int, _described("of the passage, in characters of the page's text")]
    end: Annotated[
        int, _described("equal to `start` for a table that is not a part of the page's text")
    ]
    language: str | None
    score: Annotated[float, _described("0 to 1, for a comparison within the answers to one query")]
    matched_by: list[MatchedBy]
    snippet: SearchSnippet
    box: Annotated[
        Box | None, _described("around the lines of the passage; null if their place is unknown")
    ]


class SearchResults(msgspec.Struct, frozen=True, kw_only=True):
    """Hits, the best first. `next_cursor` is opaque, and null on the last page."""

    items: list[SearchHit]
    mode: Annotated[SearchMode, _described("what was searched, at most what was asked for")]
    semantic: Semantic
    is_capped: Annotated[
        bool,
        _described("whether more passages have the words of the query than were compared"),
    ]
    next_cursor: str | None = None
