"""Up to which event the watchdog has compared the events with what a consumer applied."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checked_events",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("up_to", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", name=op.f("pk_checked_events")),
    )
    # Earlier events are left as they are: the inbox may have forgotten them.
    op.execute("INSERT INTO checked_events VALUES ('notifier', waybill_first_uuid7(now()))")


def downgrade() -> None:
    op.drop_table("checked_events")
