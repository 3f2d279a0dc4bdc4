"""Staged bytes of a tenant, and their quota."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

# Replacing the trigger locks `uploads` against writes until the migration ends: the sums that are
# filled in afterwards miss no change.
COUNT_STAGED_BYTES = """
CREATE OR REPLACE FUNCTION waybill_count_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tenant_usage AS usage (tenant_id, bytes, open_uploads, staged_bytes)
    SELECT tenant_id, sum(bytes), sum(open_uploads), sum(staged_bytes)
    FROM (
        SELECT OLD.tenant_id,
               CASE WHEN OLD.status IN ('open', 'finalized', 'stored') THEN -OLD.size ELSE 0 END,
               CASE WHEN OLD.status = 'open' THEN -1 ELSE 0 END,
               CASE WHEN OLD.status IN ('open', 'finalized') AND OLD.staging <> 'reference' THEN -OLD.size ELSE 0 END
        WHERE TG_OP <> 'INSERT'
        UNION ALL
        SELECT NEW.tenant_id,
               CASE WHEN NEW.status IN ('open', 'finalized', 'stored') THEN NEW.size ELSE 0 END,
               CASE WHEN NEW.status = 'open' THEN 1 ELSE 0 END,
               CASE WHEN NEW.status IN ('open', 'finalized') AND NEW.staging <> 'reference' THEN NEW.size ELSE 0 END
        WHERE TG_OP <> 'DELETE'
    ) AS change (tenant_id, bytes, open_uploads, staged_bytes)
    GROUP BY tenant_id
    HAVING sum(bytes) <> 0 OR sum(open_uploads) <> 0 OR sum(staged_bytes) <> 0
    ORDER BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET
        bytes = usage.bytes + EXCLUDED.bytes,
        open_uploads = usage.open_uploads + EXCLUDED.open_uploads,
        staged_bytes = usage.staged_bytes + EXCLUDED.staged_bytes;
    RETURN NULL;
END $$;

DROP TRIGGER count_usage ON uploads;
CREATE TRIGGER count_usage AFTER INSERT OR DELETE OR UPDATE OF status, size, tenant_id, staging ON uploads
FOR EACH ROW EXECUTE FUNCTION waybill_count_usage();

UPDATE tenant_usage SET staged_bytes = staged.bytes
FROM (
    SELECT tenant_id, sum(size) AS bytes FROM uploads
    WHERE status IN ('open', 'finalized') AND staging <> 'reference'
    GROUP BY tenant_id
) AS staged
WHERE staged.tenant_id = tenant_usage.tenant_id;
"""

COUNT_WITHOUT_STAGED_BYTES = """
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


def upgrade() -> None:
    op.add_column("tenants", sa.Column("quota_staged_bytes", sa.BigInteger(), nullable=True))
    op.add_column(
        "tenant_usage",
        sa.Column("staged_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.execute(COUNT_STAGED_BYTES)


def downgrade() -> None:
    op.execute(COUNT_WITHOUT_STAGED_BYTES)
    op.drop_column("tenant_usage", "staged_bytes")
    op.drop_column("tenants", "quota_staged_bytes")
