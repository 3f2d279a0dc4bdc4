"""Statements of searches.

Conditions are texts of `tsquery`, and every one is a parameter. The text of a statement depends only
on the number of terms and on the filters, so that the driver prepares it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from psycopg.errors import QueryCanceled
from psycopg.types.json import Jsonb
from sqlalchemy.exc import DBAPIError

from gateway.db import Database, SessionPipeline, Statements
from gateway.search.candidates import Base, Walk, any_of
from gateway.search.errors import SearchTimeout
from gateway.search.fusion import Scored
from gateway.search.query import Atom
from gateway.search.ranking import RANK_WEIGHTS, Candidate, Place
from gateway.search.request import DocumentFilters, SearchRequest
from gateway.search.terms import Term
from gateway.search_statistics import Shares
from schemas.ids import TenantId
from schemas.policy.search_words import AS_WRITTEN, CONFIGURATIONS, searched
from schemas.tables.documents import MEDIA_TYPE_OF_DOCUMENT

PREPARE: Final = """
SELECT ARRAY[
       set_config('statement_timeout', %(timeout)s, true),
       -- A generic plan does not know the rare conditions.
       set_config('plan_cache_mode', 'force_custom_plan', true),
       -- Compilation and parallel workers take longer than most searches.
       set_config('jit', 'off', true),
       set_config('max_parallel_workers_per_gather', '0', true),
       -- Nested loops by index end with the last candidate; the others read tables as a whole first.
       set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true),
       -- The newest documents come from their index one by one; a sort reads all of the tenant.
       set_config('enable_sort', 'off', true),
       -- Above it a bitmap names pages instead of rows, and every row of a page is compared.
       set_config('work_mem', '32MB', true)
]
"""

# The languages of a tenant's documents: one step through the index for each of them.
_LANGUAGES: Final = """
WITH RECURSIVE spoken(language) AS (
    SELECT min(language) FROM documents WHERE tenant_id = %(tenant_id)s
    UNION ALL
    SELECT (
        SELECT min(language) FROM documents
        WHERE tenant_id = %(tenant_id)s AND language > spoken.language
    )
    FROM spoken WHERE spoken.language IS NOT NULL
)
"""

LEX: Final = f"""
{_LANGUAGES}
SELECT configuration.cfgname, atom.place, phraseto_tsquery(
    configuration.oid,
    CASE WHEN configuration.cfgname = %(as_written)s THEN atom.searched ELSE atom.text END
)::text
FROM pg_ts_config AS configuration
CROSS JOIN unnest(%(atoms)s::text[], %(searched)s::text[])
    WITH ORDINALITY AS atom(text, searched, place)
WHERE configuration.cfgnamespace = 'pg_catalog'::regnamespace
  AND (
    configuration.cfgname = %(as_written)s
    OR configuration.cfgname IN (
        SELECT %(configurations)s::jsonb ->> language FROM spoken
        WHERE %(language)s::text IS NULL
        UNION ALL SELECT %(configurations)s::jsonb ->> %(language)s::text
    )
  )
ORDER BY configuration.cfgname <> %(as_written)s, configuration.cfgname
"""  # noqa: S608  # of constants

SHARES: Final = """
SELECT (
    SELECT reltuples::bigint FROM pg_class WHERE oid = 'passages'::regclass
), most_common_elems::text::text[], most_common_elem_freqs
FROM pg_stats
WHERE schemaname = current_schema() AND tablename = 'passages' AND attname = 'search'
"""

COUNT: Final = """
SELECT count(*) FROM (
    SELECT FROM passages WHERE tenant_id = %(tenant_id)s LIMIT %(limit)s
) AS counted
"""

_PLACES: Final = (
    "unnest(%(revision_ids)s::uuid[], %(pages)s::int[], %(ordinals)s::int[]) WITH ORDINALITY"
)

ACTIVE_MODEL: Final = "SELECT id, name, dimension FROM embedding_models WHERE state = 'active'"


SPARE: Final = 3
"""Times the limit, vectors that are taken before it is known which of them are shown."""

_KEY: Final = "e.revision_id::text, e.page, e.ordinal"
_WITH_DOCUMENT: Final = "e.revision_id, e.page, e.ordinal, e.document_id"


class Way(StrEnum):
    """How the nearest vectors are found."""

    MATCHING = "matching"  # the passages that meet a condition, then their vectors
    ALL = "all"  # every vector of the tenant
    INDEX = "index"  # the index of vectors of all tenants


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of vectors; see `schemas.tables.passages.EmbeddingModel`."""

    id: int
    name: str
    dimension: int


