"""A library of many passages with their vectors, for search at scale.

The rows are those that the product would have written. Several processes write them without
triggers, and the indexes of words and vectors are built at the end: that takes a fraction of the
time that their maintenance would.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from itertools import chain
from multiprocessing import get_context
from typing import Any, Final, LiteralString, Self
from uuid import UUID

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from sqlalchemy import create_engine, func, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from dev.seed.load import Report, SeedRefused, silent, timed
from dev.seed.texts import Author, DocumentText
from pipeline.enrich.passages import Budget
from pipeline.index import copying
from pipeline.ingest import passage_rows
from pipeline.ingest.frames import PageReading
from pipeline.ingest.passage_rows import PassageToWrite
from schemas.ids import DocumentId, RevisionId, TenantId
from schemas.lifecycle import SearchState
from schemas.runtime.embedding import chosen, models
from schemas.runtime.embedding.port import Vectors
from schemas.settings import EmbeddingSettings, PassageSettings

MAIN: Final = "seed-library"
"""The tenant that owns what the small ones do not own."""

CHUNK_MAX: Final = 2_500
"""Passages of one transaction."""

_PARTS: Final = 100
_AGE_MINUTES: Final = 300 * 24 * 60
_TOPIC_WORDS: Final = 12
"""Of the text that stands for a topic."""

# What a passage says beside its topic: 0.6 in a few directions, as in real texts, and 0.3 in all.
_ASPECTS: Final = 24
_ASPECT: Final = 0.6 / 24**0.5
_NOISE: Final = 0.3 / 512**0.5

_TABLES: Final = (
    *("tenants", "uploads", "jobs", "documents", "revisions", "pages"),
    *("passages", "passage_embeddings"),
)
# The indexes that are slower to maintain than to build.
_INDEXES: Final[LiteralString] = """
    SELECT indexes.relname, pg_get_indexdef(indexes.oid)
    FROM pg_index
    JOIN pg_class AS indexes ON indexes.oid = indexrelid
    JOIN pg_class AS tables ON tables.oid = indrelid AND tables.relkind = 'r'
    JOIN pg_am ON pg_am.oid = indexes.relam
    WHERE amname IN ('gin', 'hnsw') AND (tables.relname = 'passages' OR tables.relname LIKE 'passage\\_embeddings%%')
    ORDER BY amname
