"""An index for the filter and the order of every list."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

LISTED = "deleted_at IS NULL AND upload_id IS NULL"


def upgrade() -> None:
    op.create_index(
        "ix_webhooks_listed",
        "webhooks",
        ["tenant_id", "created_at", "id"],
        postgresql_where=sa.text(LISTED),
    )
    op.drop_index("ix_entities_label", table_name="entities")
    op.create_index("ix_entities_label", "entities", ["document_id", "label", "page", "ordinal"])


def downgrade() -> None:
    op.drop_index("ix_entities_label", table_name="entities")
    op.create_index("ix_entities_label", "entities", ["document_id", "label"])
    op.drop_index("ix_webhooks_listed", table_name="webhooks", postgresql_where=sa.text(LISTED))
