"""The ranking by words."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from gateway.context import Context
from gateway.db import SessionPipeline
from gateway.search import queries
from gateway.search.candidates import (
    Base,
    Selection,
    Sizes,
    base_of,
    crowded_selection_of,
    scope_of,
    selection_of,
)
from gateway.search.fusion import Scored
from gateway.search.query import Query
from gateway.search.ranking import Candidate, scores, weights_of
from gateway.search.request import SearchRequest
from gateway.search.terms import Lexed, Terms, rarest, terms_of
from schemas.policy.search_words import tenant_mark

TERMS_MAX: Final = 48
"""Terms of a query that count: the rarest. The candidates have a bit for each in a bigint."""


@dataclass(frozen=True, kw_only=True)
class WordRanking:
    """The passages with words of the query, the best first.

    Attributes:
        weights: how much each term counts.
        is_capped: whether more passages have the terms than were compared.
    """

    scored: Sequence[Scored]
    weights: Sequence[float]
    is_capped: bool


async def understand(
    context: Context, statements: SessionPipeline, query: Query, request: SearchRequest
) -> tuple[Terms, Lexed]:
    """Return the terms of a query, and its words in each text search configuration.

    Raises:
        SearchQueryInvalid: the query has no word.
    """
    lexed = await queries.lexed(
        statements, query.atoms, tenant_id=request.tenant_id, language=request.language
    )
    shares = await context.search_statistics.shares(lambda: queries.shares(statements))
    return rarest(terms_of(query, lexed, shares=shares), limit=TERMS_MAX), lexed


async def rank_by_words(
    context: Context, statements: SessionPipeline, terms: Terms, request: SearchRequest
) -> WordRanking:
    """Return the passages with the terms.

    The passages with the rarest terms are read, at most `SEARCH_CANDIDATES`. If there are more, those
    with every term come first.
    """
    limit = context.settings.search_candidates
    sizes = await _sizes(context, statements, request)
    base = await _base(context, statements, terms, request, sizes=sizes)
    selection = selection_of(base, sizes=sizes, limit=limit)
    candidates = await _candidates(statements, selection, base, request, limit=limit)
    decisive = selection.decisive
    is_capped = len(candidates) >= limit
    if is_capped:
        decisive = frozenset()
        if len(selection.conditions) == 1 and selection.walk is None:
            crowded = crowded_selection_of(base, sizes=sizes, limit=limit)
            if len(crowded.conditions) > 1:
                candidates = await _candidates(statements, crowded, base, request, limit=limit)
    weights = weights_of(terms.wanted, candidates, passages=sizes.of_tenant, decisive=decisive)
    scored = [
        Scored(each.place, value)
        for each, value in zip(candidates, scores(candidates, weights), strict=True)
    ]
    return WordRanking(
        scored=sorted(scored, key=lambda each: (-each.score, each.place)),
        weights=weights,
        is_capped=is_capped,
    )


async def _candidates(
    statements: SessionPipeline,
    selection: Selection,
    base: Base,
    request: SearchRequest,
    *,
    limit: int,
) -> list[Candidate]:
    terms = base.terms.wanted
    if selection.walk is not None:
        found = await queries.newest_candidates(
            statements, selection.walk, terms, request=request, limit=limit
        )
        if len(found) == limit:
            return found
    return await queries.candidates_of(
        statements, selection.conditions, terms, checked=base.checked, request=request, limit=limit
    )


async def _sizes(context: Context, statements: SessionPipeline, request: SearchRequest) -> Sizes:
    shares = await context.search_statistics.shares(lambda: queries.shares(statements))
    return Sizes(
        of_tenant=await passages_of(context, statements, request),
        of_all=shares.passages,
        rare=shares.rare,
    )


async def _base(
    context: Context,
    statements: SessionPipeline,
    terms: Terms,
    request: SearchRequest,
    *,
    sizes: Sizes,
) -> Base:
    """Return what the candidates have; without the tenant, which is checked, if it has most passages.

    To intersect with the long list of its mark would take longer than to discard the passages of others.
    """
    shares = await context.search_statistics.shares(lambda: queries.shares(statements))
    tenant, *others = request.marks()
    is_checked = 2 * sizes.of_tenant > sizes.of_all > 0
    return base_of(
        terms,
        scope=scope_of(others if is_checked else [tenant, *others]),
        scope_share=prod(map(shares.of, others)),
        sizes=sizes,
    )


async def required_of(
    context: Context, statements: SessionPipeline, terms: Terms, request: SearchRequest
) -> Base:
    """Return what every hit has, by its words and marks."""
    return base_of(
        terms,
        scope=scope_of(request.marks()),
        scope_share=1,
        sizes=await _sizes(context, statements, request),
    )


async def passages_of(context: Context, statements: SessionPipeline, request: SearchRequest) -> int:
    """Return the number of the tenant's passages, about."""

    async def count() -> int:
        return await queries.count_passages(
            statements, request.tenant_id, limit=context.settings.search_exact_max + 1
        )

    counted = await context.search_statistics.passages_of(request.tenant_id, count)
    shares = await context.search_statistics.shares(lambda: queries.shares(statements))
    return max(counted, round(shares.of(tenant_mark(request.tenant_id)) * shares.passages))
