"""A CRC32C of every chunk; the digest state of a transfer."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Older chunks have none; they are checked against their sha256.
    op.add_column("chunks", sa.Column("crc32c", sa.LargeBinary(4), nullable=True))
    op.add_column(
        "jobs", sa.Column("digested_bytes", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("jobs", sa.Column("digest_state", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "digest_state")
    op.drop_column("jobs", "digested_bytes")
    op.drop_column("chunks", "crc32c")
