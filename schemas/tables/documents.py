"""Documents, their revisions, and what was read from their pages.

A document is read into a revision: its rows are written in short transactions, unseen, and one
transaction publishes the revision. A transaction locks rows in this order: document, revision,
steps; see `schemas.tables.steps`.
"""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import ForeignKey, Index, Integer, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from schemas.ids import DocumentId, JobId, RevisionId, TenantId, UploadId
from schemas.layout import FigureKind, TableMethod
from schemas.lifecycle import (
    DocumentStatus,
    PageStatus,
    RevisionState,
    ScanState,
    SearchState,
    TablesState,
)
from schemas.outcomes import Outcome
from schemas.tables.base import Base, PackedIntegers

MEDIA_TYPE_OF_DOCUMENT: Final = "lower(btrim(split_part(content_type, ';', 1)))"
"""The media type of a document, without parameters; the expression of an index."""

_NO_INTEGERS: Final = text("'{}'::integer[]")


class Document(Base):
    """A stored object, and the revision that clients see.

    Attributes:
        job_id: the job that stored the object; the document outlives it.
        outcome: of the newest reading that ended; None before.
        revision_id: the revision that clients see; None until pages can be shown. It is published,
            except while the pages of a first reading wait for OCR. Without a foreign key, which
            would look for the document of every revision that is deleted.
        error_code: why no reading has succeeded; None for a document with a published revision.
        ingested_at: when the revision was published.
        scan_state: of the malware scan of the file.
        scan_signature: the name of the signature that matched.
        scanned_at: when the last whole scan ended.
    """

    __tablename__ = "documents"

    id: Mapped[DocumentId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    upload_id: Mapped[UploadId] = mapped_column(ForeignKey("uploads.id"), unique=True)
    job_id: Mapped[JobId]
    status: Mapped[DocumentStatus] = mapped_column(default=DocumentStatus.STORED)
    outcome: Mapped[Outcome | None]
    revision_id: Mapped[RevisionId | None]
    # Ordered by code points, so that an index finds the names with a prefix.
    filename: Mapped[str] = mapped_column(Text(collation="C"))
    content_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str]
    object_key: Mapped[str]
    etag: Mapped[str]
    error_code: Mapped[str | None]
    error_detail: Mapped[str | None]
    language: Mapped[str | None]
    """That of the revision that clients see, for lists; only a trigger writes it."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ingested_at: Mapped[datetime | None]
    scan_state: Mapped[ScanState] = mapped_column(
        default=ScanState.OFF, server_default=ScanState.OFF
    )
    scan_signature: Mapped[str | None]
    scanned_at: Mapped[datetime | None]

    revision: Mapped["Revision | None"] = relationship(
        primaryjoin="foreign(Document.revision_id) == Revision.id", viewonly=True, lazy="raise"
    )

    __table_args__ = (
        Index("ix_documents_tenant", "tenant_id", "created_at", "id"),
        # Finds an earlier reading of the same bytes.
        Index("ix_documents_content", "tenant_id", "sha256"),
        # One for each filter of the list.
        Index("ix_documents_status", "tenant_id", "status", "created_at", "id"),
        Index("ix_documents_outcome", "tenant_id", "outcome", "created_at", "id"),
        Index("ix_documents_language", "tenant_id", "language", "created_at", "id"),
        Index(
            "ix_documents_media_type", "tenant_id", text(MEDIA_TYPE_OF_DOCUMENT), "created_at", "id"
        ),
        Index("ix_documents_filename", "tenant_id", "filename", "id"),
    )


class Revision(Base):
    """One reading of a document.

    Attributes:
        job_id: the job that writes the revision, which outlives it; a job writes one revision.
        number: from 1; a revision replaces only revisions of a lower number.
        pipeline_version: equal for two readings that give the same result.
        outcome: None until the reading has ended.
        reasons: which pages are missing or incomplete, and why: `schemas.outcomes.Reason`.
        page_count: pages of the document, including those beyond a limit; None until it is open.
        pages_read: pages whose text was read, without OCR; includes pages without text.
        language: most frequent language of the pages, as a code of ISO 639-1.
        metadata: what the document says about itself; this and the three lists below are None
            until the step `metadata` has written them.
        structure_is_cut: whether entries of these lists were left out.
        truncated: whether a limit cut the text short.
        warnings: defects that the parser repaired or skipped.
        passages: sentences of all pages.
        reused_from: the revision of another document with the same bytes that was copied.
        tables_state: None for a format without tables, and until the reading has ended.
        tables_reasons: which pages were not searched for tables as a whole, and why, as `reasons`.
        table_count: tables that are written.
        figure_count: figures that are written.
        search: what search has of the revision; None until it is published, and for a revision of an
            earlier version until a sweep has added its passages.
    """

    __tablename__ = "revisions"

    id: Mapped[RevisionId] = mapped_column(primary_key=True)
    document_id: Mapped[DocumentId] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"))
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[JobId] = mapped_column(unique=True)
    number: Mapped[int] = mapped_column(Integer)
    pipeline_version: Mapped[str]
    state: Mapped[RevisionState] = mapped_column(default=RevisionState.WRITING)
    outcome: Mapped[Outcome | None]
    reasons: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    page_count: Mapped[int | None] = mapped_column(Integer)
    pages_read: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    pages_ocr: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    pages_failed: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    pages_needs_ocr: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    pages_no_text: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    language: Mapped[str | None]
    language_confidence: Mapped[float | None]
    title: Mapped[str | None]
    # The declarative base reserves the name "metadata".
    document_metadata: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    outline: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    attachments: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    page_labels: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    structure_is_cut: Mapped[bool] = mapped_column(server_default=text("false"))
    has_thumbnail: Mapped[bool] = mapped_column(server_default=text("false"))
    key_phrases: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    truncated: Mapped[bool] = mapped_column(server_default=text("false"))
    warnings: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    passages: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    entities: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    reused_from: Mapped[RevisionId | None]
    tables_state: Mapped[TablesState | None]
    tables_reasons: Mapped[list[Any]] = mapped_column(JSONB, server_default=text("'[]'::jsonb"))
    table_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    figure_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    search: Mapped[SearchState | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("document_id", "number"),
        # For the sweep.
        Index(
            "ix_revisions_unpublished",
            "created_at",
            postgresql_where=text("state <> 'published'"),
        ),
        # For the sweep that adds passages to documents of an earlier version.
        Index(
            "ix_revisions_without_passages",
            "id",
            postgresql_where=text("search IS NULL AND state = 'published'"),
        ),
        # For the worker that makes vectors after a model was missing.
        Index(
            "ix_revisions_search",
            "search",
            "id",
            postgresql_where=text("search IN ('pending', 'words')"),
        ),
    )


class Page(Base):
    """The text of one page, or the reason why there is none.

    Attributes:
        reason: a sentence about an outcome that is not `complete`.
        engine: what read the page.
        engine_reason: why this engine and not the default one; empty for the default.
        confidence: mean confidence of OCR, 0 to 1; None for text that was not recognised.
        sentences: start and end of each sentence, one after the other.
        lines: start, end, left, top, right and bottom of each line whose place is known; the
            place in 1/72 inch from the upper left corner of the page as displayed.
        spans: kind, start and end of each marked part of the text; the kind is the position in
            `schemas.spans.SPAN_KINDS`.
    """

    __tablename__ = "pages"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    status: Mapped[PageStatus] = mapped_column(default=PageStatus.READ)
    outcome: Mapped[Outcome] = mapped_column(default=Outcome.COMPLETE)
    reason: Mapped[str] = mapped_column(server_default="")
    text: Mapped[str]
    engine: Mapped[str] = mapped_column(server_default="")
    engine_version: Mapped[str] = mapped_column(server_default="")
    engine_reason: Mapped[str] = mapped_column(server_default="")
    confidence: Mapped[float | None]
    language: Mapped[str | None]
    language_confidence: Mapped[float | None]
    width_points: Mapped[float | None]
    height_points: Mapped[float | None]
    sentences: Mapped[list[int]] = mapped_column(PackedIntegers, server_default=_NO_INTEGERS)
    lines: Mapped[list[int]] = mapped_column(PackedIntegers, server_default=_NO_INTEGERS)
    spans: Mapped[list[int]] = mapped_column(PackedIntegers, server_default=_NO_INTEGERS)


class PageImage(Base):
    """The image of a page that a client asked for; stored once its job is completed.

    Attributes:
        job_id: the job that makes the image; None once the job is deleted, and the image is stored.
    """

    __tablename__ = "page_images"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    page: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[JobId | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), unique=True
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Entity(Base):
    """A named entity in a page's text."""

    __tablename__ = "entities"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    page: Mapped[int] = mapped_column(Integer, primary_key=True)
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True)
    label: Mapped[str]
    text: Mapped[str]
    normal_form: Mapped[str]
    start: Mapped[int] = mapped_column(Integer)
    end: Mapped[int] = mapped_column(Integer)

    __table_args__ = (Index("ix_entities_label", "revision_id", "label", "page", "ordinal"),)


