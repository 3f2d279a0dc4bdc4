"""Search over many passages: the time of a fixed mix of queries, and the recall of the vectors' index."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from random import Random
from statistics import fmean
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import create_engine, delete, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from dev.bench import plots
from dev.bench.figures import Spread
from dev.bench.plots import Bars, two_lines
from dev.bench.sections import Section, Table
from dev.bench.system import TABLE, System
from dev.bench.wire import Connection
from dev.seed.library import MAIN, LibraryExtent, seed_library
from dev.seed.texts import TOPICS, Author
from dev.stack.stack import Stack
from gateway.search.meaning import SIMILARITY_MIN
from gateway.settings import API_PREFIX
from pipeline.context import build_context
from pipeline.index import vectors
from pipeline.ingest.extractors import registry
from pipeline.settings import Settings
from schemas.runtime.embedding import chosen, models
from schemas.runtime.embedding.port import written
from schemas.settings import EmbeddingSettings
from schemas.tables.documents import Document
from schemas.tables.passages import PassageEmbedding
from schemas.tables.tenants import Tenant

P95_MAX_MS: Final = 50
HITS: Final = 10

PASSAGE_CHARACTERS: Final = 700

TENANTS: Final = {MAIN: "80 % of the passages", f"{MAIN}-01": "1 % of the passages"}
"""The measured tenants."""

UNLIMITED: Final = {"REQUEST_RATE": "1000000", "REQUEST_BURST": "1000000"}


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured.

    Attributes:
        queries: of each kind.
        recalled: queries whose hits are compared with an exact search.
        indexed: documents whose vectors are made again.
    """

    passages: int
    queries: int
    recalled: int
    indexed: int


FULL: Final = Extent(passages=1_000_000, queries=40, recalled=100, indexed=200)
QUICK: Final = Extent(passages=5_000, queries=2, recalled=5, indexed=4)


def mix(author: Author, *, queries: int, seed: int = 1) -> Mapping[str, Sequence[str]]:
    """Return queries by kind; equal arguments give equal queries."""
    random = Random(seed)  # noqa: S311  # invented queries, not secrets
    vocabulary = author.vocabularies["en"]

    def topical(count: int) -> list[str]:
        return random.sample(vocabulary.topic_words(random.randrange(TOPICS))[:20], k=count)

    def ranked(first: int, last: int, count: int) -> list[str]:
        return random.sample(vocabulary.words(slice(first, last)), k=count)

    def phrase() -> str:
        document = author.document(random.randrange(1_000))
        page = random.choice(document.pages)
        words = page.text.split()
        place = random.randrange(len(words) - 3)
        return " ".join(words[place : place + 3]).replace('"', "")

    kinds: Mapping[str, Callable[[], str]] = {
        # The first ranks are stop words, which are in nearly every passage.
        "a stop word": lambda: ranked(0, 40, 1)[0],
        "a common word": lambda: ranked(80, 110, 1)[0],
        "a rare word": lambda: ranked(20_000, 30_000, 1)[0],
        "two words of a topic": lambda: " ".join(topical(2)),
        "common and rare words": lambda: " ".join((*ranked(80, 150, 2), *topical(1))),
        "a question": lambda: "{} {} {} {} {} {} {} {}?".format(
            *ranked(0, 40, 3), *topical(3), *ranked(80, 2_000, 2)
        ),
        "a phrase": lambda: f'"{phrase()}"',
        "a prefix": lambda: f"{topical(1)[0][:5]}*",
        "an excluded word": lambda: "{} {} -{}".format(*topical(2), *ranked(80, 150, 1)),
        "words or others": lambda: "{} OR {} OR {}".format(*topical(3)),
    }
    return {kind: [make() for _ in range(queries)] for kind, make in kinds.items()}


EXACTLY_NEAREST: Final = text(
    """
    WITH compared AS MATERIALIZED (
        SELECT document_id, page, ordinal, embedding <=> CAST(:vector AS halfvec) AS distance
        FROM passage_embeddings
        WHERE model_id = :model_id AND tenant_id = (SELECT id FROM tenants WHERE name = :tenant)
    )
    SELECT document_id, page, ordinal FROM compared
    WHERE distance <= :distance_max ORDER BY distance LIMIT :hits
    """
)

Samples = dict[tuple[str, str], list[float]]
"""Milliseconds by kind of query and tenant."""