@asynccontextmanager
async def searching(database: Database, *, limit: timedelta) -> AsyncIterator[SessionPipeline]:
    """Open a transaction for the statements of a search, each of which has the limit.

    Raises:
        SearchTimeout: a statement took too long.
    """
    timeout = {"timeout": str(max(1, round(limit.total_seconds() * 1000)))}
    try:
        async with database.pipelined((PREPARE, timeout)) as statements:
            yield statements
    except DBAPIError as error:
        if isinstance(error.orig, QueryCanceled):
            raise SearchTimeout(limit) from error
        raise


async def lexed(
    statements: SessionPipeline,
    atoms: Sequence[Atom],
    *,
    tenant_id: TenantId,
    language: str | None,
) -> dict[str, dict[Atom, str]]:
    """Return the words of each atom: as written, and in the normal forms of the tenant's languages.

    Args:
        statements: of a transaction.
        atoms: words, phrases and prefixes.
        tenant_id: whose documents are searched.
        language: the only language, if the search is limited to one.
    """
    rows = await statements.rows(
        LEX,
        {
            "tenant_id": tenant_id,
            "atoms": [atom.text for atom in atoms],
            "searched": [searched(atom.text) for atom in atoms],
            "as_written": AS_WRITTEN,
            "configurations": Jsonb(dict(CONFIGURATIONS)),
            "language": language,
        },
    )
    found = dict[str, dict[Atom, str]]()
    for configuration, place, query in rows:
        found.setdefault(configuration, {})[atoms[place - 1]] = query
    return found


async def shares(statements: SessionPipeline) -> Shares:
    """Return what PostgreSQL has counted; nothing before the first ANALYZE of a new table."""
    rows = await statements.rows(SHARES, {})
    if not rows or rows[0][1] is None:
        return Shares()
    ((passages, lexemes, frequencies),) = rows
    # The frequencies end with their least and greatest value.
    *_, least, _ = frequencies
    return Shares(
        passages=max(0, passages),
        by_lexeme=dict(zip(lexemes, frequencies, strict=False)),
        rare=least,
    )


async def count_passages(statements: SessionPipeline, tenant_id: TenantId, *, limit: int) -> int:
    """Return the number of a tenant's passages, at most the limit."""
    rows = await statements.rows(COUNT, {"tenant_id": tenant_id, "limit": limit})
    count: int = rows[0][0]
    return count


async def candidates_of(
    statements: SessionPipeline,
    conditions: Sequence[str],
    terms: Sequence[Term],
    *,
    checked: str | None,
    request: SearchRequest,
    limit: int,
) -> list[Candidate]:
    """Return passages of documents as they are shown, with their terms.

    Args:
        statements: of a transaction.
        conditions: which passages; all of the first, then the others of the second.
        terms: at most as many as a bigint has bits.
        checked: a condition on each passage that the index finds.
        request: whose passages, and of which documents.
        limit: most passages.
    """
    shown = f"{_shown('p', request.documents)} AND d.tenant_id = %(tenant_id)s"
    sources = [
        _passages_with(f"condition{place}", checked, without=f"before{place}" if place else None)
        for place in range(len(conditions))
    ]
    found = " UNION ALL ".join(
        f"(SELECT p.* FROM {source} {shown} LIMIT %(limit)s)"  # noqa: S608  # of constants and numbers
        for source in sources
    )
    return await _candidates(
        statements,
        found,
        terms,
        {
            "checked": checked,
            **{f"condition{place}": each for place, each in enumerate(conditions)},
            **{f"before{place}": any_of(conditions[:place]) for place in range(1, len(conditions))},
            **_values_of(request.documents),
        },
        request=request,
        limit=limit,
    )


async def newest_candidates(
    statements: SessionPipeline,
    walk: Walk,
    terms: Sequence[Term],
    *,
    request: SearchRequest,
    limit: int,
) -> list[Candidate]:
    """Return passages of the newest documents, with their terms; see `candidates_of`."""
    return await _candidates(
        statements,
        f"""
        SELECT p.* FROM (
            SELECT p.* FROM (
                SELECT * FROM documents WHERE tenant_id = %(tenant_id)s AND revision_id IS NOT NULL
                ORDER BY created_at DESC, id DESC LIMIT %(read_max)s
            ) AS d
            CROSS JOIN LATERAL (
                SELECT revision_id, page, ordinal, tokens, search FROM passages
                WHERE revision_id = d.revision_id ORDER BY page, ordinal OFFSET 0
            ) AS p
            WHERE true{_conditions_of(request.documents)} LIMIT %(read_max)s
        ) AS p
        WHERE p.search @@ %(walked)s::tsquery
        """,  # noqa: S608  # of constants
        terms,
        {
            "walked": walk.condition,
            "read_max": walk.read_max,
            **_values_of(request.documents),
        },
        request=request,
        limit=limit,
    )


