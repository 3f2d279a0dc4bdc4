from datetime import datetime

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import JobId, UploadId
from schemas.tables.base import Base


class DocumentPassword(Base):
    """The password that opens the document of an upload.

    `secret` is encrypted (see `document_passwords` in `schemas.policy`). Triggers delete the row:
    when the job of the upload ends, or when the upload ends without a job.
    """

    __tablename__ = "document_passwords"

    upload_id: Mapped[UploadId] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    job_id: Mapped[JobId | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    """The job that reads the document again; None while the job of the upload reads it."""
    secret: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index(
            "ix_document_passwords_job_id",
            "job_id",
            postgresql_where=text("job_id IS NOT NULL"),
        ),
    )
