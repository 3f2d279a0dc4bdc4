"""Hits as clients see them."""

from typing import Any

from gateway.documents.view import box_around, lines_of
from gateway.search.fusion import Fused
from gateway.search.snippets import Snippet
from schemas.api.documents import Box
from schemas.api.search import Highlight, MatchedBy, SearchHit, SearchSnippet
from schemas.lifecycle import PassageKind
from schemas.policy.passage_ordinals import table_of_passage


def show(fused: Fused, row: Any, snippet: Snippet) -> SearchHit:  # noqa: ANN401  # of `queries.hits_of`
    """Return a hit.

    Args:
        fused: the passage in the ranking.
        row: the passage, its page and its document.
        snippet: the part that matches best.
    """
    return SearchHit(
        document_id=row.document_id,
        filename=row.filename,
        title=row.title,
        revision=row.revision,
        page=row.page,
        page_label=row.page_label,
        passage=row.ordinal,
        kind=PassageKind(row.kind),
        table=table_of_passage(row.ordinal),
        start=row.start,
        end=row.end,
        language=row.language,
        score=round(min(1.0, max(0.0, fused.score)), 4),
        matched_by=[
            *([MatchedBy.WORDS] if fused.by_words else []),
            *([MatchedBy.VECTORS] if fused.by_meaning else []),
        ],
        snippet=SearchSnippet(
            text=snippet.text,
            html=snippet.html,
            highlights=[Highlight(start=start, end=end) for start, end in snippet.highlights],
        ),
        box=_box(row),
    )


def _box(row: Any) -> Box | None:  # noqa: ANN401  # as in `show`
    return box_around(
        line.box
        for line in lines_of(row.lines or ())
        if line.start < row.end and row.start < line.end
    )
