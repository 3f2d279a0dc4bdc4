"""The ranking by meaning: the passages whose vectors are nearest to that of the query."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.context import Context
from gateway.search import queries
from gateway.search.errors import SearchTimeout
from gateway.search.fusion import Scored
from gateway.search.queries import Model, Way
from gateway.search.query import Query
from gateway.search.ranking import Place
from gateway.search.request import SearchRequest
from gateway.search.terms import Terms
from gateway.search.words import WordRanking, passages_of, required_of
from gateway.search_statistics import Shares
from schemas.api.search import SearchMode, Semantic, SemanticStatus
from schemas.runtime.embedding import chosen
from schemas.runtime.embedding.port import Embedder, EmbedderUnavailable, written
from schemas.settings import EmbeddingModelName, SearchSettings

SIMILARITY_MIN: Final = 0.1
"""Below it, a passage is near only because no other is nearer."""

FEW: Final = 2_000
MATCHING_SHARE: Final = 0.25
MATCHING_MAX: Final = 20_000
"""Beyond these, it is cheaper to read all vectors, and to check the nearest ones, than to look the
vectors of passages up."""

KEPT_COST: Final = 30
VISIT_COST: Final = 10
"""What the index costs, in vectors that are compared one by one: for each vector that it keeps as one of the
nearest, it visits some; and for each that may be of another tenant, it reads a row of the table. Among a
million vectors, the nearest of a tenant with 1 % cost 200 ms by the index, and 12 ms one by one."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class MeaningRanking:
    """The nearest passages, the nearest first, or why there are none."""

    scored: Sequence[Scored]
    semantic: Semantic


async def rank_by_meaning(
    context: Context,
    query: Query,
    request: SearchRequest,
    *,
    terms: asyncio.Future[Terms],
    words: asyncio.Future[WordRanking],
) -> MeaningRanking:
    """Return the nearest passages; without a model, or if it takes too long, none.

    If a hybrid search requires words, these are the passages that its words have found: no other may
    be a hit, unless there are more than are compared.

    Args:
        context: of the process.
        query: the query.
        request: the search.
        terms: those of the query, as soon as they are known: what they require and exclude holds for
            vectors too.
        words: the ranking by words, as soon as it is known.
    """
    if request.mode is SearchMode.WORDS:
        return _none(SemanticStatus.NOT_WANTED)
    if context.settings.embedding_model is EmbeddingModelName.NONE:
        return _none(SemanticStatus.OFF)
    limit = context.settings.search_timeout.total_seconds()
    model: Model | None = None
    try:
        async with asyncio.timeout(limit):
            model = await _model(context)
        if model is None:
            # No worker has begun to make vectors.
            return _none(SemanticStatus.BUILDING)
        # Outside the limit: the first search of a process waits until the model is loaded.
        embedder = await asyncio.to_thread(chosen.named, model.name)
        async with asyncio.timeout(limit):
            vector = await asyncio.to_thread(_vector, embedder, query.text)
        # Outside the limit too: the words have their own.
        known = await terms
        if request.mode is SearchMode.HYBRID and known.required:
            found = [each.place for each in (await words).scored]
            scored = await _compared(context, vector, found, model=model)
        else:
            async with asyncio.timeout(limit):
                scored = await _nearest(context, vector, request, model=model, terms=known)
    except (TimeoutError, SearchTimeout):
        log.warning("search.vectors_timeout", model=model and model.name)
        return _none(SemanticStatus.TIMEOUT)
    except EmbedderUnavailable as unavailable:
        # The process reports a model that cannot be loaded once, at error level.
        log.info("search.no_vectors", reason=str(unavailable))
        return _none(SemanticStatus.FAILED)
    return MeaningRanking(
        scored=[each for each in scored if each.score >= SIMILARITY_MIN],
        semantic=Semantic(status=SemanticStatus.OK, model=model.name),
    )


async def _model(context: Context) -> Model | None:
    return await queries.active_model(context.autocommit)


def _vector(embedder: Embedder, text: str) -> str:
    return written(embedder.embed([text])[0])


async def _compared(
    context: Context, vector: str, places: Sequence[Place], *, model: Model
) -> Sequence[Scored]:
    settings = context.settings
    if not places:
        return []
    async with queries.searching(context.database, limit=settings.search_timeout) as statements:
        return await queries.compared(
            statements, vector, places, model=model, limit=settings.search_results_max
        )


async def _nearest(
    context: Context, vector: str, request: SearchRequest, *, model: Model, terms: Terms
) -> Sequence[Scored]:
    settings = context.settings
    async with queries.searching(context.database, limit=settings.search_timeout) as session:
        base = await required_of(context, session, terms, request)
        shares = await context.search_statistics.shares(lambda: queries.shares(session))
        way = way_of(
            terms,
            marks=request.marks()[1:],
            shares=shares,
            passages=await passages_of(context, session, request),
            settings=settings,
        )
        if way is Way.INDEX:
            await queries.prepare_index(
                session, ef=settings.search_ef, tuples_max=settings.search_scan_max
            )
        return await queries.nearest(
            session,
            vector,
            model=model,
            request=request,
            base=base if terms.has_conditions or request.marks()[1:] else None,
            way=way,
            limit=settings.search_results_max,
            read_max=min(MATCHING_MAX, settings.search_exact_max),
        )


def way_of(
    terms: Terms,
    *,
    marks: Sequence[str],
    shares: Shares,
    passages: int,
    settings: SearchSettings,
) -> Way:
    """Return how the nearest vectors are found at the least cost.

    Args:
        terms: those of the query.
        marks: the marks of the filters.
        shares: how frequent lexemes are.
        passages: the estimated number of the tenant's passages.
        settings: the limits of a search.
    """
    exact_max = settings.search_exact_max
    selective = [*map(shares.of, marks), *(term.share for term in terms.required)]
    if selective:
        matching = min(selective) * passages
        if matching <= min(exact_max, MATCHING_MAX, max(FEW, passages * MATCHING_SHARE)):
            return Way.MATCHING
    if passages > exact_max:
        return Way.INDEX
    # The index finds the vectors of the tenant among those of all.
    found = settings.search_results_max * shares.passages / max(1, passages)
    by_index = max(
        KEPT_COST * settings.search_ef, VISIT_COST * min(found, settings.search_scan_max)
    )
    return Way.ALL if passages <= by_index else Way.INDEX


def _none(status: SemanticStatus) -> MeaningRanking:
    return MeaningRanking(scored=[], semantic=Semantic(status=status))