async def _candidates(
    statements: SessionPipeline,
    source: str,
    terms: Sequence[Term],
    values: Mapping[str, Any],
    *,
    request: SearchRequest,
    limit: int,
) -> list[Candidate]:
    """Return the first passages of a source, with their terms."""
    counted = [place for place, term in enumerate(terms) if term.forms]
    checked = [place for place, term in enumerate(terms) if not term.has_counted_forms]
    ranks = ", ".join(
        # Of several words, `ts_rank` returns the mean.
        f"ts_rank(%(weights)s::real[], search, %(forms{place})s::tsquery) * {len(terms[place].forms)}"
        for place in counted
    )
    tested = " | ".join(
        f"((search @@ %(term{place})s::tsquery)::int::bigint << {place})" for place in checked
    )
    rows = await statements.rows(
        f"SELECT revision_id::text, page, ordinal, tokens, {tested or 0}, ARRAY[{ranks}]::real[]"  # noqa: S608  # of constants and numbers
        f" FROM (SELECT * FROM ({source}) AS several LIMIT %(limit)s) AS found",
        {
            "tenant_id": request.tenant_id,
            "limit": limit,
            "weights": list(RANK_WEIGHTS),
            **{f"forms{place}": " | ".join(terms[place].forms) for place in counted},
            **{f"term{place}": terms[place].presence for place in checked},
            **values,
        },
    )
    # Whether a passage has the other terms, their ranks say.
    of_ranks = [0 if place in checked else 1 << place for place in counted]
    candidates = []
    for revision_id, page, ordinal, tokens, bits, found in rows:
        by_term: list[float | None] = [None] * len(terms)
        present = bits
        for place, bit, rank in zip(counted, of_ranks, found, strict=True):
            by_term[place] = rank
            if rank > 0:
                present |= bit
        candidates.append(Candidate(Place(revision_id, page, ordinal), tokens, present, by_term))
    return candidates


async def active_model(statements: Statements) -> Model | None:
    """Return the model whose vectors are searched; None while there is none."""
    rows = await statements.rows(ACTIVE_MODEL, {})
    return Model(id=rows[0].id, name=rows[0].name, dimension=rows[0].dimension) if rows else None


async def nearest(
    statements: SessionPipeline,
    vector: str,
    *,
    model: Model,
    request: SearchRequest,
    base: Base | None,
    way: Way,
    limit: int,
    read_max: int,
) -> list[Scored]:
    """Return the passages whose vectors are nearest, with their cosine similarity.

    Args:
        statements: of a transaction.
        vector: of the query, as text.
        model: made the vectors.
        request: whose passages, and of which documents.
        base: what the words and marks of a passage meet; None for nothing.
        way: how they are found.
        limit: most passages.
        read_max: most passages with `base` whose vectors are read.
    """
    statement = {
        Way.MATCHING: _nearest_of_matching,
        Way.ALL: _nearest_of_all,
        Way.INDEX: _nearest_by_index,
    }[way](model, request.documents, base)
    rows = await statements.rows(
        statement,
        {
            "vector": vector,
            "tenant_id": request.tenant_id,
            "indexed": base and base.indexed,
            "checked": base and base.checked,
            "limit": limit,
            "read_max": read_max,
            **_values_of(request.documents),
        },
    )
    return _scored(rows)[:limit]


async def compared(
    statements: SessionPipeline, vector: str, places: Sequence[Place], *, model: Model, limit: int
) -> list[Scored]:
    """Return the nearest of these passages, as `nearest` does.

    Args:
        statements: of a transaction.
        vector: of the query, as text.
        places: of the passages.
        model: made the vectors.
        limit: most passages.
    """
    rows = await statements.rows(
        f"""
        SELECT {_KEY}, {_distance(model)} AS distance
        FROM {_PLACES} AS candidate(revision_id, page, ordinal, place)
        JOIN passage_embeddings e USING (revision_id, page, ordinal)
        WHERE e.model_id = {model.id}
        """,  # noqa: S608  # of constants and numbers
        {**_places(places), "vector": vector},
    )
    return _scored(rows)[:limit]


