"""The list of jobs: an index for each filter, labels for metadata; summaries."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Equal to `schemas.tables.job_filters.label_of`.
LABELS = r"""
CREATE FUNCTION waybill_label(name text, value text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substr(sha256(convert_to(name, 'UTF8') || '\x00'::bytea || convert_to(value, 'UTF8')), 1, 16)
$$;

CREATE FUNCTION waybill_label_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO job_labels (job_id, label, tenant_id, created_at)
    SELECT NEW.id, waybill_label(pair.key, pair.value), NEW.tenant_id, NEW.created_at
    FROM uploads CROSS JOIN LATERAL jsonb_each_text(uploads.metadata) AS pair
    WHERE uploads.id = NEW.upload_id;
    RETURN NULL;
END $$;

CREATE TRIGGER label_job AFTER INSERT ON jobs
FOR EACH ROW WHEN (NEW.upload_id IS NOT NULL) EXECUTE FUNCTION waybill_label_job();

INSERT INTO job_labels (job_id, label, tenant_id, created_at)
SELECT jobs.id, waybill_label(pair.key, pair.value), jobs.tenant_id, jobs.created_at
FROM jobs
JOIN uploads ON uploads.id = jobs.upload_id
CROSS JOIN LATERAL jsonb_each_text(uploads.metadata) AS pair;
"""

# The summary has text of the document, and does not outlive the revision: it is deleted with its
# document, or once a newer revision replaces it; the sweep takes it from its job before. The job is
# locked after the revision, as by a worker.
SUMMARIES = """
CREATE FUNCTION waybill_forget_summary() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jobs SET result = result - 'summary' WHERE id = OLD.job_id AND result ? 'summary';
    RETURN NULL;
END $$;

CREATE TRIGGER forget_summary AFTER DELETE OR UPDATE OF job_id ON revisions
FOR EACH ROW EXECUTE FUNCTION waybill_forget_summary();
"""

NO_SUMMARIES = """
DROP TRIGGER forget_summary ON revisions;
DROP FUNCTION waybill_forget_summary();
"""

NO_LABELS = """
DROP TRIGGER label_job ON jobs;
DROP FUNCTION waybill_label_job();
DROP FUNCTION waybill_label(text, text);
"""

LISTS: dict[str, list[Any]] = {
    "ix_jobs_tenant_kind": ["tenant_id", "kind", "created_at", "id"],
    "ix_jobs_tenant_stage": ["tenant_id", "stage", "created_at", "id"],
    "ix_jobs_tenant_priority": ["tenant_id", "priority", "created_at", "id"],
}


def upgrade() -> None:
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.LargeBinary(16), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_job_labels_job_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "label", name="pk_job_labels"),
    )
    op.execute(LABELS)
    op.create_index(
        "ix_job_labels_tenant", "job_labels", ["tenant_id", "label", "created_at", "job_id"]
    )
    for name, columns in LISTS.items():
        op.create_index(name, "jobs", columns)
    op.execute(SUMMARIES)


def downgrade() -> None:
    op.execute(NO_SUMMARIES)
    for name in LISTS:
        op.drop_index(name, table_name="jobs")
    op.execute(NO_LABELS)
    op.drop_table("job_labels")
