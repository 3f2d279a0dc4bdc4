"""The sweep that adds passages to documents of an earlier version."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_revisions_without_passages",
        "revisions",
        ["id"],
        postgresql_where=sa.text("search IS NULL AND state = 'published'"),
    )


def downgrade() -> None:
    op.drop_index("ix_revisions_without_passages", table_name="revisions")