def run(system: System, *, extent: Extent) -> Section:
    system.run_only()
    author = Author(seed=1)
    queries = mix(author, queries=extent.queries)
    name = f"search-{extent.passages}"
    own = system.stack.create_database(name)
    with ExitStack() as end:
        end.callback(system.stack.drop_database, name)
        seconds = _seeded(system, own, extent=extent)
        samples = _timed(system, own, queries)
        several = _several_at_once(system, own, queries)
        recalls = _recalls(system, own, author, extent=extent)
        embedded, indexed = _indexed(system, own, author, extent=extent)
    every = Spread.of(list(chain.from_iterable(samples.values())))
    slow = [
        f"{kind} ({TENANTS[tenant]})"
        for (kind, tenant), its in samples.items()
        if Spread.of(its).p95 > P95_MAX_MS
    ]
    _plot(samples, extent=extent, system=system)
    return Section(
        title="Search",
        question=(
            f"`GET /search` over {extent.passages:,} passages in four languages, whose words follow Zipf's law, with"
            " vectors of the default model's length: one tenant owns 80 % of them, twenty own 1 % each. The same"
            f" {extent.queries} queries of each kind, by words and vectors, over one connection, warm."
        ),
        tables=[
            _times(samples),
            Table(
                headings=["", ""],
                rows=[
                    ["all queries, p50", f"{every.p50:.0f} ms"],
                    ["all queries, p95", f"{every.p95:.0f} ms"],
                    ["all queries, two at a time, p95", f"{several.p95:.0f} ms"],
                    *(
                        [f"recall@{HITS} of the index, {TENANTS[tenant]}", f"{recall:.3f}"]
                        for tenant, recall in recalls.items()
                    ),
                    ["passages embedded by one process", f"{embedded:,.0f} per second"],
                    ["passages embedded and indexed by one process", f"{indexed:,.0f} per second"],
                    ["seeding, with the indexes", f"{seconds:,.0f} s"],
                ],
            ),
        ],
        remarks=[
            f"p95 above {P95_MAX_MS} ms: {', '.join(slow)}."
            if slow
            else f"No p95 is above {P95_MAX_MS} ms.",
            (
                "The recall compares the hits of `mode=vectors` through the index (`SEARCH_EXACT_MAX=1`) with those"
                " of a comparison with every vector of the tenant. Without this setting, the tenant with 1 % is"
                " compared so, and has a recall of 1."
            ),
        ],
        plots=["search.svg"],
        measured_on=datetime.now(UTC).date(),
    )


def _seeded(system: System, own: Mapping[str, str], *, extent: Extent) -> float:
    """Return how long it took."""
    with _stack(system, own) as stack:
        stack.migrate()
    began = time.monotonic()
    seed_library(
        own["DATABASE_URL"],
        LibraryExtent(passages=extent.passages, settings=EmbeddingSettings()),
        report=lambda line: system.report(f"search: {line}"),
    )
    return time.monotonic() - began


@contextmanager
def _stack(system: System, own: Mapping[str, str], **settings: str) -> Iterator[Stack]:
    """Yield a stack on the database with the library; its gateway is not started."""
    directory = system.stack.state_dir / "search"
    with Stack(directory, settings={**own, **UNLIMITED, **settings}, table=TABLE) as stack:
        yield stack


@contextmanager
def _clients(stack: Stack) -> Iterator[Mapping[str, Connection]]:
    """Start the gateway; yield a connection for each measured tenant."""
    stack.start_services("gateway")
    with ExitStack() as end:
        clients = {
            tenant: end.enter_context(
                closing(
                    Connection(
                        stack.url,
                        headers={"Authorization": f"Bearer {stack.create_api_key(tenant=tenant)}"},
                    )
                )
            )
            for tenant in TENANTS
        }
        _ask(clients[MAIN], "word")  # the first search waits until the model is loaded
        yield clients


def _ask(
    client: Connection, query: str, *, mode: str = "hybrid"
) -> tuple[float, list[dict[str, Any]]]:
    """Return the milliseconds and the hits."""
    target = f"{API_PREFIX}/search?{urlencode({'q': query, 'limit': HITS, 'mode': mode})}"
    began = time.perf_counter()
    answer = client.ask("GET", target)
    milliseconds = (time.perf_counter() - began) * 1000
    found = answer.json
    if found["semantic"]["status"] != "ok":
        raise RuntimeError(f"vectors were not searched: {found['semantic']}")
    return milliseconds, found["items"]


def _timed(system: System, own: Mapping[str, str], queries: Mapping[str, Sequence[str]]) -> Samples:
    samples: Samples = defaultdict(list)
    with _stack(system, own) as stack, _clients(stack) as clients:
        for is_warm in (False, True):
            for kind, its in queries.items():
                for tenant, client in clients.items():
                    taken = [_ask(client, query)[0] for query in its]
                    if is_warm:
                        samples[kind, tenant] = taken
    return samples


def _several_at_once(
    system: System, own: Mapping[str, str], queries: Mapping[str, Sequence[str]]
) -> Spread:
    """Measure the same queries for the tenants at the same time."""
    every = list(chain.from_iterable(queries.values()))
    with (
        _stack(system, own) as stack,
        _clients(stack) as clients,
        ThreadPoolExecutor(len(clients)) as pool,
    ):
        for client in clients.values():
            _ask(client, every[0])
        taken = pool.map(
            lambda client: [_ask(client, query)[0] for query in every], clients.values()
        )
        return Spread.of(list(chain.from_iterable(taken)))


