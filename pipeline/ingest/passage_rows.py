"""Writes, copies and deletes the passages of pages, in the transactions of their pages.

Passages are written with their words, and without vectors: the step `index` adds those. Only a
document that is read again takes the vectors of unchanged text from the revision that clients see, so
that search finds it without a gap.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, delete, select, tuple_
from sqlalchemy import text as sql
from sqlalchemy.orm import Session

from pipeline.enrich.passages import Budget, Range, passages_of
from pipeline.ingest.frames import PageReading
from schemas.ids import DocumentId, RevisionId, TenantId
from schemas.lifecycle import PassageKind
from schemas.policy import search_words
from schemas.policy.passage_ordinals import FIRST_OF_TABLES, table_of_passage
from schemas.settings import PassageSettings
from schemas.spans import RUNNING
from schemas.tables.base import table_of
from schemas.tables.passages import Passage, PassageEmbedding

_PASSAGES: Final = table_of(Passage)
_EMBEDDINGS: Final = table_of(PassageEmbedding)

ROWS_MAX: Final = 500
"""Rows of one statement: bounds the memory of both sides."""

_INSERT: Final = sql(
    f"""
    INSERT INTO passages
        (revision_id, page, ordinal, tenant_id, document_id, kind, start, "end", language, digest, text, tokens, search)
    SELECT :revision_id, page, ordinal, :tenant_id, :document_id, kind, start, "end", language, digest, own_text, tokens,
           CASE WHEN configuration = '{search_words.AS_WRITTEN}'::regconfig
                THEN setweight(to_tsvector(configuration, searched), 'A')
                ELSE setweight(to_tsvector(configuration, text), 'A')
                     || to_tsvector('{search_words.AS_WRITTEN}', coalesce(searched, text))
           END || array_to_tsvector(marks)
    FROM json_to_recordset(CAST(:rows AS json)) AS given (
        page integer, ordinal integer, kind text, start integer, "end" integer, language text, digest uuid,
        own_text text, tokens integer, configuration regconfig, text text, searched text, marks text[]
    )
    """  # noqa: S608  # a constant
)

# The same bytes give the same pages: the text of a page is looked for on the page of the same number.
_COPY_VECTORS: Final = sql(
    """
    INSERT INTO passage_embeddings (model_id, revision_id, page, ordinal, tenant_id, document_id, embedding)
    SELECT DISTINCT ON (vector.model_id, new.page, new.ordinal)
           vector.model_id, new.revision_id, new.page, new.ordinal, new.tenant_id, new.document_id, vector.embedding
    FROM documents
    JOIN passages AS new ON new.revision_id = :revision_id AND new.page = ANY(:pages)
    JOIN passages AS old
      ON old.revision_id = documents.revision_id AND old.page = new.page AND old.digest = new.digest
    JOIN passage_embeddings AS vector
      ON vector.revision_id = old.revision_id AND vector.page = old.page AND vector.ordinal = old.ordinal
    WHERE documents.id = :document_id AND documents.revision_id <> :revision_id
    """
)

_COPY: Final = sql(
    """
    INSERT INTO passages
        (revision_id, page, ordinal, tenant_id, document_id, kind, start, "end", language, digest, text, tokens, search)
    SELECT :revision_id, page, ordinal, tenant_id, :document_id, kind, start, "end", language, digest, text, tokens,
           ts_delete(search, CAST(:source_mark AS text)) || array_to_tsvector(ARRAY[CAST(:document_mark AS text)])
    FROM passages
    WHERE revision_id = :source AND page BETWEEN :first AND :last AND kind = :kind
    """
)

# The same text has the same tables, unless another version finds others: the step `tables` replaces them.
_COPY_OF_TABLES: Final = sql(
    """
    INSERT INTO passages
        (revision_id, page, ordinal, tenant_id, document_id, kind, start, "end", language, digest, text, tokens, search)
    SELECT :revision_id, old.page, old.ordinal, old.tenant_id, old.document_id, old.kind, old.start, old."end",
           old.language, old.digest, old.text, old.tokens, old.search
    FROM passages AS old
    JOIN pages AS shown ON shown.revision_id = old.revision_id AND shown.number = old.page
    JOIN pages AS new ON new.revision_id = :revision_id AND new.number = old.page AND new.text = shown.text
    WHERE old.revision_id = :shown AND old.ordinal >= :first
    """
)

_OF_TABLES: Final = select(
    _PASSAGES.c.page, _PASSAGES.c.ordinal, _PASSAGES.c.digest, _PASSAGES.c.language
).where(
    _PASSAGES.c.revision_id == bindparam("revision_id"),
    _PASSAGES.c.page.between(bindparam("first_page"), bindparam("last_page")),
    _PASSAGES.c.ordinal >= FIRST_OF_TABLES,
)


@dataclass(frozen=True, kw_only=True)
class PassageToWrite:
    """A passage of a page.

    Attributes:
        ordinal: unique in the page.
        start: offsets in the text of the page; 0 and 0 if the text is not a part of it.
        tokens: see `pipeline.enrich.passages.tokens_of`.
    """

    page: int
    ordinal: int
    kind: PassageKind
    start: int
    end: int
    language: str | None
    text: str
    tokens: int


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    page: int
    ordinal: int
    kind: PassageKind
    start: int
    end: int
    language: str | None
    digest: UUID
    own_text: str | None
    tokens: int
    configuration: str
    text: str
    searched: str | None
    marks: list[str]


def budget_of(settings: PassageSettings) -> Budget:
    return Budget(tokens=settings.passage_tokens, overlap=settings.passage_overlap)


def of_page(page: PageReading, *, budget: Budget) -> Sequence[PassageToWrite]:
    """Return the passages of a page's text."""
    return of_text(
        page.text,
        page=page.number,
        sentences=page.sentences,
        running=[(span.start, span.end) for span in page.spans if span.kind in RUNNING],
        language=page.language,
        budget=budget,
    )


