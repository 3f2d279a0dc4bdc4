"""Batches and their lines, the batch of a job, and the trigger that counts lines.

The index on `jobs` has no row yet, but its creation reads the table once, and finalizes wait meanwhile.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# The batch is the last row that a transaction locks, because the jobs of a batch end at the same time.
# It is woken when as many lines have ended as its step asked for, and when all have.
TRIGGER = """
CREATE FUNCTION waybill_line_state(job_status text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN job_status IN ('completed', 'failed', 'cancelled') THEN job_status ELSE 'started' END
$$;

CREATE FUNCTION waybill_count_line() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was text := waybill_line_state(OLD.status);
    is_now text := waybill_line_state(NEW.status);
    failure record;
    batch record;
BEGIN
    SELECT error_code, error_detail INTO failure FROM steps
    WHERE job_id = NEW.id AND status = 'failed' AND is_now = 'failed' ORDER BY ordinal LIMIT 1;
    UPDATE batch_lines SET state = is_now, error_code = failure.error_code, error_detail = failure.error_detail
    WHERE job_id = NEW.id AND batch_id = NEW.batch_id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE batches SET
        started = started + (is_now = 'started')::int - (was = 'started')::int,
        completed = completed + (is_now = 'completed')::int - (was = 'completed')::int,
        failed = failed + (is_now = 'failed')::int - (was = 'failed')::int,
        cancelled = cancelled + (is_now = 'cancelled')::int - (was = 'cancelled')::int
    WHERE id = NEW.batch_id
    RETURNING event_id, status, started, wake_at INTO batch;
    IF was = 'started' AND (
        batch.status = 'processing' AND batch.started = batch.wake_at
        OR batch.status IN ('processing', 'paused') AND batch.started = 0
    ) THEN
        INSERT INTO outbox (event_id, queue) VALUES (batch.event_id, 'batch_processing');
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER count_line AFTER UPDATE OF status ON jobs
FOR EACH ROW WHEN (
    NEW.batch_id IS NOT NULL AND waybill_line_state(OLD.status) <> waybill_line_state(NEW.status)
) EXECUTE FUNCTION waybill_count_line();
"""

NO_TRIGGER = """
DROP TRIGGER count_line ON jobs;
DROP FUNCTION waybill_count_line();
DROP FUNCTION waybill_line_state(text);
"""

# The earlier version does not have this kind of job. The jobs of lines stay.
NO_BATCHES = """
DELETE FROM steps USING jobs WHERE jobs.id = steps.job_id AND jobs.kind = 'batch';
DELETE FROM jobs WHERE kind = 'batch';
DELETE FROM tenant_steps WHERE name = 'batch';
"""


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        *(_count(name) for name in ("lines", "rejected", "started")),
        *(_count(name) for name in ("completed", "failed", "cancelled", "wake_at")),
        sa.Column("events", sa.Text(), server_default="each", nullable=False),
        sa.Column(
            "metadata",
            postgresql.JSONB(none_as_null=True),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "least(rejected, started, completed, failed, cancelled,"
            " lines - rejected - started - completed - failed - cancelled) >= 0",
            name="ck_batches_counts",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_batches_tenant_id"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_batches_job_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("job_id", name="uq_batches_job_id"),
    )
    op.create_index("ix_batches_tenant", "batches", ["tenant_id", "created_at", "id"])
    op.create_index("ix_batches_expiry", "batches", ["expires_at"])
    op.create_index(
        "ix_batches_live",
        "batches",
        ["tenant_id"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "batch_lines",
        sa.Column("batch_id", sa.Uuid(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("source", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_batch_lines_batch_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("batch_id", "line", name="pk_batch_lines"),
    )
    op.create_index("ix_batch_lines_state", "batch_lines", ["batch_id", "state", "line"])
    op.create_index(
        "ix_batch_lines_job",
        "batch_lines",
        ["job_id"],
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
    op.add_column("jobs", sa.Column("batch_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_jobs_batch",
        "jobs",
        ["batch_id", "created_at", "id"],
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.execute(TRIGGER)


def downgrade() -> None:
    op.execute(NO_TRIGGER)
    op.drop_table("batch_lines")
    op.drop_table("batches")
    op.execute(NO_BATCHES)
    op.drop_index("ix_jobs_batch", table_name="jobs")
    op.drop_column("jobs", "batch_id")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False)
