"""Exports: files with the rows of a query."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import ExportId, JobId, TenantId
from schemas.lifecycle import ExportFormat, ExportKind
from schemas.tables.base import Base


class Export(Base):
    """A query, and the file with its rows once the job is completed. The job has the status.

    Attributes:
        filter: the filters that are set, as `schemas.api.exports.ExportFilter`.
        columns: names of the columns, in the order of the file.
        bom: whether the file begins with a byte order mark.
        raw: whether text that a spreadsheet would calculate stays as it is.
        rows: of the file, without a header; this and the three columns below are None without a file.
        object_key: that of the attempt that completed the job.
        expires_at: when the sweep deletes the file and this row; counted from the end of the job.
        deleted_at: when the client deleted the export; the sweep deletes the file.
    """

    __tablename__ = "exports"

    id: Mapped[ExportId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"))
    # The file of an export whose job is deleted is an orphan, which a sweep deletes.
    job_id: Mapped[JobId] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), unique=True)
    kind: Mapped[ExportKind]
    format: Mapped[ExportFormat]
    filter: Mapped[dict[str, Any]]
    columns: Mapped[list[str]] = mapped_column(ARRAY(Text))
    bom: Mapped[bool] = mapped_column(server_default=text("false"))
    raw: Mapped[bool] = mapped_column(server_default=text("false"))
    rows: Mapped[int | None]
    size: Mapped[int | None]
    sha256: Mapped[str | None]
    object_key: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_exports_tenant",
            "tenant_id",
            "created_at",
            "id",
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_exports_expiry", "expires_at"),
    )
