"""Staging in the bucket, references, quotas, revisions of jobs, indexes for sweeps."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A trigger keeps the usage, so that no statement can change an upload without it.
USAGE = """
CREATE FUNCTION waybill_count_usage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    tenant uuid := COALESCE(NEW.tenant_id, OLD.tenant_id);
    more_bytes bigint := 0;
    more_open bigint := 0;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        more_bytes := more_bytes - CASE WHEN OLD.status IN ('open', 'finalized', 'stored') THEN OLD.size ELSE 0 END;
        more_open := more_open - CASE WHEN OLD.status = 'open' THEN 1 ELSE 0 END;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        more_bytes := more_bytes + CASE WHEN NEW.status IN ('open', 'finalized', 'stored') THEN NEW.size ELSE 0 END;
        more_open := more_open + CASE WHEN NEW.status = 'open' THEN 1 ELSE 0 END;
    END IF;
    IF more_bytes <> 0 OR more_open <> 0 THEN
        INSERT INTO tenant_usage AS usage (tenant_id, bytes, open_uploads)
        VALUES (tenant, more_bytes, more_open)
        ON CONFLICT (tenant_id) DO UPDATE SET
            bytes = usage.bytes + EXCLUDED.bytes,
            open_uploads = usage.open_uploads + EXCLUDED.open_uploads;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER count_usage AFTER INSERT OR DELETE OR UPDATE OF status, size ON uploads
FOR EACH ROW EXECUTE FUNCTION waybill_count_usage();

INSERT INTO tenant_usage (tenant_id, bytes, open_uploads)
SELECT tenant_id,
       COALESCE(sum(size) FILTER (WHERE status IN ('open', 'finalized', 'stored')), 0),
       count(*) FILTER (WHERE status = 'open')
FROM uploads GROUP BY tenant_id;
"""

# The columns of a job that clients see; a renewed lease changes none of them.
REVISIONS = """
CREATE FUNCTION waybill_count_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.revision := OLD.revision + 1; RETURN NEW; END $$;

CREATE TRIGGER count_revision BEFORE UPDATE ON jobs FOR EACH ROW
WHEN ((OLD.status, OLD.stage, OLD.bytes_done, OLD.bytes_total, OLD.pages_done, OLD.pages_total, OLD.result, OLD.error_code)
      IS DISTINCT FROM
      (NEW.status, NEW.stage, NEW.bytes_done, NEW.bytes_total, NEW.pages_done, NEW.pages_total, NEW.result, NEW.error_code))
EXECUTE FUNCTION waybill_count_revision();

DROP TRIGGER wake_watchers ON jobs;
CREATE TRIGGER wake_watchers AFTER UPDATE ON jobs FOR EACH ROW
WHEN (OLD.revision IS DISTINCT FROM NEW.revision)
EXECUTE FUNCTION waybill_wake_watchers();
"""

NO_REVISIONS = """
DROP TRIGGER wake_watchers ON jobs;
DROP TRIGGER count_revision ON jobs;
DROP FUNCTION waybill_count_revision();
CREATE TRIGGER wake_watchers AFTER UPDATE OF status ON jobs
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
EXECUTE FUNCTION waybill_wake_watchers();
"""


def upgrade() -> None:
    op.add_column("tenants", sa.Column("quota_bytes", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("quota_open_uploads", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("quota_file_size", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("allowed_types", postgresql.ARRAY(sa.Text()), nullable=True))
    op.create_table(
        "tenant_usage",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_uploads", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_tenant_usage_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant_usage")),
    )
    op.add_column("uploads", sa.Column("sniffed_type", sa.Text(), nullable=True))
    op.add_column(
        "uploads",
        sa.Column("staging", sa.Text(), server_default="directory", nullable=False),
    )
    op.add_column("uploads", sa.Column("source_key", sa.Text(), nullable=True))
    op.add_column(
        "jobs", sa.Column("revision", sa.BigInteger(), server_default=sa.text("1"), nullable=False)
    )
    op.add_column(
        "jobs",
        sa.Column("bytes_at_claim", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.create_index(
        "ix_outbox_published",
        "outbox",
        ["published_at"],
        unique=False,
        postgresql_where=sa.text("published_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_inbox_processed_at"), "inbox", ["processed_at"], unique=False)
    op.execute(USAGE)
    op.execute(REVISIONS)


def downgrade() -> None:
    op.execute(NO_REVISIONS)
    op.execute("DROP TRIGGER count_usage ON uploads")
    op.execute("DROP FUNCTION waybill_count_usage()")
    op.drop_index(op.f("ix_inbox_processed_at"), table_name="inbox")
    op.drop_index(
        "ix_outbox_published",
        table_name="outbox",
        postgresql_where=sa.text("published_at IS NOT NULL"),
    )
    op.drop_column("jobs", "bytes_at_claim")
    op.drop_column("jobs", "revision")
    op.drop_column("uploads", "source_key")
    op.drop_column("uploads", "staging")
    op.drop_column("uploads", "sniffed_type")
    op.drop_table("tenant_usage")
    op.drop_column("tenants", "allowed_types")
    op.drop_column("tenants", "quota_file_size")
    op.drop_column("tenants", "quota_open_uploads")
    op.drop_column("tenants", "quota_bytes")