"""


@dataclass(frozen=True, kw_only=True)
class LibraryExtent:
    """How large the library is; equal extents give equal texts and ids.

    Attributes:
        passages: rounded down to hundreds.
        settings: name the model of the vectors; the library has none with `EMBEDDING_MODEL=none`.
        small_tenants: tenants with a hundredth of the passages each.
        seed: selects texts and ids.
    """

    passages: int
    settings: EmbeddingSettings
    small_tenants: int = 20
    seed: int = 1

    @property
    def tenants(self) -> list[str]:
        """The names of the tenants, `MAIN` first."""
        return [MAIN, *(f"{MAIN}-{number:02}" for number in range(1, self.small_tenants + 1))]

    @property
    def chunks(self) -> "list[Chunk]":
        rounds = -(-self.passages // (_PARTS * CHUNK_MAX))
        return [
            Chunk(
                number=number,
                passages=self.passages // (_PARTS * rounds),
                tenant=part + 1 if (part := number % _PARTS) < self.small_tenants else 0,
            )
            for number in range(_PARTS * rounds)
        ]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """What one transaction writes; `tenant` is a place in `LibraryExtent.tenants`."""

    number: int
    passages: int
    tenant: int


def seed_library(database_url: str, extent: LibraryExtent, *, report: Report = silent) -> None:
    """Write the library, build the indexes, then vacuum and analyze.

    Needs a superuser, as `dev.seed.load.seed`.

    Args:
        database_url: as in the settings of a service.
        extent: how much.
        report: takes a line for each part.

    Raises:
        SeedRefused: the database has such a library already.
        EmbedderUnavailable: the model cannot be loaded.
    """
    with _connected(database_url) as connection:
        found = connection.execute("SELECT 1 FROM tenants WHERE name = %s", (MAIN,)).fetchone()
        if found is not None:
            raise SeedRefused("the database has a library already; --remove deletes it")
        connection.execute(
            "INSERT INTO tenants (id, name) SELECT * FROM unnest(%s::uuid[], %s::text[])",
            ([_id(extent, "tenant", name) for name in extent.tenants], extent.tenants),
        )
        model_id = _active_model(database_url, extent)
        with _without_indexes(connection, report=report), timed("rows", report):
            _write(database_url, extent, model_id=model_id)
        with timed("vacuum", report):
            names = sql.SQL(", ").join(map(sql.Identifier, _TABLES))
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(names))


def _active_model(database_url: str, extent: LibraryExtent) -> int | None:
    """Return the active model of the database, which is added if there is none.

    Raises:
        SeedRefused: it is not that of the settings.
    """
    wanted = chosen.model_of(extent.settings)
    if wanted is None:
        return None
    engine = create_engine(database_url, poolclass=NullPool)
    with Session(engine) as session, session.begin():
        found = models.first(session, wanted)[0]
        if found.name != wanted.name:
            raise SeedRefused(f"the active model of the database is {found.name}")
        # A running system does not look for passages without a vector.
        found.filled_at = func.now()
        return found.id


def _write(database_url: str, extent: LibraryExtent, *, model_id: int | None) -> None:
    if extent.passages <= CHUNK_MAX:
        # A process takes longer to start than this one to write so few.
        writer = _Writer(database_url, extent, model_id=model_id)
        for chunk in extent.chunks:
            writer.write(chunk)
        writer.close()
        return
    with ProcessPoolExecutor(
        os.cpu_count(),
        # A forked process would share the connections of its parent.
        mp_context=get_context("spawn"),
        initializer=_begin_process,
        initargs=(database_url, extent, model_id),
    ) as pool:
        for _ in pool.map(_write_chunk, extent.chunks):
            pass


_writer: "_Writer | None" = None


def _begin_process(database_url: str, extent: LibraryExtent, model_id: int | None) -> None:
    global _writer  # noqa: PLW0603  # one per process of the pool
    _writer = _Writer(database_url, extent, model_id=model_id)


def _write_chunk(chunk: Chunk) -> None:
    if _writer is None:
        raise RuntimeError("the process has no writer")
    _writer.write(chunk)


@dataclass(frozen=True, kw_only=True)
class _Document:
    """A document with the ids of what belongs to it."""

    number: int
    text: DocumentText
    tenant_id: UUID
    document_id: UUID
    upload_id: UUID
    job_id: UUID
    revision_id: UUID

    @classmethod
    def of(cls, extent: LibraryExtent, *, number: int, text: DocumentText, tenant: str) -> Self:
        return cls(
            number=number,
            text=text,
            tenant_id=_id(extent, "tenant", tenant),
            document_id=_id(extent, "document", number),
            upload_id=_id(extent, "upload", number),
            job_id=_id(extent, "job", number),
            revision_id=_id(extent, "revision", number),
        )


class _Writer:
    """Writes chunks; one per process."""

    def __init__(self, database_url: str, extent: LibraryExtent, *, model_id: int | None) -> None:
        self._extent = extent
        self._author = Author(seed=extent.seed)
        self._budget = passage_rows.budget_of(PassageSettings())
        self._engine = create_engine(database_url)
        self._model_id = model_id
        self._meanings = None if model_id is None else _Meanings(extent, self._author)

    def close(self) -> None:
        self._engine.dispose()

    def write(self, chunk: Chunk) -> None:
        documents: list[_Document] = []
        found: list[tuple[_Document, list[PassageToWrite]]] = []
        missing = chunk.passages
        while missing:
            number = chunk.number * CHUNK_MAX + len(documents)
            document = _Document.of(
                self._extent,
                number=number,
                text=self._author.document(number),
                tenant=self._extent.tenants[chunk.tenant],
            )
            documents.append(document)
            found.append((document, _passages_of(document, budget=self._budget)[:missing]))
            missing -= len(found[-1][1])
        with Session(self._engine) as session, session.begin():
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(text("SET LOCAL synchronous_commit = off"))
            driver: Any = session.connection().connection.driver_connection
            with driver.cursor() as cursor:
                state = SearchState.WORDS if self._model_id is None else SearchState.COMPLETE
                cursor.executemany(_DOCUMENT, [_values(each, state) for each in documents])
                _copy_pages(cursor, documents)
                for document, passages in found:
                    passage_rows.insert(
                        session,
                        passages,
                        revision_id=RevisionId(document.revision_id),
                        document_id=DocumentId(document.document_id),
                        tenant_id=TenantId(document.tenant_id),
                    )
                if self._meanings is not None and self._model_id is not None:
                    topics = [
                        (document.text.language, document.text.topic)
                        for document, passages in found
                        for _ in passages
                    ]
                    vectors = self._meanings.near(topics, number=chunk.number)
                    _copy_vectors(cursor, found, vectors, model_id=self._model_id)


class _Meanings:
    """Makes vectors of passages from those of their topics.

    To embed a million texts would take most of an hour.
    """

    def __init__(self, extent: LibraryExtent, author: Author) -> None:
        model = chosen.model_of(extent.settings)
        if model is None:
            raise ValueError("there is no model")
        self._embedder = chosen.named(model.name)
        self._author = author
        self._seed = extent.seed
        self._topics: dict[tuple[str, int], NDArray[np.float32]] = {}
        others = np.random.default_rng(extent.seed).standard_normal((_ASPECTS, model.dimension))
        self._aspects = _normalised(others.astype(np.float32))

    def near(self, topics: Sequence[tuple[str, int]], *, number: int) -> Vectors:
        """Return vectors near those of the topics; equal arguments give equal vectors."""
        random = np.random.default_rng((self._seed, number))
        near = np.array([self._topic(*topic) for topic in topics])
        count, dimension = near.shape
        near += (
            _ASPECT * random.standard_normal((count, _ASPECTS), dtype=np.float32) @ self._aspects
        )
        near += _NOISE * random.standard_normal((count, dimension), dtype=np.float32)
        return _normalised(near).astype(np.float16)

    def _topic(self, language: str, topic: int) -> NDArray[np.float32]:
        found = self._topics.get((language, topic))
        if found is None:
            words = self._author.vocabularies[language].topic_words(topic)[:_TOPIC_WORDS]
            found = self._embedder.embed([" ".join(words)])[0].astype(np.float32)
            self._topics[language, topic] = found
        return found


def _normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    normalised: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised


_DOCUMENT: Final[LiteralString] = """
    WITH upload AS (
        INSERT INTO uploads (id, tenant_id, status, filename, content_type, size, chunk_size, chunk_count, sniffed_type, metadata,
                             created_at, expires_at, finalized_at)
        VALUES (%(upload_id)s, %(tenant_id)s, 'stored', %(filename)s, 'application/pdf', 81234, 81234, 1, 'application/pdf',
                jsonb_build_object('customer', %(customer)s::text), %(at)s, %(at)s, %(at)s)
    ), job AS (
        INSERT INTO jobs (id, tenant_id, upload_id, status, stage, revision, created_at, started_at, finished_at, updated_at)
        VALUES (%(job_id)s, %(tenant_id)s, %(upload_id)s, 'completed', 'done', 4, %(at)s, %(at)s, %(at)s, %(at)s)
    ), revision AS (
        INSERT INTO revisions (id, document_id, tenant_id, job_id, number, pipeline_version, state, outcome, page_count, pages_read, language,
                               title, metadata, outline, attachments, page_labels, passages, search, created_at, published_at)
        VALUES (%(revision_id)s, %(document_id)s, %(tenant_id)s, %(job_id)s, 1, 'seed', 'published', 'complete', %(pages)s, %(pages)s,
                %(language)s, %(title)s, '{}', '[]', '[]', '[]', %(sentences)s, %(search)s, %(at)s, %(at)s)
    )
    INSERT INTO documents (id, tenant_id, upload_id, job_id, status, outcome, revision_id, filename, content_type, size, sha256, object_key, etag,
                           language, created_at, ingested_at)
    VALUES (%(document_id)s, %(tenant_id)s, %(upload_id)s, %(job_id)s, 'ingested', 'complete', %(revision_id)s, %(filename)s, 'application/pdf',
            81234, encode(sha256(%(filename)s::text::bytea), 'hex'), 'originals/' || %(upload_id)s::text, 'etag', %(language)s, %(at)s, %(at)s)
