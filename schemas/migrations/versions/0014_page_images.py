"""Images of pages; several jobs of a document may be open, but one that reads it again."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INDEX = "ix_jobs_open_of_document"
IS_OPEN = "status IN ('queued', 'processing')"


def upgrade() -> None:
    op.create_table(
        "page_images",
        sa.Column("revision_id", sa.Uuid(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["revision_id"],
            ["revisions.id"],
            name="fk_page_images_revision_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_page_images_job_id"),
        sa.PrimaryKeyConstraint("revision_id", "page", name="pk_page_images"),
        sa.UniqueConstraint("job_id", name="uq_page_images_job_id"),
    )
    op.drop_index(INDEX, table_name="jobs")
    op.create_index(
        INDEX,
        "jobs",
        ["document_id"],
        unique=True,
        postgresql_where=sa.text(f"kind = 'reprocess' AND {IS_OPEN}"),
    )


def downgrade() -> None:
    op.drop_table("page_images")
    # The earlier version has no such jobs. Their images stay until the document is deleted.
    op.execute("DELETE FROM jobs WHERE kind = 'render'")
    op.execute("DELETE FROM tenant_steps WHERE name = 'render'")
    op.drop_index(INDEX, table_name="jobs")
    op.create_index(
        INDEX,
        "jobs",
        ["document_id"],
        unique=True,
        postgresql_where=sa.text(f"document_id IS NOT NULL AND {IS_OPEN}"),
    )
