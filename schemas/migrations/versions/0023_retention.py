"""Documents outlive their jobs; retention of documents by tenant; indexes of ended uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# The earlier version looks for the job of every image; an image without one is made again.
NO_IMAGES_WITHOUT_JOB = "DELETE FROM page_images WHERE job_id IS NULL"

OUTLIVING = (
    ("documents", "job_id", "jobs"),
    ("revisions", "job_id", "jobs"),
    ("webhooks", "upload_id", "uploads"),
)


def upgrade() -> None:
    op.add_column("tenants", sa.Column("document_retention", sa.Interval(), nullable=True))
    op.add_column("uploads", sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_uploads_never_finalized",
        "uploads",
        ["expires_at"],
        postgresql_where=sa.text(
            "finalized_at IS NULL AND status IN ('failed', 'cancelled', 'expired')"
        ),
    )
    op.create_index(
        "ix_uploads_removed",
        "uploads",
        ["removed_at"],
        postgresql_where=sa.text("removed_at IS NOT NULL"),
    )
    for table, column, _ in OUTLIVING:
        op.drop_constraint(f"fk_{table}_{column}", table)
    op.drop_constraint("fk_page_images_job_id", "page_images")
    op.alter_column("page_images", "job_id", nullable=True)
    op.create_foreign_key(
        "fk_page_images_job_id", "page_images", "jobs", ["job_id"], ["id"], ondelete="SET NULL"
    )


def downgrade() -> None:
    op.execute(NO_IMAGES_WITHOUT_JOB)
    op.drop_constraint("fk_page_images_job_id", "page_images")
    op.alter_column("page_images", "job_id", nullable=False)
    op.create_foreign_key("fk_page_images_job_id", "page_images", "jobs", ["job_id"], ["id"])
    for table, column, referred in OUTLIVING:
        # Not valid: rows whose job or upload is deleted stay.
        op.create_foreign_key(
            f"fk_{table}_{column}", table, referred, [column], ["id"], postgresql_not_valid=True
        )
    op.drop_index("ix_uploads_removed", table_name="uploads")
    op.drop_index("ix_uploads_never_finalized", table_name="uploads")
    op.drop_column("uploads", "removed_at")
    op.drop_column("tenants", "document_retention")
