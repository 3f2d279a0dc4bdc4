"""The statements that seed, in the order of their execution.

A draw is a number from 0 to 1 that depends on the seed, the job and the purpose alone. All work
that has not ended is at rest: its leases and due times lie a year ahead, and every tenant with
waiting steps has no room in the broker, so a running system leaves the steps as they are.
"""

from collections.abc import Mapping
from typing import Final, LiteralString

FUNCTIONS: Final[LiteralString] = """
    CREATE OR REPLACE FUNCTION pg_temp.seed_draw(purpose int, n bigint) RETURNS float LANGUAGE sql IMMUTABLE AS $$
        SELECT (hashint8extended(n, %(seed)s * 1000 + purpose) & 2147483647) / 2147483648.0::float
    $$;

    CREATE OR REPLACE FUNCTION pg_temp.seed_digest(purpose text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT md5(%(seed)s::text || ' ' || purpose || ' ' || n::text)
    $$;

    CREATE OR REPLACE FUNCTION pg_temp.seed_uuid4(purpose text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT overlay(overlay(pg_temp.seed_digest(purpose, n) PLACING '4' FROM 13) PLACING '8' FROM 17)::uuid
    $$;

    CREATE OR REPLACE FUNCTION pg_temp.seed_uuid7(at timestamptz, purpose text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT overlay(overlay(
            pg_temp.seed_digest(purpose, n) PLACING replace(left(waybill_first_uuid7(at)::text, 13), '-', '') || '7' FROM 1)
            PLACING '8' FROM 17)::uuid
    $$
"""

# A transaction of its own: attaching a partition locks the default partition until the commit.
PARTITIONS: Final[LiteralString] = """
    SELECT waybill_add_partition(name, key, week AT TIME ZONE 'UTC')
    FROM generate_series(
        date_trunc('week', (now() - %(span)s - interval '1 hour') AT TIME ZONE 'UTC'),
        now() AT TIME ZONE 'UTC',
        interval '7 days'
    ) AS week
    CROSS JOIN (VALUES ('events', 'id'), ('deliveries', 'id'), ('attempts', 'delivery_id')) AS tables (name, key)
"""

