"""Finds passages by their words and by their meaning, and ranks them together."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.context import Context
from gateway.http import paging
from gateway.http.problems import InvalidRequest
from gateway.search import queries
from gateway.search.errors import SearchBusy, VectorsUnavailable
from gateway.search.fusion import Fused, fuse, near_min, weight_of_meaning
from gateway.search.hits import show_hits
from gateway.search.meaning import MeaningRanking, rank_by_meaning
from gateway.search.query import Query, parse
from gateway.search.ranking import Place
from gateway.search.request import SearchRequest
from gateway.search.terms import Lexed, Terms
from gateway.search.words import WordRanking, rank_by_words, understand
from schemas.api.search import SearchMode, SearchResults, SemanticStatus
from schemas.runtime.embedding import chosen

REPETITIONS: Final = 3
"""How often a search is made because a document got another revision while it ran."""


class SearchPosition(msgspec.Struct, frozen=True, array_like=True):
    """A position in a ranking: its last hit, and how many hits came up to it."""

    digest: str
    seen: int
    score: float
    revision_id: UUID
    page: int
    ordinal: int

    @property
    def place(self) -> Place:
        return Place(str(self.revision_id), self.page, self.ordinal)


@dataclass(frozen=True, kw_only=True)
class _Rankings:
    terms: Terms
    lexed: Lexed
    words: WordRanking
    meaning: MeaningRanking


async def find(context: Context, request: SearchRequest) -> SearchResults:
    """Return a page of hits, the best first.

    Every hit is a passage of the revision that its document shows at that moment. A document that gets
    another revision during the search makes it begin anew.

    Raises:
        SearchQueryInvalid: the query cannot be read.
        InvalidRequest: the cursor belongs to another search, or vectors alone are wanted and off.
        SearchTimeout: the words were not found in time.
        SearchBusy: too many searches of the tenant run.
        VectorsUnavailable: vectors alone are wanted and could not be searched.
    """
    query = parse(request.text)
    after = paging.decode(request.cursor, to=SearchPosition)
    if after is not None and after.digest != request.digest():
        raise InvalidRequest("is not a cursor of this search", field="cursor")
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(context.search_turns.of(request.tenant_id))
        except PoolTimeout as error:
            raise SearchBusy from error
        results, is_current = await _page(context, query, request, after=after)
        repetitions = 1
        while not is_current and repetitions < REPETITIONS:
            results, is_current = await _page(context, query, request, after=after)
            repetitions += 1
        return results


async def _page(
    context: Context, query: Query, request: SearchRequest, *, after: SearchPosition | None
) -> tuple[SearchResults, bool]:
    """Return a page, and whether every passage of it was still shown at the end."""
    results_max = context.settings.search_results_max
    rankings = await _rankings(context, query, request)
    words, meaning = rankings.words, rankings.meaning
    weight = weight_of_meaning(query, words.scored)
    near = near_min(
        words.scored,
        near=chosen.near_of(meaning.semantic.model),
        is_by_words=request.mode is not SearchMode.VECTORS,
    )
    fused = fuse(words.scored, meaning.scored, meaning=weight, near=near)[:results_max]
    seen = 0 if after is None else after.seen
    rest = (fused if after is None else _rest(fused, after))[: max(0, results_max - seen)]
    shown = rest[: request.limit]
    hits = []
    if shown:
        async with queries.searching(
            context.database, limit=context.settings.search_timeout
        ) as statements:
            hits = await show_hits(
                statements,
                shown,
                tenant_id=request.tenant_id,
                terms=rankings.terms,
                weights=words.weights,
                lexed=rankings.lexed,
            )
    has_more = len(rest) > len(shown)
    return SearchResults(
        items=hits,
        mode=request.mode if meaning.semantic.status is SemanticStatus.OK else SearchMode.WORDS,
        semantic=meaning.semantic,
        is_capped=words.is_capped,
        next_cursor=_cursor(request, shown[-1], seen=seen + len(shown)) if has_more else None,
    ), len(hits) == len(shown)


async def _rankings(context: Context, query: Query, request: SearchRequest) -> _Rankings:
    """Search words and vectors at the same time, each on a connection of its own.

    The vectors need no connection while they wait for the words.

    Raises:
        InvalidRequest, VectorsUnavailable: vectors alone are wanted, and there are none.
    """
    loop = asyncio.get_running_loop()
    known_terms: asyncio.Future[Terms] = loop.create_future()
    known_words: asyncio.Future[WordRanking] = loop.create_future()
    by_meaning = asyncio.create_task(
        rank_by_meaning(context, query, request, terms=known_terms, words=known_words)
    )
    try:
        async with queries.searching(
            context.database, limit=context.settings.search_timeout
        ) as statements:
            terms, lexed = await understand(context, statements, query, request)
            known_terms.set_result(terms)
            if request.mode is SearchMode.VECTORS:
                words = WordRanking(scored=[], weights=[1.0] * len(terms.wanted), is_capped=False)
            else:
                words = await rank_by_words(context, statements, terms, request)
        known_words.set_result(words)
        meaning = await by_meaning
    finally:
        by_meaning.cancel()
        # Otherwise the loop would report its error, which nobody awaits any more.
        await asyncio.gather(by_meaning, return_exceptions=True)
    if request.mode is SearchMode.VECTORS:
        _require(meaning)
    return _Rankings(terms=terms, lexed=lexed, words=words, meaning=meaning)


def _require(meaning: MeaningRanking) -> None:
    """Refuse a search of vectors alone that has none.

    Raises:
        InvalidRequest: the server has no model.
        VectorsUnavailable: the model does not answer.
    """
    status = meaning.semantic.status
    if status is SemanticStatus.OFF:
        raise InvalidRequest("this server has no vectors", field="mode")
    if status is not SemanticStatus.OK:
        raise VectorsUnavailable(status)


def _rest(fused: Sequence[Fused], after: SearchPosition) -> Sequence[Fused]:
    """Return the passages after a position: after its hit or, if that is gone, after its score."""
    for number, each in enumerate(fused, start=1):
        if each.place == after.place:
            return fused[number:]
    return [each for each in fused if (-each.score, each.place) > (-after.score, after.place)]


def _cursor(request: SearchRequest, last: Fused, *, seen: int) -> str:
    return paging.encode(
        SearchPosition(
            digest=request.digest(),
            seen=seen,
            score=last.score,
            revision_id=UUID(last.place.revision_id),
            page=last.place.page,
            ordinal=last.place.ordinal,
        )
    )
