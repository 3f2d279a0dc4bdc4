"""Deletions of tenants, and dead letters by tenant."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenant_deletions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("quiet_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "rows", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("objects", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_tenant_deletions"),
    )
    op.create_index(
        "ix_tenant_deletions_unchecked",
        "tenant_deletions",
        ["requested_at"],
        postgresql_where=sa.text("checked_at IS NULL"),
    )
    op.create_index("ix_tenant_deletions_name", "tenant_deletions", ["name", "requested_at"])
    op.create_index("ix_dead_letters_tenant", "dead_letters", ["tenant_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_dead_letters_tenant", table_name="dead_letters")
    op.drop_table("tenant_deletions")
