"""The ranking by words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.search import queries
from gateway.search.candidates import Base, base_of, crowded_selection_of, scope_of, selection_of
from gateway.search.fusion import Scored
from gateway.search.query import Query
from gateway.search.ranking import Candidate, most_promising, score, weights_of
from gateway.search.request import SearchRequest
from gateway.search.terms import Lexed, Terms, rarest, terms_of
from schemas.policy.search_words import tenant_mark

RANKED_MAX: Final = 300
"""Candidates whose words are counted; the others have fewer or more common terms."""

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
    context: Context, session: AsyncSession, query: Query, request: SearchRequest
) -> tuple[Terms, Lexed]:
    """Return the terms of a query, and its words in each text search configuration.

    Raises:
        SearchQueryInvalid: the query has no word.
    """
    lexed = await queries.lexed(
        session, query.atoms, tenant_id=request.tenant_id, language=request.language
    )
    shares = await context.search_statistics.shares(lambda: queries.shares(session))
    return rarest(terms_of(query, lexed, shares=shares), limit=TERMS_MAX), lexed


async def rank_by_words(
    context: Context, session: AsyncSession, terms: Terms, request: SearchRequest
) -> WordRanking:
    """Return the passages with the terms.

    The passages with the rarest terms are read, at most `SEARCH_CANDIDATES`. If there are more, those
    with every term come first.
    """
    limit = context.settings.search_candidates
    passages = await passages_of(context, session, request)
    base = await required_of(context, session, terms, request)
    selection = selection_of(base, passages=passages, limit=limit)

    async def candidates_of(conditions: Sequence[str]) -> list[Candidate]:
        return await queries.candidates_of(
            session,
            conditions,
            terms.wanted,
            checked=base.checked,
            filters=request.documents,
            limit=limit,
        )

    candidates = await candidates_of(selection.conditions)
    decisive = selection.decisive
    is_capped = len(candidates) >= limit
    if is_capped:
        decisive = frozenset()
        if len(selection.conditions) == 1:
            crowded = crowded_selection_of(base)
            if len(crowded.conditions) > 1:
                candidates = await candidates_of(crowded.conditions)
    weights = weights_of(terms.wanted, candidates, passages=passages, decisive=decisive)
    best = most_promising(candidates, weights, limit=RANKED_MAX)
    ranks = await queries.ranks_of(session, best, terms.wanted) if best else {}
    mean_tokens = sum(each.tokens for each in best) / max(1, len(best))
    scored = [
        Scored(
            place=each.place,
            score=score(each, weights=weights, ranks=ranks[each.place], mean_tokens=mean_tokens),
        )
        for each in best
        # A passage may be deleted between the two statements.
        if each.place in ranks
    ]
    return WordRanking(
        scored=sorted(scored, key=lambda each: (-each.score, each.place)),
        weights=weights,
        is_capped=is_capped,
    )


async def required_of(
    context: Context, session: AsyncSession, terms: Terms, request: SearchRequest
) -> Base:
    """Return what every hit has, by its words and marks."""
    shares = await context.search_statistics.shares(lambda: queries.shares(session))
    return base_of(
        terms,
        scope=scope_of(request.marks()),
        passages=await passages_of(context, session, request),
        passages_of_all=shares.passages,
    )


async def passages_of(context: Context, session: AsyncSession, request: SearchRequest) -> int:
    """Return the number of the tenant's passages, about."""

    async def count() -> int:
        return await queries.count_passages(
            session, request.tenant_id, limit=context.settings.search_exact_max + 1
        )

    counted = await context.search_statistics.passages_of(request.tenant_id, count)
    shares = await context.search_statistics.shares(lambda: queries.shares(session))
    return max(counted, round(shares.of(tenant_mark(request.tenant_id)) * shares.passages))
