"""The step `index`: what search has of a revision, and how far a new model has got.

The job of a document does not wait for the step. Documents that were read before have no passages,
and so no state.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# The step `index` changes the revision of its job, whose clients see the step, and nothing else of it.
DERIVE_JOB = """
CREATE OR REPLACE FUNCTION waybill_derive_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    new_status text;
    current_step text;
    first_start timestamptz;
BEGIN
    PERFORM FROM jobs WHERE id = NEW.job_id FOR NO KEY UPDATE;
    SELECT CASE
               WHEN bool_or(name = 'cleanup' OR status = 'cancelled') THEN 'cancelled'
               WHEN bool_or(status = 'failed') THEN 'failed'
               WHEN bool_and(status = 'completed') THEN 'completed'
               WHEN bool_or(status = 'running' OR started_at IS NOT NULL) THEN 'processing'
               ELSE 'queued'
           END,
           (array_agg(name ORDER BY ordinal) FILTER (WHERE status <> 'completed' AND name <> 'cleanup'))[1],
           min(started_at) FILTER (WHERE name <> 'cleanup')
    INTO new_status, current_step, first_start
    FROM steps WHERE job_id = NEW.job_id{condition};
    UPDATE jobs SET
        status = new_status,
        stage = coalesce(current_step, 'done'),
        started_at = first_start,
        -- A purge ends a job that had ended before: the sweep of originals looks for objects from that time on.
        finished_at = CASE
            WHEN new_status NOT IN ('completed', 'failed', 'cancelled') THEN NULL
            WHEN status = new_status THEN coalesce(finished_at, now())
            ELSE now()
        END,
        revision = revision + 1,
        updated_at = now()
    WHERE id = NEW.job_id;
    RETURN NULL;
END $$;
"""

# The earlier version does not have this step.
NO_INDEXING = """
DELETE FROM steps WHERE name = 'index';
DELETE FROM tenant_steps WHERE name = 'index';
"""


def upgrade() -> None:
    op.add_column("revisions", sa.Column("search", sa.Text(), nullable=True))
    op.create_index(
        "ix_revisions_search",
        "revisions",
        ["search", "id"],
        postgresql_where=sa.text("search IN ('pending', 'words')"),
    )
    op.add_column("embedding_models", sa.Column("filled_to", sa.Uuid(), nullable=True))
    op.add_column(
        "embedding_models", sa.Column("filled_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "embedding_models",
        sa.Column("revisions_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "embedding_models",
        sa.Column("revisions_total", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.execute(DERIVE_JOB.format(condition=" AND name <> 'index'"))


def downgrade() -> None:
    op.execute(NO_INDEXING)
    op.execute(DERIVE_JOB.format(condition=""))
    for column in ("revisions_total", "revisions_done", "filled_at", "filled_to"):
        op.drop_column("embedding_models", column)
    op.drop_index("ix_revisions_search", table_name="revisions")
    op.drop_column("revisions", "search")
