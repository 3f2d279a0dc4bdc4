"""The hits of a page, with their snippets."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.db import SessionPipeline
from gateway.search import queries, view
from gateway.search.fusion import Fused
from gateway.search.snippets import (
    PREFIXING,
    Pattern,
    Word,
    beginning_of,
    highlights_of,
    snippet_of,
    words_of,
    words_to_check,
)
from gateway.search.terms import Lexed, Terms, lexemes_of
from schemas.api.search import SearchHit
from schemas.ids import TenantId
from schemas.policy.search_words import AS_WRITTEN, configuration_of


async def show_hits(
    statements: SessionPipeline,
    ranked: Sequence[Fused],
    *,
    tenant_id: TenantId,
    terms: Terms,
    weights: Sequence[float],
    lexed: Lexed,
) -> list[SearchHit]:
    """Return the hits that clients still see, in their order.

    Args:
        statements: of a transaction.
        ranked: passages.
        tenant_id: whose passages.
        terms: those of the query.
        weights: how much each term counts.
        lexed: the words of the query in each configuration.
    """
    rows = await queries.hits_of(statements, [each.place for each in ranked], tenant_id=tenant_id)
    patterns, conditions = _patterns(terms)
    words = {place: words_of(row.text) for place, row in rows.items()}
    matches = await _matches(
        statements,
        [(_configuration(row, lexed), words[place]) for place, row in rows.items()],
        conditions,
    )
    hits = []
    for each in ranked:
        row = rows.get(each.place)
        if row is not None:
            highlights = highlights_of(
                row.text,
                words[each.place],
                patterns=patterns,
                matches=matches[_configuration(row, lexed)],
            )
            hits.append(view.show(each, row, snippet_of(row.text, highlights, weights=weights)))
    return hits


def _patterns(terms: Terms) -> tuple[list[Pattern], list[str]]:
    """Return the patterns of the terms, and the conditions that they number."""
    numbers = dict[str, int]()
    patterns = [
        Pattern(
            term=place,
            conditions=tuple(numbers.setdefault(one, len(numbers)) for one in sequence),
        )
        for place, term in enumerate(terms.wanted)
        for sequence in term.sequences
    ]
    return patterns, list(numbers)


async def _matches(
    statements: SessionPipeline,
    texts: Sequence[tuple[str, Sequence[Word]]],
    conditions: Sequence[str],
) -> Mapping[str, Mapping[str, set[int]]]:
    """Return for each configuration which words of the texts meet which conditions."""
    beginnings = {
        beginning_of(lexeme) for condition in conditions for lexeme in lexemes_of(condition)
    }
    wanted = dict.fromkeys(
        (word, configuration)
        for configuration, words in texts
        for word in words_to_check(
            words, beginnings=None if configuration in PREFIXING else beginnings
        )
    )
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    words_to_match = list(wanted)
    if words_to_match:
        for place, condition in await queries.matching_words(
            statements, words_to_match, conditions
        ):
            word, configuration = words_to_match[place]
            found[configuration][word].add(condition)
    return found


def _configuration(row: Any, lexed: Lexed) -> str:  # noqa: ANN401  # of `queries.hits_of`
    configuration = configuration_of(row.language)
    return configuration if configuration in lexed else AS_WRITTEN