def _recalls(
    system: System, own: Mapping[str, str], author: Author, *, extent: Extent
) -> dict[str, float]:
    """Return by tenant the share of the nearest passages that the index finds."""
    asked = mix(author, queries=extent.recalled, seed=2)["a question"]
    by_index = _nearest(system, own, asked)
    exact = _exactly_nearest(own, asked)
    return {
        tenant: fmean(
            len(some & every) / len(every)
            for some, every in zip(by_index[tenant], exact[tenant], strict=True)
            if every
        )
        for tenant in TENANTS
    }


Hits = dict[str, list[set[tuple[str, int, int]]]]
"""By tenant the nearest passages of each query."""


def _nearest(system: System, own: Mapping[str, str], asked: Sequence[str]) -> Hits:
    """Search by vectors alone, through the index."""
    settings = {"SEARCH_EXACT_MAX": "1", "SEARCH_TIMEOUT": "1m"}
    with _stack(system, own, **settings) as stack, _clients(stack) as clients:
        return {
            tenant: [
                {
                    (hit["document_id"], hit["page"], hit["passage"])
                    for hit in _ask(client, query, mode="vectors")[1]
                }
                for query in asked
            ]
            for tenant, client in clients.items()
        }


def _exactly_nearest(own: Mapping[str, str], asked: Sequence[str]) -> Hits:
    """Compare every vector of the tenant; the product would not, if the tenant has many."""
    engine = create_engine(own["DATABASE_URL"], poolclass=NullPool)
    with Session(engine) as session:
        model = models.active(session)
        if model is None:
            raise RuntimeError("there is no active model")
        vectors = chosen.named(model.name).embed(asked)
        return {
            tenant: [
                {
                    (str(row.document_id), row.page, row.ordinal)
                    for row in session.execute(
                        EXACTLY_NEAREST,
                        {
                            "vector": written(vector),
                            "model_id": model.id,
                            "tenant": tenant,
                            "hits": HITS,
                            "distance_max": 1 - SIMILARITY_MIN,
                        },
                    )
                }
                for vector in vectors
            ]
            for tenant in TENANTS
        }


def _indexed(
    system: System, own: Mapping[str, str], author: Author, *, extent: Extent
) -> tuple[float, float]:
    """Make vectors again; return the passages per second of the model alone, and with the index."""
    with _stack(system, own) as stack, ExitStack() as end:
        settings = Settings.model_validate(
            {name.lower(): value for name, value in stack.environment.items()}
        )
        context = build_context(settings, will_be_read=registry.will_be_read)
        end.callback(context.engine.dispose)
        engine = create_engine(own["DATABASE_URL"])
        end.callback(engine.dispose)
        with Session(engine, expire_on_commit=False) as session, session.begin():
            model = models.active(session)
            if model is None:
                raise RuntimeError("there is no active model")
            revisions = session.scalars(
                select(Document.revision_id)
                .join(Tenant, Tenant.id == Document.tenant_id)
                .where(Tenant.name == MAIN, Document.revision_id.is_not(None))
                .order_by(Document.id)
                .limit(extent.indexed)
            ).all()
            session.execute(
                delete(PassageEmbedding).where(PassageEmbedding.revision_id.in_(revisions))
            )
        pages = chain.from_iterable(author.document(number).pages for number in range(100))
        texts = [page.text[:PASSAGE_CHARACTERS] for page in pages]
        embedder = chosen.named(model.name)
        embedder.embed(texts)  # the first time, a word costs more
        began = time.perf_counter()
        embedder.embed(texts)
        embedded = len(texts) / (time.perf_counter() - began)
        began = time.perf_counter()
        made = sum(
            vectors.make(context, revision_id, model, after_batch=lambda _: None)
            for revision_id in revisions
            if revision_id is not None
        )
        return embedded, made / (time.perf_counter() - began)


def _times(samples: Samples) -> Table:
    rows = []
    for kind in dict.fromkeys(kind for kind, _ in samples):
        spreads = [Spread.of(samples[kind, tenant]) for tenant in TENANTS]
        rows.append([kind, *(f"{value:.0f}" for each in spreads for value in (each.p50, each.p95))])
    headings = [f"{what}, {name}" for name in TENANTS.values() for what in ("p50", "p95")]
    return Table(headings=["milliseconds", *headings], rows=rows)


def _plot(samples: Samples, *, extent: Extent, system: System) -> None:
    kinds = list(dict.fromkeys(kind for kind, _ in samples))
    plots.bars(
        Bars(
            title=f"Search over {extent.passages:,} passages, p95 (lower is better)",
            unit="ms",
            groups=[two_lines(kind.replace(" ", ", ", 1)) for kind in kinds],
            series={
                name: [[Spread.of(samples[kind, tenant]).p95] for kind in kinds]
                for tenant, name in TENANTS.items()
            },
            ours=(TENANTS[MAIN],),
        ),
        to=system.plots / "search.svg",
    )
