"""Replays: the endpoint of a job, and the events of a tenant by time."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# The earlier version does not have this kind of job.
NO_REPLAYS = """
DELETE FROM steps USING jobs WHERE jobs.id = steps.job_id AND jobs.kind = 'replay';
DELETE FROM jobs WHERE kind = 'replay';
DELETE FROM tenant_steps WHERE name = 'replay';
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("webhook_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_jobs_open_of_webhook",
        "jobs",
        ["webhook_id"],
        unique=True,
        postgresql_where=sa.text("webhook_id IS NOT NULL AND status IN ('queued', 'processing')"),
    )
    op.create_index("ix_events_tenant", "events", ["tenant_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_events_tenant", table_name="events")
    op.execute(NO_REPLAYS)
    op.drop_index("ix_jobs_open_of_webhook", table_name="jobs")
    op.drop_column("jobs", "webhook_id")
