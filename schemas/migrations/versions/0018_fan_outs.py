"""Events that get their deliveries in parts, and the endpoints of a tenant in the order of their ids."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

# The earlier version does not continue: the rest of the endpoints of these events gets its deliveries at once.
FINISH = """
WITH added AS (
    INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, upload_id, status, ordered, next_attempt_at)
    SELECT waybill_delivery_id(events.id, webhooks.id), webhooks.tenant_id, webhooks.id, events.id, events.type,
           events.upload_id, 'pending', webhooks.ordered AND events.upload_id IS NOT NULL, now()
    FROM fan_outs
    JOIN events ON events.id = fan_outs.event_id AND events.tenant_id = fan_outs.tenant_id
    JOIN webhooks ON webhooks.tenant_id = fan_outs.tenant_id AND webhooks.id > fan_outs.reached
        AND webhooks.upload_id IS NULL AND webhooks.deleted_at IS NULL AND webhooks.disabled_at IS NULL
        AND webhooks.id IS DISTINCT FROM events.endpoint_id
    WHERE (cardinality(webhooks.event_types) = 0 OR EXISTS (
        SELECT FROM unnest(webhooks.event_types) AS subscribed (type)
        WHERE subscribed.type IN (events.type, '*')
           OR right(subscribed.type, 2) = '.*' AND starts_with(events.type, left(subscribed.type, -1))
    )) AND (webhooks.metadata_filter IS NULL OR EXISTS (
        SELECT FROM uploads
        WHERE uploads.id = events.upload_id AND uploads.tenant_id = events.tenant_id
          AND uploads.metadata @> webhooks.metadata_filter
    ))
    ON CONFLICT DO NOTHING
    RETURNING event_id, webhook_id
),
counted AS (
    UPDATE inbox SET deliveries = inbox.deliveries + counts.deliveries
    FROM (SELECT event_id, count(*) AS deliveries FROM added GROUP BY event_id) AS counts
    WHERE inbox.consumer = 'notifier' AND inbox.event_id = counts.event_id
)
UPDATE delivery_queues SET due_at = now() WHERE webhook_id IN (SELECT webhook_id FROM added);
"""


def upgrade() -> None:
    op.create_table(
        "fan_outs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("reached", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", name=op.f("pk_fan_outs")),
    )
    op.create_index(
        "ix_webhooks_fan_out",
        "webhooks",
        ["tenant_id", "id"],
        postgresql_where=sa.text("upload_id IS NULL AND deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.execute(FINISH)
    op.drop_index("ix_webhooks_fan_out", table_name="webhooks")
    op.drop_table("fan_outs")
