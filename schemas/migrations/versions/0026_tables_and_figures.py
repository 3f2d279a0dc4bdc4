"""Tables and figures of documents, images of figures, and what an upload asks of the pipeline.

Documents that were read before have neither tables nor figures until they are read again.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# The earlier version does not have this step. A job whose other steps are completed is completed then:
# the trigger derives the status.
NO_STEPS = """
UPDATE steps SET status = 'completed', finished_at = now() WHERE name = 'tables' AND status <> 'completed';
DELETE FROM steps WHERE name = 'tables';
DELETE FROM tenant_steps WHERE name = 'tables';
"""

ADDED_TO_REVISIONS = ("tables_state", "tables_reasons", "table_count", "figure_count")


def upgrade() -> None:
    op.add_column(
        "uploads", sa.Column("pipeline", postgresql.JSONB(none_as_null=True), nullable=True)
    )
    op.add_column("revisions", sa.Column("tables_state", sa.Text(), nullable=True))
    op.add_column(
        "revisions",
        sa.Column(
            "tables_reasons",
            postgresql.JSONB(),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
    )
    for name in ("table_count", "figure_count"):
        op.add_column(
            "revisions",
            sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False),
        )
    op.create_table(
        "document_tables",
        *_place_of("page"),
        sa.Column("parts", postgresql.JSONB(), nullable=False),
        sa.Column("row_count", sa.Integer(), nullable=False),
        sa.Column("column_count", sa.Integer(), nullable=False),
        sa.Column("header_row_count", sa.Integer(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("confidence", sa.REAL(), nullable=False),
        sa.Column("caption", sa.Text(), nullable=False),
        sa.Column("is_cut", sa.Boolean(), nullable=False),
        sa.Column("cell_count", sa.Integer(), nullable=False),
        sa.Column("cells", postgresql.JSONB(), nullable=False),
        *_keys_of("document_tables"),
    )
    op.create_table(
        "figures",
        *_place_of("page"),
        sa.Column("kind", sa.Text(), nullable=False),
        *(
            sa.Column(side, sa.Integer(), nullable=False)
            for side in ("left", "top", "right", "bottom")
        ),
        sa.Column("width_pixels", sa.Integer(), nullable=True),
        sa.Column("height_pixels", sa.Integer(), nullable=True),
        *_keys_of("figures"),
    )
    op.create_table(
        "figure_images",
        *_place_of(),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        *_keys_of("figure_images"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_figure_images_job_id", ondelete="SET NULL"
        ),
        sa.UniqueConstraint("job_id", name="uq_figure_images_job_id"),
    )


def downgrade() -> None:
    for table in ("figure_images", "figures", "document_tables"):
        op.drop_table(table)
    op.execute(NO_STEPS)
    for name in ADDED_TO_REVISIONS:
        op.drop_column("revisions", name)
    op.drop_column("uploads", "pipeline")


def _place_of(*others: str) -> "list[sa.Column[Any]]":
    return [
        sa.Column("revision_id", sa.Uuid(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("number", *others)),
    ]


def _keys_of(table: str) -> "list[sa.Constraint]":
    return [
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revisions.id"], name=f"fk_{table}_revision_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("revision_id", "number", name=f"pk_{table}"),
    ]