def _scored(rows: Sequence[Any]) -> list[Scored]:
    """Return passages with their similarity, the nearest first."""
    found = [
        Scored(Place(revision_id, page, ordinal), 1 - distance)
        for revision_id, page, ordinal, distance in rows
    ]
    return sorted(found, key=lambda each: (-each.score, each.place))


def _nearest_of_matching(model: Model, documents: DocumentFilters, base: Base | None) -> str:
    return f"""
        WITH matching AS MATERIALIZED (
            SELECT p.revision_id, p.page, p.ordinal
            FROM {_passages_with("indexed", None if base is None else base.checked)} {_shown("p", documents)}
            LIMIT %(read_max)s
        )
        SELECT {_KEY}, {_distance(model)} AS distance
        FROM matching JOIN passage_embeddings e USING (revision_id, page, ordinal)
        WHERE e.model_id = {model.id} ORDER BY distance LIMIT %(limit)s
    """  # noqa: S608  # of constants and numbers


def _nearest_of_all(model: Model, documents: DocumentFilters, base: Base | None) -> str:
    # A filter may leave few documents. Without one, nearly all passages are shown and meet the base.
    filtered = _shown("e", documents) if _conditions_of(documents) else ""
    # Materialised, so that the index of vectors is not used.
    return f"""
        WITH near AS MATERIALIZED (
            SELECT {_WITH_DOCUMENT}, {_distance(model)} AS distance
            FROM passage_embeddings e {filtered}
            WHERE e.model_id = {model.id} AND e.tenant_id = %(tenant_id)s
        )
        SELECT {_KEY}, e.distance
        FROM (SELECT * FROM near ORDER BY distance LIMIT {SPARE} * %(limit)s) AS e
        {_shown("e", DocumentFilters())}{_passage(base)}
    """  # noqa: S608  # of constants and numbers


def _nearest_by_index(model: Model, documents: DocumentFilters, base: Base | None) -> str:
    return f"""
        SELECT {_KEY}, {_distance(model)} AS distance
        FROM passage_embeddings e {_shown("e", documents)}{_passage(base)}
        WHERE e.model_id = {model.id} AND e.tenant_id = %(tenant_id)s
        ORDER BY {_distance(model)} LIMIT %(limit)s
    """  # noqa: S608  # of constants and numbers


def _distance(model: Model) -> str:
    # The dimension is that of the index, so it is a part of the statement.
    return f"e.embedding::halfvec({model.dimension}) <=> %(vector)s::halfvec({model.dimension})"


def _shown(row: str, documents: DocumentFilters) -> str:
    """Return the join to the document that shows a revision."""
    return (
        f"JOIN documents d ON d.id = {row}.document_id AND d.revision_id = {row}.revision_id"
        f"{_conditions_of(documents)}"
    )


def _passage(base: Base | None) -> str:
    """Return the join of a vector to its passage, which meets the base; the index is not asked."""
    if base is None:
        return ""
    checked = "" if base.checked is None else " AND p.search @@ %(checked)s::tsquery"
    return f"""
        JOIN passages p ON (p.revision_id, p.page, p.ordinal) = (e.revision_id, e.page, e.ordinal)
        AND (p.search @@ %(indexed)s::tsquery{checked}) IS TRUE
    """


def _passages_with(parameter: str, checked: str | None, *, without: str | None = None) -> str:
    """Return the passages that meet a condition with the mark of their tenant, as the table `p`.

    OFFSET keeps the planner from beginning with the documents of the tenant: it would ask the index for
    the condition once for each of them.

    Args:
        parameter: of the condition that the index answers.
        checked: what is checked on each of these passages, without the index.
        without: the parameter of a condition that none of these passages meets, also without the index:
            there, every word of it takes as long as one of the other condition.
    """
    more = "" if checked is None else " AND (p.search @@ %(checked)s::tsquery) IS TRUE"
    if without is not None:
        more += f" AND (p.search @@ %({without})s::tsquery) IS NOT TRUE"
    return (
        "(SELECT revision_id, page, ordinal, document_id, tokens, search FROM passages p"  # noqa: S608  # of constants
        f" WHERE p.search @@ %({parameter})s::tsquery{more} OFFSET 0) AS p"
    )


