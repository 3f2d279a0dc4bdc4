"""Jobs that cancel or retry other jobs; only the downgrade changes rows."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# The earlier version does not have this kind of job.
NO_ACTIONS = """
DELETE FROM steps USING jobs WHERE jobs.id = steps.job_id AND jobs.kind = 'bulk';
DELETE FROM jobs WHERE kind = 'bulk';
DELETE FROM tenant_steps WHERE name = 'bulk';
"""


def upgrade() -> None:
    pass


def downgrade() -> None:
    op.execute(NO_ACTIONS)
