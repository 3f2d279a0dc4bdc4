"""Steps of jobs with counters per tenant; events as rows, partitioned by week.

Code of the earlier version does not run on these tables, nor this version on the earlier tables: stop every process,
migrate, then start this version. The rule that old code runs on the new schema does not hold here: both versions on
one database would need every job twice, as columns and as steps, with triggers that keep the two equal.

Work that has not ended goes on. Messages of the earlier version may stay in their queues: bodies have not changed, and
the event of a step is the event that started it before. The downgrade restores the earlier tables; it publishes the
events of open steps again, because they may have been published to the queues of this version only.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WEEKS_AHEAD = 4

# A UUID of version 7 starts with its time in milliseconds, so that bounds of ids are bounds of time.
PARTITIONS = """
CREATE FUNCTION waybill_first_uuid7(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

CREATE FUNCTION waybill_add_events_partition(monday timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text := 'events_' || to_char(monday AT TIME ZONE 'UTC', 'YYYYMMDD');
    first uuid := waybill_first_uuid7(monday);
    after uuid := waybill_first_uuid7(monday + interval '7 days');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    -- The default partition has such rows if no partition was added in time.
    EXECUTE format(
        'WITH moved AS (DELETE FROM events_default WHERE id >= %L AND id < %L RETURNING *) INSERT INTO %I SELECT * FROM moved',
        first, after, name
    );
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first, after);
    RETURN true;
END $$;

CREATE TABLE events_default PARTITION OF events DEFAULT;

SELECT waybill_add_events_partition(
    (date_trunc('week', now() AT TIME ZONE 'UTC') + make_interval(weeks => week)) AT TIME ZONE 'UTC'
)
FROM generate_series(0, {weeks}) AS week;
"""

# Events of the outbox and of deliveries, in the order of their creation. Their ids are random, so
# that most of them go to the default partition.
COPY_EVENTS = """
INSERT INTO events (id, position, tenant_id, type, subject, upload_id, job_id, document_id, body, traceparent, created_at)
SELECT old.event_id, row_number() OVER (ORDER BY old.created_at, old.event_id), event.tenantid, event.type, event.subject,
       data.upload_id, data.job_id, data.document_id, old.body, old.traceparent, old.created_at
FROM (
    SELECT event_id, body, traceparent, created_at FROM outbox
    UNION ALL
    (SELECT DISTINCT ON (event_id) event_id, body, NULL, created_at
     FROM deliveries
     WHERE NOT EXISTS (SELECT FROM outbox WHERE outbox.event_id = deliveries.event_id)
     ORDER BY event_id, created_at)
) AS old,
jsonb_to_record(convert_from(old.body, 'UTF8')::jsonb) AS event (tenantid uuid, type text, subject text, data jsonb),
jsonb_to_record(event.data) AS data (upload_id uuid, job_id uuid, document_id uuid);

SELECT setval('event_positions', (SELECT coalesce(max(position), 0) + 1 FROM events), false);

-- For the sweep of old events: only this partition is not dropped by the week.
CREATE INDEX ix_events_default_created ON events_default (created_at);

-- The planner has no statistics of a table that this transaction filled.
ANALYZE events;
"""

# The columns of a job become its steps. A job is in one stage, so that every stage before it is
# completed. `started_at` of a reading that may not have begun is unknown.
COPY_STEPS = """
CREATE TEMPORARY TABLE old_steps AS
WITH starts AS (
    SELECT events.job_id, events.type, events.id, outbox.id IS NOT NULL AS is_in_outbox,
           outbox.id IS NOT NULL AND outbox.published_at IS NULL AS is_unpublished
    FROM events LEFT JOIN outbox ON outbox.event_id = events.id
    WHERE events.job_id IS NOT NULL AND events.type IN ('upload.finalized', 'upload.stored', 'upload.cancelled')
), parts AS (
    SELECT id AS job_id, 'transfer' AS name, 0 AS ordinal, tenant_id, upload_id, 'upload.finalized' AS type,
           CASE WHEN stage <> 'transfer' THEN 'completed'
                -- A worker that stops without a result gives its lease back; the message is in a queue.
                WHEN status = 'processing' AND lease_until IS NULL THEN 'queued'
                WHEN status = 'processing' THEN 'running'
                ELSE status END AS status,
           bytes_done AS done, bytes_total AS total, 'bytes' AS unit, bytes_at_claim AS done_at_claim,
           lease_owner, lease_until,
           CASE WHEN multipart_id IS NOT NULL THEN jsonb_strip_nulls(jsonb_build_object(
               'multipart_id', multipart_id,
               'digested_bytes', CASE WHEN digest_state IS NOT NULL THEN digested_bytes END,
               'digest_state', replace(encode(digest_state, 'base64'), E'\\n', '')
           )) END AS checkpoint,
           created_at AS queued_at, started_at,
           CASE WHEN stage <> 'transfer' THEN coalesce(stored_at, finished_at) ELSE finished_at END AS finished_at,
           CASE WHEN stage = 'transfer' THEN error_code END AS error_code,
           CASE WHEN stage = 'transfer' THEN error_detail END AS error_detail,
           CASE WHEN stage = 'transfer' THEN error_retryable END AS error_retryable
    FROM jobs
    UNION ALL
    SELECT id, 'ingest', 1, tenant_id, upload_id, 'upload.stored',
           CASE WHEN stage = 'done' THEN 'completed'
                WHEN status = 'processing' THEN 'queued'
                ELSE status END,
           pages_done, pages_total, 'pages', 0, NULL, NULL, NULL,
           coalesce(stored_at, created_at),
           CASE WHEN status <> 'processing' OR pages_total IS NOT NULL THEN stored_at END,
           finished_at,
           CASE WHEN stage = 'ingest' THEN error_code END,
           CASE WHEN stage = 'ingest' THEN error_detail END,
           CASE WHEN stage = 'ingest' THEN error_retryable END
    FROM jobs
    WHERE stage = 'ingest' OR (stage = 'done' AND pages_total IS NOT NULL)
    UNION ALL
    SELECT id, 'cleanup', 9, tenant_id, upload_id, 'upload.cancelled', 'completed',
           0, NULL, NULL, 0, NULL, NULL, NULL, finished_at, NULL, finished_at, NULL, NULL, NULL
    FROM jobs
    WHERE status = 'cancelled'
)
SELECT parts.*, starts.id AS event_id, coalesce(starts.is_in_outbox, false) AS is_in_outbox,
       coalesce(starts.is_unpublished, false) AS is_unpublished, false AS is_event_lost
FROM parts LEFT JOIN starts USING (job_id, type);

-- A published message may still be in its queue. A second cleanup changes nothing.
UPDATE old_steps SET status = 'queued', finished_at = NULL
WHERE name = 'cleanup' AND (is_unpublished OR finished_at > now() - interval '1 day');

-- Neither the outbox nor a delivery has the event of a step that has not ended: it is written again.
UPDATE old_steps SET is_event_lost = true, event_id = pg_temp.waybill_random_uuid7()
WHERE event_id IS NULL AND status IN ('queued', 'running');

INSERT INTO events (id, tenant_id, type, subject, upload_id, job_id, document_id, body)
SELECT step.event_id, step.tenant_id, step.type, uploads.id::text, uploads.id, step.job_id,
       CASE step.type WHEN 'upload.stored' THEN documents.id END,
       convert_to(jsonb_build_object(
           'specversion', '1.0', 'id', step.event_id, 'source', '/waybill/migration', 'type', step.type,
           'subject', uploads.id, 'time', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
           'datacontenttype', 'application/json', 'tenantid', step.tenant_id,
           'data', jsonb_build_object('upload_id', uploads.id, 'job_id', step.job_id, 'filename', uploads.filename)
               || CASE step.type
                  WHEN 'upload.stored' THEN jsonb_build_object(
                      'document_id', documents.id, 'size', documents.size, 'sha256', documents.sha256,
                      'content_type', documents.content_type, 'object_key', documents.object_key, 'will_be_read', true)
                  WHEN 'upload.finalized' THEN jsonb_build_object(
                      'size', CASE WHEN uploads.staging <> 'reference' THEN uploads.size END)
                  ELSE '{}'::jsonb END
       )::text, 'UTF8')
FROM old_steps AS step
JOIN uploads ON uploads.id = step.upload_id
LEFT JOIN documents ON documents.upload_id = uploads.id
WHERE step.is_event_lost;

-- The watchdog releases at once what probably has no message any more: the outbox forgets an event
-- days after its publication, and a cleanup takes moments.
INSERT INTO steps (job_id, name, ordinal, tenant_id, priority, event_id, status, ticket, done, total, unit, done_at_claim,
                   lease_owner, lease_until, checkpoint, overdue_at, queued_at, started_at, finished_at,
                   error_code, error_detail, error_retryable, releases)
SELECT job_id, name, ordinal, tenant_id, 'interactive', event_id, status,
       row_number() OVER (PARTITION BY tenant_id, name ORDER BY queued_at, job_id),
       done, total, unit, done_at_claim, lease_owner, lease_until, checkpoint,
       CASE WHEN status IN ('queued', 'running') THEN
           CASE WHEN is_unpublished OR (is_in_outbox AND name <> 'cleanup') THEN now() + interval '5 minutes' ELSE now() END
       END,
       queued_at, started_at, finished_at, error_code, error_detail, error_retryable, 1
FROM old_steps;

DROP TABLE old_steps;

INSERT INTO tenant_steps (tenant_id, name, priority, waiting, in_broker, issued, released, finished)
SELECT tenant_id, name, priority, 0, count(*) FILTER (WHERE status IN ('queued', 'running')), count(*), count(*),
       count(*) FILTER (WHERE status NOT IN ('queued', 'running'))
FROM steps GROUP BY tenant_id, name, priority;

ANALYZE steps;
"""

# Unpublished events keep their place; the event of a step goes to the queue of the step as well.
COPY_OUTBOX = """
INSERT INTO outbox (event_id, queue, created_at)
SELECT outbox.event_id, CASE name WHEN 'ingest' THEN 'document_processing' ELSE 'uploads' END, outbox.created_at
FROM outbox JOIN steps ON steps.event_id = outbox.event_id
WHERE outbox.published_at IS NULL AND steps.status = 'queued'
ORDER BY outbox.id;

DELETE FROM outbox USING events
WHERE outbox.event_id = events.id AND outbox.published_at IS NULL AND outbox.queue IS NULL
  AND events.type = 'upload.finalized';
"""

TRIGGERS = """
-- A release locks the counters of both priorities. Without one order, it and the end of a step of the
-- other priority would be a deadlock.
CREATE FUNCTION waybill_lock_counters(of_tenant uuid, of_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM tenant_steps WHERE tenant_id = of_tenant AND name = of_name ORDER BY priority FOR UPDATE;
END $$;

-- Numbers a new step and counts it.
CREATE FUNCTION waybill_number_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM waybill_lock_counters(NEW.tenant_id, NEW.name);
    INSERT INTO tenant_steps AS counters (tenant_id, name, priority, waiting, in_broker, issued, released, finished)
    VALUES (NEW.tenant_id, NEW.name, NEW.priority,
            (NEW.status = 'waiting')::int, (NEW.status IN ('queued', 'running'))::int, 1,
            (NEW.status <> 'waiting')::int, (NEW.status NOT IN ('waiting', 'queued', 'running'))::int)
    ON CONFLICT (tenant_id, name, priority) DO UPDATE SET
        waiting = counters.waiting + EXCLUDED.waiting,
        in_broker = counters.in_broker + EXCLUDED.in_broker,
        issued = counters.issued + 1,
        released = counters.released + EXCLUDED.released,
        finished = counters.finished + EXCLUDED.finished
    RETURNING issued INTO NEW.ticket;
    RETURN NEW;
END $$;

CREATE TRIGGER number_step BEFORE INSERT ON steps
FOR EACH ROW EXECUTE FUNCTION waybill_number_step();

CREATE FUNCTION waybill_count_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    new_status text := CASE TG_OP WHEN 'UPDATE' THEN NEW.status ELSE 'deleted' END;
    was_open boolean := OLD.status IN ('waiting', 'queued', 'running');
    is_open boolean := new_status IN ('waiting', 'queued', 'running');
BEGIN
    PERFORM waybill_lock_counters(OLD.tenant_id, OLD.name);
    UPDATE tenant_steps SET
        waiting = waiting + (new_status = 'waiting')::int - (OLD.status = 'waiting')::int,
        in_broker = in_broker + (new_status IN ('queued', 'running'))::int - (OLD.status IN ('queued', 'running'))::int,
        released = released + (OLD.status = 'waiting' AND new_status <> 'waiting')::int,
        finished = finished + (was_open AND NOT is_open)::int
    WHERE tenant_id = OLD.tenant_id AND name = OLD.name AND priority = OLD.priority;
    RETURN NULL;
END $$;

-- A claim and a retry change no counter and must not lock the counters: the watchdog queues steps of
-- many names in one statement, in any order, which would be a deadlock with a step that adds the next.
CREATE TRIGGER count_changed_step AFTER UPDATE OF status ON steps
FOR EACH ROW WHEN (
    OLD.status <> NEW.status AND NOT (OLD.status IN ('queued', 'running') AND NEW.status IN ('queued', 'running'))
) EXECUTE FUNCTION waybill_count_step();

CREATE TRIGGER count_deleted_step AFTER DELETE ON steps
FOR EACH ROW WHEN (OLD.status IN ('waiting', 'queued', 'running')) EXECUTE FUNCTION waybill_count_step();

-- Derives a job from its steps. The job is locked by a statement of its own: the next statement then
-- sees what every other transaction that held the lock has committed. In one statement, two workers
-- that complete two steps at once would both miss that the other step is completed.
CREATE FUNCTION waybill_derive_job() RETURNS trigger LANGUAGE plpgsql AS $$
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
    FROM steps WHERE job_id = NEW.job_id;
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

-- A new job is queued in its first step: every finalize would update the row that it has just added.
CREATE TRIGGER derive_job_of_new_step AFTER INSERT ON steps
FOR EACH ROW WHEN (NEW.ordinal > 0 OR NEW.status <> 'waiting' AND NEW.status <> 'queued')
EXECUTE FUNCTION waybill_derive_job();

-- Clients cannot distinguish a waiting from a queued step.
CREATE TRIGGER derive_job AFTER UPDATE OF status ON steps
FOR EACH ROW WHEN (
    OLD.status <> NEW.status AND NOT (OLD.status IN ('waiting', 'queued') AND NEW.status IN ('waiting', 'queued'))
) EXECUTE FUNCTION waybill_derive_job();

CREATE FUNCTION waybill_count_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jobs SET revision = revision + 1, updated_at = now() WHERE id = NEW.job_id;
    RETURN NULL;
END $$;

CREATE TRIGGER count_revision AFTER UPDATE OF done, total, attempts ON steps
FOR EACH ROW WHEN (
    OLD.status = NEW.status
    AND (OLD.done, OLD.total, OLD.attempts) IS DISTINCT FROM (NEW.done, NEW.total, NEW.attempts)
) EXECUTE FUNCTION waybill_count_revision();
"""

NO_TRIGGERS = """
DROP TRIGGER count_revision ON steps;
DROP FUNCTION waybill_count_revision();
DROP TRIGGER derive_job ON steps;
DROP TRIGGER derive_job_of_new_step ON steps;
DROP FUNCTION waybill_derive_job();
DROP TRIGGER count_deleted_step ON steps;
DROP TRIGGER count_changed_step ON steps;
DROP FUNCTION waybill_count_step();
DROP TRIGGER number_step ON steps;
DROP FUNCTION waybill_number_step();
DROP FUNCTION waybill_lock_counters(uuid, text);
"""

RANDOM_UUID7 = """
CREATE FUNCTION pg_temp.waybill_random_uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (left(waybill_first_uuid7(now())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid
$$;
"""

OLD_REVISIONS = """
CREATE FUNCTION waybill_count_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.revision := OLD.revision + 1; RETURN NEW; END $$;

CREATE TRIGGER count_revision BEFORE UPDATE ON jobs FOR EACH ROW
WHEN ((OLD.status, OLD.stage, OLD.bytes_done, OLD.bytes_total, OLD.pages_done, OLD.pages_total, OLD.result, OLD.error_code)
      IS DISTINCT FROM
      (NEW.status, NEW.stage, NEW.bytes_done, NEW.bytes_total, NEW.pages_done, NEW.pages_total, NEW.result, NEW.error_code))
EXECUTE FUNCTION waybill_count_revision();
"""

COPY_BACK = """
UPDATE jobs SET
    bytes_done = transfer.done, bytes_total = coalesce(transfer.total, 0), bytes_at_claim = transfer.done_at_claim,
    lease_owner = transfer.lease_owner, lease_until = transfer.lease_until,
    multipart_id = transfer.checkpoint ->> 'multipart_id',
    digested_bytes = CASE WHEN transfer.status = 'completed' THEN transfer.done
                          ELSE coalesce((transfer.checkpoint ->> 'digested_bytes')::bigint, 0) END,
    digest_state = decode(transfer.checkpoint ->> 'digest_state', 'base64'),
    stored_at = CASE WHEN transfer.status = 'completed' THEN transfer.finished_at END,
    error_code = transfer.error_code, error_detail = transfer.error_detail, error_retryable = transfer.error_retryable
FROM steps AS transfer WHERE transfer.job_id = jobs.id AND transfer.name = 'transfer';

UPDATE jobs SET
    pages_done = ingest.done, pages_total = ingest.total,
    error_code = coalesce(jobs.error_code, ingest.error_code),
    error_detail = coalesce(jobs.error_detail, ingest.error_detail),
    error_retryable = coalesce(jobs.error_retryable, ingest.error_retryable)
FROM steps AS ingest WHERE ingest.job_id = jobs.id AND ingest.name = 'ingest';

UPDATE outbox SET body = events.body, routing_key = events.type, traceparent = events.traceparent
FROM events WHERE events.id = outbox.event_id;

UPDATE deliveries SET body = events.body FROM events WHERE events.id = deliveries.event_id;
"""

ONE_ROW_PER_EVENT = """
DELETE FROM outbox WHERE queue IS NOT NULL;
DELETE FROM outbox USING outbox AS later WHERE later.event_id = outbox.event_id AND later.id > outbox.id;
"""

# The earlier version publishes an event once, to the exchange, which then also routes it to the queue
# of the step. The event of a step that has not ended is published again: nothing else releases the
# step, and a repeated event changes nothing.
OUTBOX_BACK = """
INSERT INTO outbox (event_id, routing_key, body, traceparent)
SELECT events.id, events.type, events.body, events.traceparent
FROM steps JOIN events ON events.id = steps.event_id
WHERE steps.status IN ('waiting', 'queued', 'running')
ORDER BY steps.queued_at
ON CONFLICT (event_id) DO UPDATE SET published_at = NULL;
DELETE FROM outbox WHERE body IS NULL;
DELETE FROM deliveries WHERE body IS NULL;
DELETE FROM jobs WHERE upload_id IS NULL;
"""

JOB_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("bytes_done", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("bytes_total", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("bytes_at_claim", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("digested_bytes", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("digest_state", sa.LargeBinary(), nullable=True),
    sa.Column("pages_done", sa.BigInteger(), nullable=False, server_default="0"),
    sa.Column("pages_total", sa.BigInteger(), nullable=True),
    sa.Column("multipart_id", sa.Text(), nullable=True),
    sa.Column("lease_owner", sa.Text(), nullable=True),
    sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
    sa.Column("error_code", sa.Text(), nullable=True),
    sa.Column("error_detail", sa.Text(), nullable=True),
    sa.Column("error_retryable", sa.Boolean(), nullable=True),
    sa.Column("stored_at", sa.DateTime(timezone=True), nullable=True),
)
WITHOUT_DEFAULT = ("bytes_done", "bytes_total", "pages_done")
"""Columns of the earlier version that have no default; the default above is only for old rows."""


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("event_positions")))
    _create_events()
    op.execute(PARTITIONS.format(weeks=WEEKS_AHEAD))
    op.execute(COPY_EVENTS)
    _index_events()
    op.add_column("outbox", sa.Column("queue", sa.Text(), nullable=True))
    op.drop_constraint("uq_outbox_event_id", "outbox")
    op.create_index("ix_outbox_event", "outbox", ["event_id"])
    for name in ("routing_key", "body", "traceparent"):
        op.drop_column("outbox", name)
    op.drop_column("deliveries", "body")
    _create_steps()
    op.execute(RANDOM_UUID7)
    op.execute(COPY_STEPS)
    _index_steps()
    op.execute(COPY_OUTBOX)
    op.execute("DROP TRIGGER count_revision ON jobs")
    op.execute("DROP FUNCTION waybill_count_revision()")
    for column in JOB_COLUMNS:
        op.drop_column("jobs", column.name)
    op.alter_column("jobs", "upload_id", nullable=True)
    op.add_column("jobs", sa.Column("kind", sa.Text(), server_default="upload", nullable=False))
    op.add_column(
        "jobs", sa.Column("priority", sa.Text(), server_default="interactive", nullable=False)
    )
    op.create_index(
        "ix_jobs_open",
        "jobs",
        ["created_at"],
        postgresql_where=sa.text("status IN ('queued', 'processing')"),
    )
    op.create_index("ix_jobs_tenant_status", "jobs", ["tenant_id", "status", "created_at", "id"])
    op.drop_index("ix_webhooks_live", table_name="webhooks")
    op.create_index(
        "ix_webhooks_tenant",
        "webhooks",
        ["tenant_id", "upload_id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index("ix_entities_label", table_name="entities")
    op.create_index("ix_entities_label", "entities", ["document_id", "label", "page", "ordinal"])
    op.execute(TRIGGERS)


def downgrade() -> None:
    op.execute(NO_TRIGGERS)
    for column in JOB_COLUMNS:
        op.add_column("jobs", column.copy())
    op.add_column("outbox", sa.Column("routing_key", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("body", sa.LargeBinary(), nullable=True))
    op.add_column("outbox", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("body", sa.LargeBinary(), nullable=True))
    op.execute(COPY_BACK)
    op.execute(ONE_ROW_PER_EVENT)
    op.drop_index("ix_outbox_event", table_name="outbox")
    op.create_unique_constraint("uq_outbox_event_id", "outbox", ["event_id"])
    op.execute(OUTBOX_BACK)
    op.drop_column("outbox", "queue")
    for name in ("routing_key", "body"):
        op.alter_column("outbox", name, nullable=False)
    op.alter_column("deliveries", "body", nullable=False)
    op.alter_column("jobs", "upload_id", nullable=False)
    for name in WITHOUT_DEFAULT:
        op.alter_column("jobs", name, server_default=None)
    op.drop_index("ix_entities_label", table_name="entities")
    op.create_index("ix_entities_label", "entities", ["document_id", "label"])
    op.drop_index("ix_webhooks_tenant", table_name="webhooks")
    op.create_index(
        "ix_webhooks_live",
        "webhooks",
        ["tenant_id"],
        postgresql_where=sa.text("deleted_at IS NULL AND disabled_at IS NULL"),
    )
    op.drop_index("ix_jobs_tenant_status", table_name="jobs")
    op.drop_index(
        "ix_jobs_open",
        table_name="jobs",
        postgresql_where=sa.text("status IN ('queued', 'processing')"),
    )
    op.drop_column("jobs", "priority")
    op.drop_column("jobs", "kind")
    op.drop_table("tenant_steps")
    op.drop_table("steps")
    op.drop_table("events")
    op.execute("DROP FUNCTION waybill_add_events_partition(timestamptz)")
    op.execute("DROP FUNCTION waybill_first_uuid7(timestamptz)")
    op.execute(sa.schema.DropSequence(sa.Sequence("event_positions")))
    op.execute(OLD_REVISIONS)


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("export_id", sa.Uuid(), nullable=True),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        postgresql_partition_by="RANGE (id)",
    )


def _index_events() -> None:
    """Add the indexes after the rows, which then takes half the time; `_index_steps` likewise."""
    op.create_index("ix_events_feed", "events", ["tenant_id", "position"])
    op.create_index("ix_events_job", "events", ["job_id"])
    op.create_index(
        "ix_events_without_position",
        "events",
        ["id"],
        postgresql_where=sa.text("position IS NULL"),
    )


def _create_steps() -> None:
    op.create_table(
        "steps",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("ticket", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("done_at_claim", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("releases", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checkpoint", postgresql.JSONB(), nullable=True),
        sa.Column("overdue_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column("error_retryable", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_steps")),
    )
    op.create_table(
        "tenant_steps",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("waiting", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("in_broker", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("issued", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("released", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("finished", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_tenant_steps_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "name", "priority", name=op.f("pk_tenant_steps")),
    )
    op.create_index(
        "ix_tenant_steps_waiting",
        "tenant_steps",
        ["tenant_id"],
        postgresql_where=sa.text("waiting > 0"),
    )


def _index_steps() -> None:
    op.create_foreign_key(
        op.f("fk_steps_job_id"), "steps", "jobs", ["job_id"], ["id"], ondelete="CASCADE"
    )
    op.create_foreign_key(op.f("fk_steps_tenant_id"), "steps", "tenants", ["tenant_id"], ["id"])
    op.create_index(
        "ix_steps_waiting",
        "steps",
        ["tenant_id", "name", "priority", "ticket"],
        postgresql_where=sa.text("status = 'waiting'"),
    )
    op.create_index(
        "ix_steps_overdue",
        "steps",
        ["overdue_at"],
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
