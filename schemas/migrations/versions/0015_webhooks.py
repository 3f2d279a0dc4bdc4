"""Secrets, options and queues of endpoints; deliveries and attempts partitioned by week.

Stop every process before: earlier code does not run on these tables. The time of the migration grows with the
deliveries that are kept.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

WEEKS_AHEAD = 4

PARTITIONS = """
-- `key` is the column by which `parent` is partitioned: a UUID that starts with its time.
CREATE FUNCTION waybill_add_partition(parent text, key text, monday timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text := parent || '_' || to_char(monday AT TIME ZONE 'UTC', 'YYYYMMDD');
    first uuid := waybill_first_uuid7(monday);
    after uuid := waybill_first_uuid7(monday + interval '7 days');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    -- The default partition has such rows if no partition was added in time.
    EXECUTE format(
        'WITH moved AS (DELETE FROM %1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *) INSERT INTO %5$I SELECT * FROM moved',
        parent || '_default', key, first, after, name
    );
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, first, after);
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION waybill_add_events_partition(monday timestamptz) RETURNS boolean LANGUAGE sql AS $$
    SELECT waybill_add_partition('events', 'id', monday)
$$;

CREATE TABLE deliveries_default PARTITION OF deliveries DEFAULT;
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;

-- The weeks to come, and those of which events are kept.
SELECT waybill_add_partition(parent, key, monday)
FROM (VALUES ('deliveries', 'id'), ('attempts', 'delivery_id')) AS tables (parent, key)
CROSS JOIN (
    SELECT (date_trunc('week', now() AT TIME ZONE 'UTC') + make_interval(weeks => week)) AT TIME ZONE 'UTC' AS monday
    FROM generate_series(0, {weeks}) AS week
    UNION
    SELECT to_timestamp(substr(relname, 8) || '+00', 'YYYYMMDDTZH')
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'events'::regclass AND relname <> 'events_default'
) AS weeks;
"""

# The time of the event, and 60 bits that follow from the event and the endpoint.
DELIVERY_ID = """
CREATE FUNCTION waybill_delivery_id(event uuid, webhook uuid) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (left(replace(event::text, '-', ''), 16) || 'a' || left(md5(event::text || webhook::text), 15))::uuid;
"""

RENAME_OLD = """
ALTER TABLE deliveries RENAME TO old_deliveries;
ALTER TABLE attempts RENAME TO old_attempts;
ALTER TABLE old_deliveries RENAME CONSTRAINT pk_deliveries TO pk_old_deliveries;
ALTER TABLE old_attempts RENAME CONSTRAINT pk_attempts TO pk_old_attempts;
DROP INDEX ix_deliveries_due;
DROP INDEX ix_deliveries_settled;
DROP INDEX ix_deliveries_webhook;
"""

COPY = """
INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, upload_id, status, reason, attempts_made,
                        next_attempt_at, created_at, settled_at)
SELECT waybill_delivery_id(old.event_id, old.webhook_id), old.tenant_id, old.webhook_id, old.event_id, old.event_type,
       events.upload_id, old.status, CASE old.status WHEN 'discarded' THEN 'not recorded' END, old.attempts_made,
       old.next_attempt_at, old.created_at, old.settled_at
FROM old_deliveries AS old LEFT JOIN events ON events.id = old.event_id;

INSERT INTO attempts (delivery_id, number, started_at, duration_us, outcome, status_code, error, response_excerpt,
                      remote_address)
SELECT waybill_delivery_id(deliveries.event_id, deliveries.webhook_id), number, started_at,
       least(extract(epoch FROM duration) * 1000000, 2147483647)::integer, outcome, status_code, error, response_excerpt,
       remote_address
FROM old_attempts AS old JOIN old_deliveries AS deliveries ON deliveries.id = old.delivery_id;

DROP TABLE old_attempts;
DROP TABLE old_deliveries;

INSERT INTO delivery_queues (webhook_id, tenant_id, due_at)
SELECT webhooks.id, webhooks.tenant_id, min(next_attempt_at)
FROM webhooks LEFT JOIN deliveries ON deliveries.webhook_id = webhooks.id AND deliveries.status = 'pending'
GROUP BY webhooks.id;