"""

_PAGES: Final[LiteralString] = """
    COPY pages (revision_id, number, status, outcome, text, engine, language, width_points, height_points, sentences) FROM STDIN
"""


_VECTORS: Final = sql.SQL("COPY passage_embeddings ({}) FROM STDIN (FORMAT BINARY)").format(
    sql.SQL(", ").join(map(sql.Identifier, copying.COLUMNS.split(", ")))
)


def _values(document: _Document, state: SearchState) -> dict[str, Any]:
    text = document.text
    return {
        "tenant_id": document.tenant_id,
        "document_id": document.document_id,
        "upload_id": document.upload_id,
        "job_id": document.job_id,
        "revision_id": document.revision_id,
        "filename": f"file-{document.number}.pdf",
        "customer": f"customer-{document.number % 100}",
        "language": text.language,
        "title": text.title,
        "pages": len(text.pages),
        "sentences": sum(len(page.sentences) for page in text.pages),
        "search": state,
        "at": datetime.now(UTC) - timedelta(minutes=document.number % _AGE_MINUTES),
    }


def _passages_of(document: _Document, *, budget: Budget) -> list[PassageToWrite]:
    return [
        passage
        for number, page in enumerate(document.text.pages, start=1)
        for passage in passage_rows.of_page(
            PageReading(
                number=number,
                text=page.text,
                sentences=page.sentences,
                language=document.text.language,
            ),
            budget=budget,
        )
    ]


def _copy_pages(cursor: psycopg.Cursor[Any], documents: Sequence[_Document]) -> None:
    with cursor.copy(_PAGES) as copy:
        for document in documents:
            for number, page in enumerate(document.text.pages, start=1):
                bounds = ",".join(map(str, chain.from_iterable(page.sentences)))
                copy.write_row(
                    (
                        *(document.revision_id, number, "read", "complete", page.text, "pdfium"),
                        *(document.text.language, 595, 842, f"{{{bounds}}}"),
                    )
                )


def _copy_vectors(
    cursor: psycopg.Cursor[Any],
    found: Sequence[tuple[_Document, Sequence[PassageToWrite]]],
    vectors: Vectors,
    *,
    model_id: int,
) -> None:
    done = 0
    with cursor.copy(_VECTORS) as copy:
        copy.write(copying.HEADER)
        for document, passages in found:
            for row in copying.rows(
                [(passage.page, passage.ordinal) for passage in passages],
                vectors[done : done + len(passages)],
                model_id=model_id,
                revision_id=document.revision_id,
                tenant_id=document.tenant_id,
                document_id=document.document_id,
            ):
                copy.write(row)
            done += len(passages)
        copy.write(copying.TRAILER)


@contextmanager
def _without_indexes(connection: psycopg.Connection, *, report: Report) -> Iterator[None]:
    """Drop the indexes of words and vectors, and build them again after the block."""
    found = connection.execute(_INDEXES).fetchall()
    for name, _ in found:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    try:
        yield
    finally:
        connection.execute("SET maintenance_work_mem = '3GB'")
        connection.execute(f"SET max_parallel_maintenance_workers = {os.cpu_count() or 1}")
        for name, definition in found:
            with timed(name, report):
                connection.execute(definition)


@contextmanager
def _connected(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(_libpq(database_url), autocommit=True) as connection:
        yield connection


def _libpq(database_url: str) -> str:
    url = make_url(database_url).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


def _id(extent: LibraryExtent, kind: str, name: object) -> UUID:
    digest = md5(f"{extent.seed} {kind} {name}".encode(), usedforsecurity=False).digest()
    return UUID(bytes=digest, version=4)