# The facts of every job, from which the statements below make the rows of each table. The newest job
# is number 1: the newest jobs of two extents are equal. The rows are made from the oldest to the
# newest, and hash joins keep that order: to sort wide rows would take a third of the time.
JOBS: Final[LiteralString] = """
    CREATE TEMPORARY TABLE seed_tenants ON COMMIT DROP AS
    SELECT k, pg_temp.seed_uuid4('tenant', k) AS id,
           pg_temp.seed_uuid4('endpoint', k) AS webhook_id,
           'seed-' || lpad(k::text, 4, '0') AS name
    FROM generate_series(1, %(tenants)s) AS k;

    CREATE TEMPORARY TABLE seed_jobs ON COMMIT DROP AS
    WITH drawn AS (
        SELECT n,
               1 + floor(%(tenants)s * power(pg_temp.seed_draw(1, n), 3))::int AS k,
               CASE WHEN pg_temp.seed_draw(2, n) < 0.3 THEN 'bulk' ELSE 'interactive' END AS priority,
               pg_temp.seed_draw(3, n) AS draw,
               10000 + floor(200e6 * power(pg_temp.seed_draw(4, n), 4))::bigint AS size,
               1 + floor(60 * power(pg_temp.seed_draw(5, n), 3))::int AS pages,
               now() - interval '10 minutes' - %(span)s * (n::float / %(rows)s) AS created_at,
               interval '30 seconds' * pg_temp.seed_draw(6, n) AS pace,
               n <= %(active)s AS is_active
        FROM generate_series(%(rows)s, 1, -1) AS n
    ), fates AS (
        SELECT *,
               CASE
                   WHEN is_active THEN CASE WHEN draw < 0.6 THEN 'transfer' ELSE 'ingest' END
                   WHEN draw < 0.03 THEN 'transfer failed'
                   WHEN draw < 0.05 THEN 'ingest failed'
                   WHEN draw < 0.08 THEN 'cancelled'
                   WHEN draw < 0.60 THEN 'stored'
                   ELSE 'ingested'
               END AS fate
        FROM drawn
    ), placed AS (
        -- The oldest steps of a tenant fill its room in the broker; the others wait.
        SELECT n, row_number() OVER (PARTITION BY k, fate, priority ORDER BY n DESC) AS place FROM fates WHERE is_active
    )
    SELECT n, tenants.id AS tenant_id, webhook_id, priority, fate, size, pages,
           CASE
               WHEN place * 2 <= room THEN 'running'
               WHEN place <= room THEN 'queued'
               WHEN place > room THEN 'waiting'
           END AS step_status,
           pg_temp.seed_uuid4('upload', n) AS upload_id,
           pg_temp.seed_uuid4('job', n) AS job_id,
           CASE WHEN fate IN ('stored', 'ingested', 'ingest failed', 'ingest') THEN pg_temp.seed_uuid4('document', n) END AS document_id,
           pg_temp.seed_draw(7, n) AS draw,
           jsonb_build_object('customer', 'customer-' || floor(100 * power(pg_temp.seed_draw(8, n), 2)), 'order', 'order-' || n) AS metadata,
           CASE WHEN fate NOT IN ('transfer', 'ingest') AND n %% 4 = 0 THEN pg_temp.seed_uuid4('batch of tenant', k * 10 + n %% 5) END AS batch_id,
           CASE WHEN fate NOT IN ('transfer', 'ingest') AND n %% 10 = 0 THEN pg_temp.seed_uuid4('export job', n) END AS export_job_id,
           created_at,
           created_at + pace AS finalized_at,
           CASE WHEN fate <> 'transfer' OR place * 2 <= room THEN created_at + pace * 2 END AS started_at,
           CASE WHEN fate IN ('stored', 'ingested', 'ingest failed', 'ingest') THEN created_at + pace * 3 END AS stored_at,
           CASE WHEN fate NOT IN ('transfer', 'ingest') THEN created_at + pace * CASE WHEN fate LIKE 'ingest%%' THEN 5 ELSE 3 END END AS finished_at,
           pg_temp.seed_uuid7(created_at + pace, 'finalized', n) AS finalized_event,
           CASE WHEN fate IN ('stored', 'ingested', 'ingest failed', 'ingest') THEN pg_temp.seed_uuid7(created_at + pace * 3, 'stored', n) END AS stored_event,
           CASE fate
               WHEN 'ingested' THEN 'document.ingested'
               WHEN 'ingest failed' THEN 'document.failed'
               WHEN 'transfer failed' THEN 'upload.failed'
               WHEN 'cancelled' THEN 'upload.cancelled'
           END AS last_type,
           CASE
               WHEN fate IN ('ingested', 'ingest failed') THEN pg_temp.seed_uuid7(created_at + pace * 5, 'last', n)
               WHEN fate IN ('transfer failed', 'cancelled') THEN pg_temp.seed_uuid7(created_at + pace * 3, 'last', n)
           END AS last_event
    FROM fates
    JOIN seed_tenants AS tenants USING (k)
    LEFT JOIN placed USING (n)
    CROSS JOIN LATERAL (
        SELECT CASE priority WHEN 'bulk' THEN %(bulk_max)s ELSE %(interactive_max)s END AS room
    ) AS limits;

    ANALYZE seed_tenants, seed_jobs;

    CREATE TEMPORARY VIEW seed_events AS
    SELECT seed_jobs.*, event.id AS event_id, event.type, event.at
    FROM seed_jobs
    CROSS JOIN LATERAL (VALUES
        (finalized_event, 'upload.finalized', finalized_at),
        (stored_event, 'upload.stored', stored_at),
        (last_event, last_type, finished_at)
    ) AS event (id, type, at)
    WHERE event.id IS NOT NULL
"""

