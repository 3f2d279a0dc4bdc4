"""Indexes for sweeps; usage follows an upload to another tenant."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The old values are subtracted from the old tenant, the new ones added to the new tenant.
# For one tenant this is one update; for two tenants the rows are locked in one order.
COUNT_BY_TENANT = """
CREATE OR REPLACE FUNCTION waybill_count_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenant_usage AS usage (tenant_id, bytes, open_uploads)
    SELECT tenant_id, sum(bytes), sum(open_uploads)
    FROM (
        SELECT OLD.tenant_id,
               CASE WHEN OLD.status IN ('open', 'finalized', 'stored') THEN -OLD.size ELSE 0 END,
               CASE WHEN OLD.status = 'open' THEN -1 ELSE 0 END
        WHERE TG_OP <> 'INSERT'
        UNION ALL
        SELECT NEW.tenant_id,
               CASE WHEN NEW.status IN ('open', 'finalized', 'stored') THEN NEW.size ELSE 0 END,
               CASE WHEN NEW.status = 'open' THEN 1 ELSE 0 END
        WHERE TG_OP <> 'DELETE'
    ) AS change (tenant_id, bytes, open_uploads)
    GROUP BY tenant_id
    HAVING sum(bytes) <> 0 OR sum(open_uploads) <> 0
    ORDER BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET
        bytes = usage.bytes + EXCLUDED.bytes,
        open_uploads = usage.open_uploads + EXCLUDED.open_uploads;
    RETURN NULL;
END $$;

DROP TRIGGER count_usage ON uploads;
CREATE TRIGGER count_usage AFTER INSERT OR DELETE OR UPDATE OF status, size, tenant_id ON uploads
FOR EACH ROW EXECUTE FUNCTION waybill_count_usage();
"""

COUNT_WITHOUT_TENANT = """
CREATE OR REPLACE FUNCTION waybill_count_usage() RETURNS trigger LANGUAGE plpgsql AS $$
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

DROP TRIGGER count_usage ON uploads;
CREATE TRIGGER count_usage AFTER INSERT OR DELETE OR UPDATE OF status, size ON uploads
FOR EACH ROW EXECUTE FUNCTION waybill_count_usage();
"""


def upgrade() -> None:
    op.create_index(
        "ix_jobs_finished",
        "jobs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_deliveries_settled",
        "deliveries",
        ["settled_at"],
        unique=False,
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.execute(COUNT_BY_TENANT)


def downgrade() -> None:
    op.execute(COUNT_WITHOUT_TENANT)
    op.drop_index(
        "ix_deliveries_settled",
        table_name="deliveries",
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.drop_index(
        "ix_jobs_finished",
        table_name="jobs",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