def of_text(
    text: str,
    *,
    page: int,
    sentences: Sequence[Range],
    running: Sequence[Range],
    language: str | None,
    budget: Budget,
) -> Sequence[PassageToWrite]:
    """Return the passages of a text; see `pipeline.enrich.passages.passages_of`."""
    found = passages_of(text, sentences=sentences, running=running, budget=budget)
    return [
        PassageToWrite(
            page=page,
            ordinal=ordinal,
            kind=PassageKind.TEXT,
            start=start,
            end=end,
            language=language,
            text=text[start:end],
            tokens=tokens,
        )
        for ordinal, (start, end, tokens) in enumerate(found)
    ]


def insert(
    session: Session,
    passages: Sequence[PassageToWrite],
    *,
    revision_id: RevisionId,
    document_id: DocumentId,
    tenant_id: TenantId,
) -> None:
    """Add passages of one revision, without vectors.

    Args:
        session: of a transaction that has locked the document.
        passages: none of which is written; a page of two million characters has 3,000.
        revision_id: the revision that is written.
        document_id: its document.
        tenant_id: the owner.
    """
    marks = [search_words.tenant_mark(tenant_id), search_words.document_mark(document_id)]
    encoder = msgspec.json.Encoder()
    for first in range(0, len(passages), ROWS_MAX):
        rows = [_row(passage, marks=marks) for passage in passages[first : first + ROWS_MAX]]
        values = {
            "revision_id": revision_id,
            "document_id": document_id,
            "tenant_id": tenant_id,
            "rows": encoder.encode(rows).decode(),
        }
        session.execute(_INSERT, values)


def copy_of_tables(session: Session, *, revision_id: RevisionId, shown: RevisionId) -> None:
    """Take the passages of the tables of pages with equal text from the revision that clients see.

    Without them, search would find no table of the document until the step `tables` has looked for the
    tables again; it then replaces these passages. Their vectors are added by the step `index`.

    Args:
        session: the transaction that publishes the revision.
        revision_id: the revision that is published.
        shown: the revision that it replaces.
    """
    values = {"revision_id": revision_id, "shown": shown, "first": FIRST_OF_TABLES}
    session.execute(_COPY_OF_TABLES, values)


