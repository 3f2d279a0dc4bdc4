"""Passages of pages and of tables, for search, and their vectors.

A passage is found only while `documents.revision_id` is its revision: the transaction that publishes,
replaces or deletes a revision switches its passages with it. See `docs/adr/0054-passages-and-full-text.md`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Executable, ForeignKey, Identity, Index, Integer, SmallInteger, func, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import DocumentId, RevisionId, TenantId
from schemas.lifecycle import EmbeddingModelState, PassageKind
from schemas.policy.passage_ordinals import FIRST_OF_TABLES, PASSAGES_OF_TABLE_MAX
from schemas.tables.base import Base, HalfVector


def without_table(revision_id: RevisionId) -> Sequence[Executable]:
    """Return the statements that delete the passages of tables that a revision does not have.

    A revision has such passages from its publication until its own tables are found: those of the
    revision that it replaced.
    """
    values = {"revision_id": revision_id, "first": FIRST_OF_TABLES, "size": PASSAGES_OF_TABLE_MAX}
    return [each.bindparams(**values) for each in _WITHOUT_TABLE]


# The vectors first: a passage is deleted after its vectors.
_WITHOUT_TABLE: Final = tuple(
    text(
        f"""
        DELETE FROM {table} AS passage
        WHERE revision_id = :revision_id AND ordinal >= :first AND NOT EXISTS (
            SELECT FROM document_tables AS found
            WHERE found.revision_id = passage.revision_id
              AND found.number = (passage.ordinal - :first) / :size
              AND passage.page BETWEEN found.page AND (found.parts -> -1 ->> 0)::int
        )
        """  # noqa: S608  # names of tables
    )
    for table in ("passage_embeddings", "passages")
)


class Passage(Base):
    """Some neighbouring sentences of a page, or some rows of a table.

    Attributes:
        ordinal: unique in the page; in the order of the text, and those of tables from `schemas.policy.passage_ordinals.FIRST_OF_TABLES`.
        tenant_id: of the document, as `document_id`, so that search reads no other table for them.
        start: offsets in the text of the page; those of a table are 0 and 0 if the table is not a part of the text.
        language: of the page, as a code of ISO 639-1.
        digest: MD5 of the text; passages with equal digests have equal vectors.
        text: of a table. The text of other passages is `substr(pages.text, start + 1, "end" - start)`.
        tokens: estimated; see `pipeline.enrich.passages`.
        search: the words and marks by which the passage is found; see `schemas.policy.search_words`.
    """

    __tablename__ = "passages"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    page: Mapped[int] = mapped_column(Integer, primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True)
    tenant_id: Mapped[TenantId]
    document_id: Mapped[DocumentId]
    kind: Mapped[PassageKind]
    start: Mapped[int] = mapped_column(Integer)
    end: Mapped[int] = mapped_column(Integer)
    language: Mapped[str | None]
    digest: Mapped[UUID]
    text: Mapped[str | None]
    tokens: Mapped[int] = mapped_column(Integer)
    search: Mapped[str] = mapped_column(TSVECTOR)

    __table_args__ = (
        # The marks in `search` make this one index find the words of one tenant.
        # Every query reads the list of new rows, which are not sorted into the index yet: 1 MiB takes
        # some milliseconds. A shorter list makes writing dearer.
        Index(
            "ix_passages_search",
            "search",
            postgresql_using="gin",
            postgresql_with={"gin_pending_list_limit": 1024},
        ),
        # For counts: search takes another way for a tenant with few passages.
        Index("ix_passages_tenant", "tenant_id"),
    )


class EmbeddingModel(Base):
    """A model that makes vectors of passages; its vectors are in a partition of `passage_embeddings`.

    Attributes:
        name: with the version and the dimension, so that two models never share a name.
        state: at most one model is active, and search uses that one.
        filled_to: the last revision, in the order of their ids, whose vectors `waybill reindex` has
            made; None before the first.
        filled_at: when every revision had its vectors. Later ones get theirs by the step `index`.
        revisions_done: revisions that `waybill reindex` has been through.
        revisions_total: about how many there are, counted at its start.
    """

    __tablename__ = "embedding_models"

    id: Mapped[int] = mapped_column(SmallInteger, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    dimension: Mapped[int] = mapped_column(Integer)
    state: Mapped[EmbeddingModelState] = mapped_column(default=EmbeddingModelState.BUILDING)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    activated_at: Mapped[datetime | None]
    filled_to: Mapped[RevisionId | None]
    filled_at: Mapped[datetime | None]
    revisions_done: Mapped[int] = mapped_column(server_default=text("0"))
    revisions_total: Mapped[int] = mapped_column(server_default=text("0"))

    __table_args__ = (
        Index(
            "ix_embedding_models_active",
            "state",
            unique=True,
            postgresql_where=text("state = 'active'"),
        ),
    )


class PassageEmbedding(Base):
    """The vector that a model made of a passage.

    The table is partitioned by model; the partition of a model, `passage_embeddings_<id>`, has an HNSW
    index of the model's dimension. The foreign key is that of the revision: one to the passage would
    write a lock into the row of every passage. So a passage is deleted after its vectors.
    """

    __tablename__ = "passage_embeddings"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    page: Mapped[int] = mapped_column(Integer, primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True)
    model_id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    tenant_id: Mapped[TenantId]
    document_id: Mapped[DocumentId]
    embedding: Mapped[str] = mapped_column(HalfVector)

    __table_args__ = (
        # For the exact search of a tenant with few passages.
        Index("ix_passage_embeddings_tenant", "tenant_id"),
        {"postgresql_partition_by": "LIST (model_id)"},
    )