async def prepare_index(statements: SessionPipeline, *, ef: int, tuples_max: int) -> None:
    """Let the index of vectors go on until it has found enough rows of one tenant.

    Args:
        statements: of a transaction.
        ef: the nearest vectors that are kept while the index is searched.
        tuples_max: vectors that are visited, about.
    """
    await statements.rows(
        """
        SELECT ARRAY[
               set_config('hnsw.iterative_scan', 'relaxed_order', true),
               set_config('hnsw.max_scan_tuples', %(tuples_max)s, true),
               set_config('hnsw.ef_search', %(ef)s, true),
               -- The estimate of the rows of a tenant that are shown is too low: the planner would read
               -- all of them and sort.
               set_config('enable_sort', 'off', true),
               set_config('enable_bitmapscan', 'off', true)
        ]
        """,
        {"ef": str(ef), "tuples_max": str(tuples_max)},
    )


async def hits_of(
    statements: SessionPipeline, places: Sequence[Place], *, tenant_id: TenantId
) -> dict[Place, Any]:
    """Return what the hits show, for the passages that clients still see."""
    rows = await statements.rows(HITS, {**_places(places), "tenant_id": tenant_id})
    return {places[row.place - 1]: row for row in rows}


async def matching_words(
    statements: SessionPipeline, words: Sequence[tuple[str, str]], conditions: Sequence[str]
) -> list[tuple[int, int]]:
    """Return the pairs of a word and a condition that it meets, by their numbers.

    Args:
        statements: of a transaction.
        words: each with the configuration of its normal form.
        conditions: each on a single word.
    """
    rows = await statements.rows(
        MATCHING_WORDS,
        {
            "words": [word for word, _ in words],
            "searched": [searched(word) for word, _ in words],
            "configurations": [configuration for _, configuration in words],
            "conditions": list(conditions),
            "as_written": AS_WRITTEN,
        },
    )
    return [(word, condition) for word, condition in rows]


HITS: Final = f"""
SELECT hit.place, p.document_id, p.page, p.ordinal, p.kind, p.start, p.end, p.language,
       COALESCE(p.text, substr(g.text, p.start + 1, p.end - p.start)) AS text,
       d.filename, r.number AS revision, r.title, r.page_labels ->> (p.page - 1) AS page_label,
       g.lines
FROM {_PLACES} AS hit(revision_id, page, ordinal, place)
JOIN passages p USING (revision_id, page, ordinal)
JOIN documents d ON d.id = p.document_id AND d.revision_id = p.revision_id
JOIN revisions r ON r.id = p.revision_id
JOIN pages g ON g.revision_id = p.revision_id AND g.number = p.page
WHERE d.tenant_id = %(tenant_id)s
"""  # noqa: S608  # of constants

MATCHING_WORDS: Final = """
SELECT word.place - 1 AS word, condition.place - 1 AS condition
FROM unnest(%(words)s::text[], %(searched)s::text[], %(configurations)s::text[])
    WITH ORDINALITY AS word(text, searched, configuration, place)
CROSS JOIN LATERAL (
    SELECT to_tsvector(configuration::regconfig, word.text)
        || to_tsvector(%(as_written)s::regconfig, word.searched) AS lexemes
    OFFSET 0
) AS of_word
JOIN unnest(%(conditions)s::tsquery[]) WITH ORDINALITY AS condition(query, place)
    ON lexemes @@ condition.query
"""


def _conditions_of(filters: DocumentFilters) -> str:
    """Return the conditions on `d`, a row of `documents`; each begins with AND."""
    conditions = []
    if filters.content_type is not None:
        media_type = MEDIA_TYPE_OF_DOCUMENT.replace("content_type", "d.content_type")
        conditions.append(f"{media_type} = %(content_type)s")
    if filters.filename_prefix is not None:
        conditions.append("starts_with(d.filename, %(filename_prefix)s)")
    if filters.created_after is not None:
        conditions.append("d.created_at > %(created_after)s")
    if filters.created_before is not None:
        conditions.append("d.created_at < %(created_before)s")
    if filters.metadata:
        conditions.append(
            "EXISTS (SELECT FROM uploads u WHERE u.id = d.upload_id AND u.metadata @> %(metadata)s)"
        )
    return "".join(f" AND {condition}" for condition in conditions)


def _values_of(filters: DocumentFilters) -> dict[str, Any]:
    return {
        "content_type": filters.content_type,
        "filename_prefix": filters.filename_prefix,
        "created_after": filters.created_after,
        "created_before": filters.created_before,
        "metadata": Jsonb(dict(filters.metadata or {})),
    }


def _places(places: Sequence[Place]) -> dict[str, Any]:
    return {
        "revision_ids": [each.revision_id for each in places],
        "pages": [each.page for each in places],
        "ordinals": [each.ordinal for each in places],
    }