def discard_of_tables(
    session: Session,
    revision_id: RevisionId,
    *,
    first_page: int,
    last_page: int,
    others: Collection[int],
    wanted: Collection[PassageToWrite],
) -> list[PassageToWrite]:
    """Delete the passages of tables on some pages, except those that are wanted; return the missing ones.

    Args:
        session: of a transaction that has locked the document.
        revision_id: a revision.
        first_page: the first page.
        last_page: the last page.
        others: numbers of tables that begin before, and whose passages stay.
        wanted: the passages of tables that begin on these pages; equal ones stay as they are.
    """
    missing = {
        (each.page, each.ordinal, digest_of(each.text), each.language): each for each in wanted
    }
    own = {
        "revision_id": revision_id,
        "first_page": first_page,
        "last_page": max([last_page, *(each.page for each in wanted)]),
    }
    gone = []
    for row in session.execute(_OF_TABLES, own):
        is_wanted = missing.pop(tuple(row), None) is not None
        if not is_wanted and table_of_passage(row.ordinal) not in others:
            gone.append((row.page, row.ordinal))
    for start in range(0, len(gone), ROWS_MAX):
        for table in (_EMBEDDINGS, _PASSAGES):
            session.execute(
                delete(table).where(
                    table.c.revision_id == revision_id,
                    tuple_(table.c.page, table.c.ordinal).in_(gone[start : start + ROWS_MAX]),
                )
            )
    return list(missing.values())


def digest_of(text: str) -> UUID:
    """Return what the text of a passage is compared by."""
    return UUID(bytes=hashlib.md5(text.encode(), usedforsecurity=False).digest())


def copy_vectors(
    session: Session, *, revision_id: RevisionId, document_id: DocumentId, pages: Collection[int]
) -> None:
    """Take the vectors of passages with equal text from the revision that clients see.

    Args:
        session: the transaction that has inserted the passages.
        revision_id: the revision that is written.
        document_id: its document.
        pages: the pages of these passages.
    """
    values = {"revision_id": revision_id, "document_id": document_id, "pages": list(pages)}
    session.execute(_COPY_VECTORS, values)


def copy(
    session: Session,
    *,
    revision_id: RevisionId,
    document_id: DocumentId,
    source: RevisionId,
    source_document: DocumentId,
    first: int,
    last: int,
) -> None:
    """Copy the passages of text of some pages from another document with the same pages.

    Their vectors are added by the step `index`, and the passages of tables by the step `tables`.
    """
    values = {
        "revision_id": revision_id,
        "document_id": document_id,
        "source": source,
        "source_mark": search_words.document_mark(source_document),
        "document_mark": search_words.document_mark(document_id),
        "kind": PassageKind.TEXT.value,
        "first": first,
        "last": last,
    }
    session.execute(_COPY, values)


def delete_of_pages(session: Session, revision_id: RevisionId, pages: Collection[int]) -> None:
    """Delete the passages of some pages, and their vectors before."""
    for table in (_EMBEDDINGS, _PASSAGES):
        session.execute(
            delete(table).where(table.c.revision_id == revision_id, table.c.page.in_(pages))
        )


def _row(passage: PassageToWrite, *, marks: Sequence[str]) -> _Row:
    configuration = search_words.configuration_of(passage.language)
    searched = search_words.searched(passage.text)
    is_alone = configuration == search_words.AS_WRITTEN
    return _Row(
        page=passage.page,
        ordinal=passage.ordinal,
        kind=passage.kind,
        start=passage.start,
        end=passage.end,
        language=passage.language,
        digest=digest_of(passage.text),
        own_text=None if passage.kind is PassageKind.TEXT else passage.text,
        tokens=passage.tokens,
        configuration=configuration,
        text=passage.text,
        # Sent only if it differs.
        searched=searched if is_alone or searched != passage.text else None,
        marks=[
            *marks,
            search_words.kind_mark(passage.kind),
            search_words.language_mark(passage.language),
        ],
    )