TABLES: Final[Mapping[str, LiteralString]] = {
    "tenants": """
        INSERT INTO tenants (id, name, created_at, quota_bytes, quota_open_uploads, quota_staged_bytes)
        SELECT id, name, now() - %(span)s, 1::bigint << 50, 1000000, 1::bigint << 50 FROM seed_tenants
    """,
    "uploads": """
        INSERT INTO uploads (id, tenant_id, status, filename, content_type, size, chunk_size, chunk_count, sniffed_type, metadata,
                             created_at, expires_at, finalized_at)
        SELECT upload_id, tenant_id,
               CASE
                   WHEN document_id IS NOT NULL THEN 'stored'
                   WHEN fate = 'transfer' THEN 'finalized'
                   WHEN fate = 'cancelled' THEN 'cancelled'
                   ELSE 'failed'
               END,
               'file-' || n || '.pdf', 'application/pdf', size, 8388608, (size + 8388607) / 8388608,
               'application/pdf', metadata, created_at, created_at + interval '1 day', finalized_at
        FROM seed_jobs
        UNION ALL
        SELECT pg_temp.seed_uuid4(status, n), id, status, 'file.bin', NULL, 8388608 * 3, 8388608, 3, NULL, '{}',
               at, at + CASE status WHEN 'open' THEN interval '1 year' ELSE interval '1 day' END, NULL
        FROM generate_series(1, %(rows)s / 100 + 1) AS n
        CROSS JOIN (VALUES ('open', 2, now() - interval '1 hour'), ('expired', 3, now() - interval '2 days')) AS kinds (status, purpose, at)
        JOIN seed_tenants ON k = 1 + floor(%(tenants)s * pg_temp.seed_draw(20 + purpose, n))::int
    """,
    "chunks": """
        INSERT INTO chunks (upload_id, index, size, sha256, stored_at)
        SELECT upload_id, index, least(8388608, size - index * 8388608), sha256(upload_id::text::bytea), finalized_at
        FROM seed_jobs
        CROSS JOIN LATERAL generate_series(0, (size + 8388607) / 8388608 - 1) AS index
        WHERE fate = 'transfer' OR draw < 0.05
        UNION ALL
        SELECT pg_temp.seed_uuid4('open', n), index, 8388608, sha256('seed'), now() - interval '1 hour'
        FROM generate_series(1, %(rows)s / 100 + 1) AS n, generate_series(0, 1) AS index
    """,
    "jobs": """
        INSERT INTO jobs (id, tenant_id, kind, upload_id, batch_id, priority, status, stage, revision, created_at, started_at, finished_at, updated_at)
        SELECT job_id, tenant_id, 'upload', upload_id, batch_id, priority,
               CASE
                   WHEN fate = 'cancelled' THEN 'cancelled'
                   WHEN last_type IN ('upload.failed', 'document.failed') THEN 'failed'
                   WHEN finished_at IS NOT NULL THEN 'completed'
                   WHEN started_at IS NOT NULL THEN 'processing'
                   ELSE 'queued'
               END,
               CASE
                   WHEN fate IN ('transfer', 'transfer failed', 'cancelled') THEN 'transfer'
                   WHEN fate IN ('ingest', 'ingest failed') THEN 'ingest'
                   ELSE 'done'
               END,
               4, finalized_at, started_at, finished_at, coalesce(finished_at, stored_at, started_at, finalized_at)
        FROM seed_jobs
        UNION ALL
        SELECT export_job_id, tenant_id, 'export', NULL, NULL, 'interactive', 'completed', 'done', 4,
               finished_at, finished_at, finished_at, finished_at
        FROM seed_jobs
        WHERE export_job_id IS NOT NULL
    """,
    "job_labels": """
        INSERT INTO job_labels (job_id, label, tenant_id, created_at)
        SELECT job_id, waybill_label(pair.key, pair.value), tenant_id, finalized_at
        FROM seed_jobs CROSS JOIN LATERAL jsonb_each_text(metadata) AS pair
    """,
    "steps": """
        INSERT INTO steps (job_id, name, ordinal, tenant_id, priority, event_id, status, ticket, done, total, unit, releases,
                           lease_owner, lease_until, overdue_at, queued_at, started_at, finished_at,
                           error_code, error_detail, error_retryable)
        SELECT step.job_id, step.name, ordinal, tenant_id, step.priority, event_id, status,
               row_number() OVER (PARTITION BY tenant_id, step.name, step.priority ORDER BY n DESC),
               CASE status WHEN 'completed' THEN coalesce(total, 0) WHEN 'running' THEN total / 2 ELSE 0 END, total, unit,
               (status <> 'waiting')::int,
               CASE status WHEN 'running' THEN 'seed' END,
               CASE status WHEN 'running' THEN now() + interval '1 year' END,
               CASE WHEN status IN ('queued', 'running') THEN now() + interval '1 year' END,
               queued_at,
               CASE WHEN status NOT IN ('waiting', 'queued') THEN step.started_at END,
               CASE WHEN status IN ('completed', 'failed', 'cancelled') THEN step.finished_at END,
               CASE status WHEN 'failed' THEN CASE name WHEN 'transfer' THEN 'staging_corrupt' ELSE 'document_corrupt' END END,
               CASE status WHEN 'failed' THEN 'a seeded failure' END,
               CASE status WHEN 'failed' THEN false END
        FROM seed_jobs
        CROSS JOIN LATERAL (VALUES
            (seed_jobs.job_id, 'transfer', 0, seed_jobs.priority, finalized_event, size, 'bytes', finalized_at, seed_jobs.started_at, coalesce(stored_at, seed_jobs.finished_at),
             CASE fate WHEN 'transfer' THEN step_status WHEN 'transfer failed' THEN 'failed' WHEN 'cancelled' THEN 'cancelled' ELSE 'completed' END),
            (seed_jobs.job_id, 'ingest', 2, seed_jobs.priority, stored_event, pages, 'pages', stored_at, stored_at, seed_jobs.finished_at,
             CASE fate WHEN 'ingest' THEN step_status WHEN 'ingest failed' THEN 'failed' WHEN 'ingested' THEN 'completed' END),
            (seed_jobs.job_id, 'cleanup', 9, seed_jobs.priority, last_event, NULL, NULL, seed_jobs.finished_at, seed_jobs.finished_at, seed_jobs.finished_at,
             CASE fate WHEN 'cancelled' THEN 'completed' END),
            (export_job_id, 'export', 0, 'interactive', NULL, pages, 'rows', seed_jobs.finished_at, seed_jobs.finished_at, seed_jobs.finished_at,
             CASE WHEN export_job_id IS NOT NULL THEN 'completed' END)
        ) AS step (job_id, name, ordinal, priority, event_id, total, unit, queued_at, started_at, finished_at, status)
        WHERE status IS NOT NULL
        ORDER BY n DESC
    """,
    "events": """
        INSERT INTO events (id, position, tenant_id, type, subject, upload_id, job_id, document_id, body, created_at)
        SELECT event.event_id, nextval('event_positions'), tenant_id, type, subject, upload_id, job_id,
               CASE WHEN type <> 'upload.finalized' THEN document_id END,
               convert_to(format(
                   '{"specversion":"1.0","id":"%%s","source":"/waybill/seed","type":"%%s","subject":"%%s","time":"%%s",'
                   '"datacontenttype":"application/json","tenantid":"%%s","data":{"upload_id":"%%s","job_id":"%%s","filename":"file-%%s.pdf"%%s}}',
                   event.event_id, type, subject, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), tenant_id,
                   upload_id, job_id, n,
                   CASE type
                       WHEN 'upload.finalized' THEN format(',"size":%%s', size)
                       WHEN 'upload.stored' THEN format(
                           ',"document_id":"%%s","size":%%s,"sha256":"%%s","content_type":"application/pdf","object_key":"originals/%%s/%%s","will_be_read":%%s',
                           document_id, size, repeat(pg_temp.seed_digest('content', n), 2), tenant_id, upload_id, (fate <> 'stored')::text)
                       WHEN 'document.ingested' THEN format(
                           ',"document_id":"%%s","sha256":"%%s","pages":%%s,"passages":%%s,"entities":%%s,"language":"en","truncated":false',
                           document_id, repeat(pg_temp.seed_digest('content', n), 2), pages, pages * 2, pages)
                       WHEN 'document.failed' THEN format(',"document_id":"%%s","code":"document_corrupt","detail":"a seeded failure"', document_id)
                       WHEN 'upload.failed' THEN ',"code":"staging_corrupt","detail":"a seeded failure"'
                       ELSE ''
                   END
               ), 'UTF8'),
               at
        FROM seed_events AS event
        CROSS JOIN LATERAL (
            SELECT CASE WHEN type LIKE 'document.%%' THEN document_id ELSE upload_id END::text AS subject
        ) AS named
    """,
    # A step's event goes to its queue, a fact to the exchange.
    "outbox": """
        INSERT INTO outbox (event_id, queue, created_at, available_at, published_at, attempts)
        SELECT event.event_id, copy.queue, published_at, published_at, published_at, 1
        FROM seed_events AS event
        CROSS JOIN LATERAL (VALUES
            (NULL, type <> 'upload.finalized'),
            ('uploads', type = 'upload.cancelled' OR (type = 'upload.finalized' AND (fate <> 'transfer' OR step_status <> 'waiting'))),
            ('document_processing', type = 'upload.stored' AND fate <> 'stored' AND (fate <> 'ingest' OR step_status <> 'waiting'))
        ) AS copy (queue, is_published)
        CROSS JOIN LATERAL (SELECT now() - (now() - at) * %(outbox_pace)s AS published_at) AS times
        WHERE is_published
    """,
    "inbox": """
        INSERT INTO inbox (consumer, event_id, processed_at, deliveries)
        SELECT 'notifier', event_id, at, (draw < 0.3)::int + (draw < 0.1)::int FROM seed_events WHERE type <> 'upload.finalized'
    """,
    "documents": """
        INSERT INTO documents (id, tenant_id, upload_id, job_id, status, outcome, revision_id, filename, content_type, size, sha256,
                               object_key, etag, error_code, error_detail, created_at, ingested_at)
        SELECT document_id, tenant_id, upload_id, job_id,
               CASE fate WHEN 'ingested' THEN 'ingested' WHEN 'ingest failed' THEN 'failed' WHEN 'ingest' THEN 'reading' ELSE 'stored' END,
               CASE fate WHEN 'ingested' THEN 'complete' WHEN 'ingest failed' THEN 'corrupt' END,
               CASE fate WHEN 'ingested' THEN pg_temp.seed_uuid7(finished_at, 'revision', n) END,
               'file-' || n || '.pdf', 'application/pdf', size, repeat(pg_temp.seed_digest('content', n), 2),
               'originals/' || tenant_id || '/' || upload_id, pg_temp.seed_digest('etag', n),
               CASE fate WHEN 'ingest failed' THEN 'document_corrupt' END,
               CASE fate WHEN 'ingest failed' THEN 'a seeded failure' END,
               stored_at, CASE fate WHEN 'ingested' THEN finished_at END
        FROM seed_jobs
        WHERE document_id IS NOT NULL
    """,
    "revisions": """
        INSERT INTO revisions (id, document_id, tenant_id, job_id, number, pipeline_version, state, outcome, page_count, pages_read,
                               language, title, metadata, outline, attachments, page_labels, passages, entities, search, created_at, published_at)
        SELECT pg_temp.seed_uuid7(finished_at, 'revision', n), document_id, tenant_id, job_id, 1, 'seed', 'published', 'complete', pages,
               pages, 'en', 'File ' || n, '{}', '[]', '[]', '[]', pages * 2, pages, 'complete', stored_at, finished_at
        FROM seed_jobs
        WHERE fate = 'ingested'
    """,
    "pages": """
        INSERT INTO pages (revision_id, number, status, outcome, text, engine, language, width_points, height_points, sentences)
        SELECT pg_temp.seed_uuid7(finished_at, 'revision', n), number, 'read', 'complete',
               repeat('The consignment note of page ' || number || ' names the port of loading. ', 20), 'pdfium', 'en', 595, 842,
               ARRAY(SELECT bound FROM generate_series(0, 19) AS ordinal CROSS JOIN LATERAL (VALUES (ordinal * 60), (ordinal * 60 + 59)) AS bounds (bound))
        FROM seed_jobs CROSS JOIN LATERAL generate_series(1, least(pages, 5)) AS number
        WHERE fate = 'ingested' AND draw < 0.05
    """,
    "page_images": """
        INSERT INTO page_images (revision_id, page, job_id, created_at)
        SELECT pg_temp.seed_uuid7(finished_at, 'revision', n), 2, job_id, finished_at
        FROM seed_jobs
        WHERE fate = 'ingested' AND draw < 0.05
    """,
    "entities": """
        INSERT INTO entities (revision_id, page, ordinal, label, text, normal_form, start, "end")
        SELECT pg_temp.seed_uuid7(finished_at, 'revision', n), page, ordinal, CASE ordinal WHEN 0 THEN 'ORG' ELSE 'DATE' END, 'Hamburg', 'hamburg', ordinal * 60, ordinal * 60 + 7
        FROM seed_jobs CROSS JOIN LATERAL generate_series(1, least(pages, 5)) AS page CROSS JOIN generate_series(0, 1) AS ordinal
        WHERE fate = 'ingested' AND draw < 0.05
    """,
    "document_tables": """
        INSERT INTO document_tables (revision_id, number, page, parts, row_count, column_count, header_row_count, method, confidence, caption,
                                     is_cut, cell_count, cells)
        SELECT pg_temp.seed_uuid7(finished_at, 'revision', n), number, number, jsonb_build_array(jsonb_build_array(number, 72, 72, 520, 400)),
               10, 4, 1, 'ruled', 0.9, 'Weights of the cargo', false, 40,
               (SELECT jsonb_agg(jsonb_build_array(place / 4, place %% 4, 1, 1, 'weight ' || place, number, 72, 72, 520, 400) ORDER BY place)
                FROM generate_series(0, 39) AS place)
        FROM seed_jobs CROSS JOIN LATERAL generate_series(1, least(pages, 2)) AS number
        WHERE fate = 'ingested' AND draw < 0.05
    """,
    "figures": """
        INSERT INTO figures (revision_id, number, page, kind, "left", top, "right", bottom, width_pixels, height_pixels)
        SELECT pg_temp.seed_uuid7(finished_at, 'revision', n), 1, 1, 'image', 72, 72, 272, 172, 800, 400
        FROM seed_jobs
        WHERE fate = 'ingested' AND draw < 0.05
    """,
    "figure_images": """
        INSERT INTO figure_images (revision_id, number, job_id, created_at)
        SELECT pg_temp.seed_uuid7(finished_at, 'revision', n), 1, NULL, finished_at
        FROM seed_jobs
        WHERE fate = 'ingested' AND draw < 0.05
    """,
    "exports": """
        INSERT INTO exports (id, tenant_id, job_id, kind, format, filter, columns, rows, size, sha256, object_key, created_at, expires_at)
        SELECT export_id, tenant_id, export_job_id, 'documents', 'csv', '{}', ARRAY['document_id', 'filename'], pages, size, repeat(pg_temp.seed_digest('export file', n), 2),
               'exports/' || tenant_id || '/' || export_id || '/' || pg_temp.seed_uuid4('attempt', n), finished_at, now() + interval '1 year'
        FROM (SELECT *, pg_temp.seed_uuid4('export', n) AS export_id FROM seed_jobs) AS seed_jobs
        WHERE export_job_id IS NOT NULL
    """,
    # Small batches, whose jobs are those of uploads: a batch needs one of its own. And some large ones, whose
    # own jobs are deleted.
    "batches": """
        INSERT INTO batches (id, tenant_id, job_id, status, lines, completed, failed, cancelled, created_at, received_at, finished_at, expires_at)
        SELECT pg_temp.seed_uuid4('batch', n), tenant_id, job_id, 'completed', 10, 10, 0, 0, created_at, created_at, finished_at, now() + interval '1 year'
        FROM seed_jobs
        WHERE finished_at IS NOT NULL AND n %% 100 = 0
        UNION ALL
        SELECT batch_id, tenant_id, NULL, 'completed', count(*), count(*) FILTER (WHERE fate IN ('stored', 'ingested')),
               count(*) FILTER (WHERE fate LIKE '%% failed'), count(*) FILTER (WHERE fate = 'cancelled'),
               min(created_at), min(created_at), max(finished_at), now() + interval '1 year'
        FROM seed_jobs
        WHERE batch_id IS NOT NULL
        GROUP BY batch_id, tenant_id
    """,
    "batch_lines": """
        INSERT INTO batch_lines (batch_id, line, state, source, job_id)
        SELECT pg_temp.seed_uuid4('batch', n), line, 'completed', jsonb_build_object('object_key', 'incoming/' || tenant_id || '/' || line || '.pdf'), NULL
        FROM seed_jobs CROSS JOIN generate_series(1, 10) AS line
        WHERE finished_at IS NOT NULL AND n %% 100 = 0
        UNION ALL
        SELECT batch_id, row_number() OVER (PARTITION BY batch_id ORDER BY n DESC),
               CASE WHEN fate = 'cancelled' THEN 'cancelled' WHEN fate LIKE '%% failed' THEN 'failed' ELSE 'completed' END,
               jsonb_build_object('upload_id', upload_id), job_id
        FROM seed_jobs
        WHERE batch_id IS NOT NULL
    """,
    # Each tenant has one live, one disabled and one deleted endpoint; some uploads have a callback.
    "webhooks": """
        INSERT INTO webhooks (id, tenant_id, upload_id, url, created_at, deleted_at, disabled_at, disabled_reason)
        SELECT CASE kind WHEN 'live' THEN webhook_id ELSE pg_temp.seed_uuid4(kind, k) END, id, NULL,
               'https://' || name || '.invalid/' || kind, now() - %(span)s,
               CASE kind WHEN 'deleted' THEN now() - interval '1 day' END,
               CASE kind WHEN 'disabled' THEN now() - interval '1 day' END,
               CASE kind WHEN 'disabled' THEN 'gone' END
        FROM seed_tenants CROSS JOIN (VALUES ('live'), ('disabled'), ('deleted')) AS kinds (kind)
        UNION ALL
        SELECT pg_temp.seed_uuid4('callback', n), tenant_id, upload_id, 'https://callback.invalid/' || n, created_at, NULL, NULL, NULL
        FROM seed_jobs WHERE draw < 0.1
    """,
    "webhook_secrets": """
        INSERT INTO webhook_secrets (id, webhook_id, scheme, secret, created_at)
        SELECT overlay(webhooks.id::text PLACING 'f' FROM 1)::uuid, webhooks.id, 'v1',
               'whsec_' || encode(sha256(webhooks.id::text::bytea), 'base64'), webhooks.created_at
        FROM webhooks JOIN seed_tenants ON seed_tenants.id = tenant_id
    """,
    "deliveries": """
        INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, upload_id, status, reason, attempts_made, next_attempt_at,
                                created_at, settled_at)
        SELECT waybill_delivery_id(event.event_id, receiver.id), tenant_id, receiver.id, event.event_id, type, upload_id, receiver.status,
               CASE receiver.status WHEN 'discarded' THEN 'endpoint_disabled' END,
               CASE receiver.status WHEN 'exhausted' THEN 3 WHEN 'discarded' THEN 0 ELSE 1 END,
               CASE receiver.status WHEN 'pending' THEN now() + interval '1 year' END,
               at, CASE WHEN receiver.status <> 'pending' THEN at + interval '2 seconds' END
        FROM seed_events AS event
        CROSS JOIN LATERAL (VALUES
            ('endpoint', webhook_id, draw < 0.3, CASE WHEN n <= 100 THEN 'pending' WHEN draw < 0.01 THEN 'exhausted' WHEN draw < 0.015 THEN 'discarded' ELSE 'delivered' END),
            ('callback', pg_temp.seed_uuid4('callback', n), draw < 0.1, 'delivered')
        ) AS receiver (kind, id, is_subscribed, status)
        WHERE type <> 'upload.finalized' AND is_subscribed
    """,
    "delivery_queues": """
        INSERT INTO delivery_queues (webhook_id, tenant_id, due_at)
        SELECT webhooks.id, tenant_id,
               CASE WHEN EXISTS (SELECT FROM deliveries WHERE deliveries.webhook_id = webhooks.id AND status = 'pending')
                    THEN now() + interval '1 year' END
        FROM webhooks JOIN seed_tenants ON seed_tenants.id = tenant_id
    """,
    "attempts": """
        INSERT INTO attempts (delivery_id, number, started_at, duration_us, outcome, status_code, response_excerpt, remote_address)
        SELECT deliveries.id, number, deliveries.created_at, 50000,
               CASE status WHEN 'delivered' THEN 'delivered' ELSE 'throttled' END,
               CASE status WHEN 'delivered' THEN 200 ELSE 503 END, '', '192.0.2.1'
        FROM deliveries
        JOIN seed_tenants ON seed_tenants.id = deliveries.tenant_id
        CROSS JOIN LATERAL generate_series(1, attempts_made) AS number
    """,
    "idempotent_requests": """
        INSERT INTO idempotent_requests (tenant_id, key, operation, request_hash, resource_id, created_at)
        SELECT tenant_id, 'seed-' || n, 'create_upload', sha256(n::text::bytea), upload_id, now() - (now() - seed_jobs.created_at) * %(idempotency_pace)s
        FROM seed_jobs WHERE draw < 0.2
    """,
    "dead_letters": """
        INSERT INTO dead_letters (queue, fingerprint, message_id, event_id, event_type, tenant_id, job_id, body, headers, content_type,
                                  reason, deaths, dead_lettered_at, received_at, state, settled_at)
        SELECT 'notify', sha256(event.event_id::text::bytea), event.event_id::text, event.event_id, event.type, events.tenant_id, events.job_id, body, '{}',
               'application/cloudevents+json', 'rejected', 1, at, at + interval '1 second', state,
               CASE WHEN state <> 'waiting' THEN at + interval '5 minutes' END
        FROM seed_events AS event
        JOIN events ON events.id = event.event_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN n <= 100 THEN 'waiting' WHEN draw < 0.04 THEN 'dropped' ELSE 'replayed' END AS state
        ) AS settled
        WHERE draw < 0.05 AND event.type <> 'upload.finalized'
    """,
    "tenant_usage": """
        INSERT INTO tenant_usage (tenant_id, bytes, open_uploads, staged_bytes)
        SELECT tenant_id,
               coalesce(sum(size) FILTER (WHERE status IN ('open', 'finalized', 'stored')), 0),
               count(*) FILTER (WHERE status = 'open'),
               coalesce(sum(size) FILTER (WHERE status IN ('open', 'finalized')), 0)
        FROM uploads JOIN seed_tenants ON seed_tenants.id = tenant_id
        GROUP BY tenant_id
    """,
    "tenant_steps": """
        INSERT INTO tenant_steps (tenant_id, name, priority, waiting, in_broker, issued, released, finished)
        SELECT tenant_id, steps.name, priority,
               count(*) FILTER (WHERE status = 'waiting'),
               count(*) FILTER (WHERE status IN ('queued', 'running')),
               count(*),
               count(*) FILTER (WHERE status <> 'waiting'),
               count(*) FILTER (WHERE status NOT IN ('waiting', 'queued', 'running'))
        FROM steps JOIN seed_tenants ON seed_tenants.id = tenant_id
        GROUP BY tenant_id, steps.name, priority
    """,
}
"""The statement that fills each table; a table is filled after the tables that it refers to."""
