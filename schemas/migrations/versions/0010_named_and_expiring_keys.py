"""Names, prefixes, expiry and last use of API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The prefix of an earlier key is unknown: only its hash is stored.
    op.add_column("api_keys", sa.Column("name", sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("prefix", sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # The earlier version does not check the expiry: an expired key would work again.
    op.execute(
        "UPDATE api_keys SET revoked_at = expires_at WHERE expires_at <= now() AND revoked_at IS NULL"
    )
    op.drop_column("api_keys", "last_used_at")
    op.drop_column("api_keys", "expires_at")
    op.drop_column("api_keys", "prefix")
    op.drop_column("api_keys", "name")