class DocumentTable(Base):
    """A table of a document; one that goes over several pages is one table.

    Attributes:
        number: from 1, in reading order.
        page: the first page.
        parts: page, left, top, right and bottom of its place on each page.
        method: what shows its cells.
        confidence: 0 to 1, that it is a table with these cells.
        caption: the heading beside it; empty if there is none.
        is_cut: whether its last rows are left out, because of a limit.
        cell_count: number of its cells.
        cells: row, column, row span, column span, text, page, left, top, right and bottom of each
            cell with text, in the order of rows and columns.
    """

    __tablename__ = "document_tables"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    page: Mapped[int] = mapped_column(Integer)
    parts: Mapped[list[Any]] = mapped_column(JSONB)
    row_count: Mapped[int] = mapped_column(Integer)
    column_count: Mapped[int] = mapped_column(Integer)
    header_row_count: Mapped[int] = mapped_column(Integer)
    method: Mapped[TableMethod]
    confidence: Mapped[float]
    caption: Mapped[str]
    is_cut: Mapped[bool]
    cell_count: Mapped[int] = mapped_column(Integer)
    cells: Mapped[list[Any]] = mapped_column(JSONB)


class Figure(Base):
    """A figure of a document; its place in 1/72 inch, as in `Page.lines`.

    Attributes:
        number: from 1, in reading order.
        width_pixels: of an image, as stored in the file; None for a chart.
    """

    __tablename__ = "figures"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    page: Mapped[int] = mapped_column(Integer)
    kind: Mapped[FigureKind]
    left: Mapped[int] = mapped_column(Integer)
    top: Mapped[int] = mapped_column(Integer)
    right: Mapped[int] = mapped_column(Integer)
    bottom: Mapped[int] = mapped_column(Integer)
    width_pixels: Mapped[int | None] = mapped_column(Integer)
    height_pixels: Mapped[int | None] = mapped_column(Integer)


class FigureImage(Base):
    """The image of a figure that a client asked for; stored once its job is completed.

    Attributes:
        job_id: the job that makes the image; None once the job is deleted, and the image is stored.
    """

    __tablename__ = "figure_images"

    revision_id: Mapped[RevisionId] = mapped_column(
        ForeignKey("revisions.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[JobId | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), unique=True
    )
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
