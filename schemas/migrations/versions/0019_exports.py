"""Exports, and an index of the endpoints of a tenant, also of deleted ones."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# The earlier version does not have this kind of job. The files become orphans.
NO_EXPORTS = """
DELETE FROM steps USING jobs WHERE jobs.id = steps.job_id AND jobs.kind = 'export';
DELETE FROM jobs WHERE kind = 'export';
DELETE FROM tenant_steps WHERE name = 'export';
"""


def upgrade() -> None:
    op.create_table(
        "exports",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("filter", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("columns", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("bom", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("raw", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("object_key", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_exports_tenant_id"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_exports_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_exports"),
        sa.UniqueConstraint("job_id", name="uq_exports_job_id"),
    )
    op.create_index(
        "ix_exports_tenant",
        "exports",
        ["tenant_id", "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("ix_exports_expiry", "exports", ["expires_at"])
    op.create_index("ix_webhooks_of_tenant", "webhooks", ["tenant_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_webhooks_of_tenant", table_name="webhooks")
    op.drop_table("exports")
    op.execute(NO_EXPORTS)