INSERT INTO webhook_secrets (id, webhook_id, scheme, secret, created_at)
SELECT gen_random_uuid(), id, 'v1', secret, created_at FROM webhooks;

UPDATE webhooks SET upload_ended_at = now()
FROM uploads
WHERE uploads.id = webhooks.upload_id AND webhooks.deleted_at IS NULL AND uploads.status IN ('cancelled', 'failed', 'expired');

UPDATE inbox SET deliveries = counts.deliveries
FROM (SELECT event_id, count(*) AS deliveries FROM deliveries GROUP BY event_id) AS counts
WHERE inbox.consumer = 'notifier' AND inbox.event_id = counts.event_id;

ANALYZE deliveries, attempts, delivery_queues, webhook_secrets;
"""

TRIGGERS = """
CREATE FUNCTION waybill_add_delivery_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO delivery_queues (webhook_id, tenant_id) VALUES (NEW.id, NEW.tenant_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER add_delivery_queue AFTER INSERT ON webhooks
FOR EACH ROW EXECUTE FUNCTION waybill_add_delivery_queue();

-- A process keeps what it has read of an endpoint until the version differs, or it is notified.
CREATE FUNCTION waybill_count_webhook_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    PERFORM pg_notify('waybill_webhooks', NEW.id::text);
    RETURN NEW;
END $$;

CREATE TRIGGER count_webhook_version BEFORE UPDATE ON webhooks
FOR EACH ROW EXECUTE FUNCTION waybill_count_webhook_version();

-- The last event of the upload must still reach its callback, which a sweep deletes later.
CREATE FUNCTION waybill_end_callbacks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE webhooks SET upload_ended_at = CASE WHEN NEW.status IN ('cancelled', 'failed', 'expired') THEN now() END
    WHERE upload_id = NEW.id AND deleted_at IS NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER end_callbacks AFTER UPDATE OF status ON uploads
FOR EACH ROW WHEN ((NEW.status IN ('cancelled', 'failed', 'expired')) <> (OLD.status IN ('cancelled', 'failed', 'expired')))
EXECUTE FUNCTION waybill_end_callbacks();

CREATE FUNCTION waybill_change_webhook_of_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE webhooks SET version = version WHERE id = coalesce(NEW.webhook_id, OLD.webhook_id);
    RETURN NULL;
END $$;

CREATE TRIGGER change_webhook AFTER INSERT OR UPDATE OR DELETE ON webhook_secrets
FOR EACH ROW EXECUTE FUNCTION waybill_change_webhook_of_secret();

CREATE FUNCTION waybill_wake_deliverer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('waybill_deliveries', coalesce(NEW.owner::text, ''));
    RETURN NULL;
END $$;

CREATE TRIGGER wake_deliverer AFTER INSERT OR UPDATE OF due_at ON delivery_queues
FOR EACH ROW WHEN (NEW.due_at <= now()) EXECUTE FUNCTION waybill_wake_deliverer();
"""

NO_TRIGGERS = """
DROP TRIGGER wake_deliverer ON delivery_queues;
DROP TRIGGER change_webhook ON webhook_secrets;
DROP TRIGGER count_webhook_version ON webhooks;
DROP TRIGGER add_delivery_queue ON webhooks;
DROP TRIGGER end_callbacks ON uploads;
DROP FUNCTION waybill_wake_deliverer();
DROP FUNCTION waybill_change_webhook_of_secret();
DROP FUNCTION waybill_count_webhook_version();
DROP FUNCTION waybill_add_delivery_queue();
DROP FUNCTION waybill_end_callbacks();
"""

# The earlier version has one secret per endpoint and can sign with no other kind. A replay and a ping
# are deliveries like any other; a paused endpoint is delivered to again.
COPY_BACK = """
UPDATE webhooks SET secret = coalesce((
    SELECT secret FROM webhook_secrets
    WHERE webhook_id = webhooks.id AND scheme = 'v1'
    ORDER BY expires_at DESC NULLS FIRST, created_at DESC LIMIT 1
), '');

INSERT INTO old_deliveries (id, tenant_id, webhook_id, event_id, event_type, status, attempts_made, next_attempt_at,
                            created_at, settled_at)
SELECT id, tenant_id, webhook_id, event_id, event_type, status, attempts_made,
       CASE WHEN status = 'pending' THEN coalesce(next_attempt_at, now()) END, created_at, settled_at
FROM deliveries
-- Each refers to its endpoint again; the row of one that was deleted long ago does not exist any more.
WHERE webhook_id IN (SELECT id FROM webhooks);

INSERT INTO old_attempts (delivery_id, number, started_at, duration, outcome, status_code, error, response_excerpt,
                          remote_address)
SELECT delivery_id, number, started_at, make_interval(secs => duration_us / 1000000.0), outcome, status_code, error,
       response_excerpt, remote_address
FROM attempts JOIN old_deliveries ON old_deliveries.id = attempts.delivery_id;

DROP TABLE attempts;
DROP TABLE deliveries;
ALTER TABLE old_deliveries RENAME TO deliveries;
ALTER TABLE old_attempts RENAME TO attempts;
"""

OLD_PARTITIONS = """
CREATE OR REPLACE FUNCTION waybill_add_events_partition(monday timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text := 'events_' || to_char(monday AT TIME ZONE 'UTC', 'YYYYMMDD');
    first uuid := waybill_first_uuid7(monday);
    after uuid := waybill_first_uuid7(monday + interval '7 days');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format(
        'WITH moved AS (DELETE FROM events_default WHERE id >= %L AND id < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
        first, after, name
    );
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first, after);
    RETURN true;
END $$;

DROP FUNCTION waybill_add_partition(text, text, timestamptz);
DROP FUNCTION waybill_delivery_id(uuid, uuid);
"""

OLD_WAKE = """
CREATE TRIGGER wake_deliveries AFTER INSERT ON deliveries
FOR EACH STATEMENT EXECUTE FUNCTION waybill_wake_deliveries();
"""


def _time(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _time_of_insert(name: str) -> sa.Column[Any]:
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


WEBHOOK_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("metadata_filter", postgresql.JSONB(), nullable=True),
    sa.Column("headers", sa.Text(), nullable=True),
    sa.Column("timeout", sa.Interval(), nullable=True),
    sa.Column("concurrency", sa.BigInteger(), nullable=True),
    sa.Column("rate", sa.REAL(), nullable=True),
    sa.Column("ordered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
    _time("paused_at"),
    _time("upload_ended_at"),
)


def upgrade() -> None:
    op.execute("DROP TRIGGER wake_deliveries ON deliveries")
    op.execute("DROP FUNCTION waybill_wake_deliveries()")
    for column in WEBHOOK_COLUMNS:
        op.add_column("webhooks", column.copy())
    op.add_column(
        "inbox",
        sa.Column("deliveries", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    _create_webhook_tables()
    op.execute(RENAME_OLD)
    _create_deliveries()
    op.execute(DELIVERY_ID)
    op.execute(PARTITIONS.format(weeks=WEEKS_AHEAD))
    op.execute(COPY)
    _index_deliveries()
    op.create_index(
        "ix_webhooks_ended",
        "webhooks",
        ["upload_ended_at"],
        postgresql_where=sa.text("upload_ended_at IS NOT NULL AND deleted_at IS NULL"),
    )
    op.create_index(
        "ix_webhooks_deleted",
        "webhooks",
        ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.drop_column("webhooks", "secret")
    op.execute(TRIGGERS)


def downgrade() -> None:
    op.execute(NO_TRIGGERS)
    op.add_column("webhooks", sa.Column("secret", sa.Text(), nullable=True))
    _create_old_deliveries()
    op.execute(COPY_BACK)
    op.alter_column("webhooks", "secret", nullable=False)
    _restore_old_deliveries()
    op.drop_index("ix_webhooks_deleted", "webhooks")
    op.drop_table("deliverers")
    op.drop_table("delivery_queues")
    op.drop_table("webhook_secrets")
    op.drop_column("inbox", "deliveries")
    for column in WEBHOOK_COLUMNS:
        op.drop_column("webhooks", column.name)
    op.execute(OLD_PARTITIONS)
    op.execute(
        "CREATE FUNCTION waybill_wake_deliveries() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_notify('waybill_deliveries', ''); RETURN NULL; END $$"
    )
    op.execute(OLD_WAKE)


def _create_webhook_tables() -> None:
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        _time_of_insert("created_at"),
        _time("expires_at"),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_secrets_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_secrets")),
    )
    op.create_index("ix_webhook_secrets_webhook_id", "webhook_secrets", ["webhook_id"])
    op.create_table(
        "delivery_queues",
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        _time("due_at"),
        sa.Column("owner", sa.Uuid(), nullable=True),
        _time("blocked_until"),
        sa.Column("throttles", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _time("failing_since"),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_delivery_queues_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_delivery_queues")),
    )
    op.create_index(
        "ix_delivery_queues_due",
        "delivery_queues",
        ["due_at"],
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_delivery_queues_owner",
        "delivery_queues",
        ["owner"],
        postgresql_where=sa.text("owner IS NOT NULL"),
    )
    op.create_table(
        "deliverers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        _time_of_insert("started_at"),
        _time("alive_until", nullable=False),
        _time("ended_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliverers")),
    )


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("ordered", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempts_made", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _time("next_attempt_at"),
        _time_of_insert("created_at"),
        _time("settled_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_table(
        "attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        _time("started_at", nullable=False),
        sa.Column("duration_us", sa.Integer(), nullable=False),
        sa.Column("dns_us", sa.Integer(), nullable=True),
        sa.Column("connect_us", sa.Integer(), nullable=True),
        sa.Column("tls_us", sa.Integer(), nullable=True),
        sa.Column("first_byte_us", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status_code", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response_excerpt", sa.Text(), server_default="", nullable=False),
        sa.Column("remote_address", sa.Text(), nullable=True),
        sa.Column("request_headers", postgresql.JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", "number", name=op.f("pk_attempts")),
        postgresql_partition_by="RANGE (delivery_id)",
    )


def _index_deliveries() -> None:
    """Add the indexes after the rows, which then takes half the time."""
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["webhook_id", sa.text("(attempts_made > 0)"), "next_attempt_at", "id"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_ordered",
        "deliveries",
        ["webhook_id", "upload_id", "event_id"],
        postgresql_where=sa.text("status = 'pending' AND ordered"),
    )
    op.create_index(
        "ix_deliveries_failed",
        "deliveries",
        ["webhook_id", "id"],
        postgresql_where=sa.text("status IN ('exhausted', 'discarded')"),
    )
    op.create_index("ix_deliveries_webhook", "deliveries", ["webhook_id", "id"])
    # For the sweep of old deliveries: only this partition is not dropped by the week.
    op.execute("CREATE INDEX ix_deliveries_default_created ON deliveries_default (created_at)")


def _create_old_deliveries() -> None:
    op.create_table(
        "old_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts_made", sa.BigInteger(), nullable=False),
        _time("next_attempt_at"),
        _time("leased_until"),
        _time_of_insert("created_at"),
        _time("settled_at"),
    )
    op.create_table(
        "old_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        _time("started_at", nullable=False),
        sa.Column("duration", sa.Interval(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status_code", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response_excerpt", sa.Text(), server_default="", nullable=False),
        sa.Column("remote_address", sa.Text(), nullable=True),
    )


def _restore_old_deliveries() -> None:
    op.create_primary_key("pk_deliveries", "deliveries", ["id"])
    op.create_primary_key("pk_attempts", "attempts", ["delivery_id", "number"])
    op.create_unique_constraint(
        "uq_deliveries_event_id_webhook_id", "deliveries", ["event_id", "webhook_id"]
    )
    op.create_foreign_key("fk_deliveries_tenant_id", "deliveries", "tenants", ["tenant_id"], ["id"])
    op.create_foreign_key(
        "fk_deliveries_webhook_id", "deliveries", "webhooks", ["webhook_id"], ["id"]
    )
    op.create_foreign_key(
        "fk_attempts_delivery_id",
        "attempts",
        "deliveries",
        ["delivery_id"],
        ["id"],
        ondelete="CASCADE",
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_settled",
        "deliveries",
        ["settled_at"],
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.create_index("ix_deliveries_webhook", "deliveries", ["webhook_id", "created_at", "id"])
