from datetime import datetime
from typing import Any

from sqlalchemy import Computed, Float, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import DocumentId, JobId, TenantId, UploadId
from schemas.lifecycle import DocumentStatus
from schemas.tables.base import Base


class Document(Base):
    """A stored object and its extracted metadata."""

    __tablename__ = "documents"

    id: Mapped[DocumentId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    upload_id: Mapped[UploadId] = mapped_column(ForeignKey("uploads.id"), unique=True)
    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id"))
    status: Mapped[DocumentStatus] = mapped_column(default=DocumentStatus.STORED)
    filename: Mapped[str]
    content_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    object_key: Mapped[str]
    etag: Mapped[str]
    page_count: Mapped[int | None]
    language: Mapped[str | None]
    truncated: Mapped[bool] = mapped_column(default=False)
    pdf_metadata: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ingested_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_documents_tenant", "tenant_id", "created_at", "id"),)


class Page(Base):
    """The text of one page, or the error that prevented its extraction."""

    __tablename__ = "pages"

    document_id: Mapped[DocumentId] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    error_code: Mapped[str | None]
    width_points: Mapped[float | None] = mapped_column(Float)
    height_points: Mapped[float | None] = mapped_column(Float)


class Passage(Base):
    """A sentence and its position in the page's text; the unit of search."""

    __tablename__ = "passages"

    document_id: Mapped[DocumentId] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    page: Mapped[int] = mapped_column(primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[int]
    end: Mapped[int]
    text: Mapped[str]
    # to_tsvector refuses more than 1 MiB of lexemes, and a whole table may be one "sentence".
    search: Mapped[str] = mapped_column(
        TSVECTOR, Computed("to_tsvector('simple', left(text, 100000))", persisted=True)
    )

    __table_args__ = (Index("ix_passages_search", "search", postgresql_using="gin"),)


class Entity(Base):
    """A named entity in a page's text."""

    __tablename__ = "entities"

    document_id: Mapped[DocumentId] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    page: Mapped[int] = mapped_column(primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    text: Mapped[str]
    normal_form: Mapped[str]
    start: Mapped[int]
    end: Mapped[int]

    __table_args__ = (Index("ix_entities_label", "document_id", "label", "page", "ordinal"),)
