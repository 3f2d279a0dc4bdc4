"""Revisions of documents, pages with outcomes; sentences as offsets instead of passages.

Code of the earlier version does not run on these tables, nor this version on the earlier tables: stop every process,
migrate, then start this version. A document that was read becomes revision 1, published. Work that has not ended goes
on: an open step `ingest` reads its document from the first page.

The downgrade keeps the published revision of each document. It removes the jobs that read a document again, and reads
a document from the first page if its reading had gone on to a step that the earlier version does not have.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

RANDOM_UUID7 = """
CREATE FUNCTION pg_temp.waybill_random_uuid7(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (left(waybill_first_uuid7(at)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid
$$;
"""

CODES = """
CREATE FUNCTION pg_temp.waybill_new_code(code text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE code WHEN 'pdf_limit_exceeded' THEN 'document_limit' ELSE regexp_replace(code, '^pdf_', 'document_') END
$$;

CREATE FUNCTION pg_temp.waybill_outcome(code text, timeout text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE code
        WHEN 'pdf_empty' THEN 'empty'
        WHEN 'pdf_corrupt' THEN 'corrupt'
        WHEN 'pdf_encrypted' THEN 'encrypted'
        WHEN 'pdf_limit_exceeded' THEN 'limit_page_content'
        WHEN 'pdf_timeout' THEN timeout
        WHEN 'pdf_out_of_memory' THEN 'out_of_memory'
        WHEN 'pdf_crashed' THEN 'crashed'
    END
$$;
"""

OLD_CODES = """
CREATE FUNCTION pg_temp.waybill_old_code(code text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE code
        WHEN 'document_limit' THEN 'pdf_limit_exceeded'
        WHEN 'document_quarantined' THEN 'pdf_crashed'
        WHEN 'document_duplicate' THEN 'pdf_corrupt'
        WHEN 'document_not_found' THEN code
        WHEN 'document_not_ready' THEN code
        ELSE regexp_replace(code, '^document_', 'pdf_')
    END
$$;

CREATE FUNCTION pg_temp.waybill_page_code(outcome text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN outcome IN ('corrupt', 'encrypted', 'out_of_memory', 'crashed', 'empty') THEN 'pdf_' || outcome
        WHEN outcome = 'quarantined' THEN 'pdf_crashed'
        WHEN outcome LIKE 'timeout_%' THEN 'pdf_timeout'
        WHEN outcome = 'limit_page_content' THEN 'pdf_limit_exceeded'
    END
$$;
"""

MOVE_OLD = """
ALTER TABLE pages RENAME TO old_pages;
ALTER TABLE old_pages DROP CONSTRAINT fk_pages_document_id;
ALTER TABLE old_pages RENAME CONSTRAINT pk_pages TO pk_old_pages;
ALTER TABLE entities RENAME TO old_entities;
ALTER TABLE old_entities DROP CONSTRAINT fk_entities_document_id;
ALTER TABLE old_entities RENAME CONSTRAINT pk_entities TO pk_old_entities;
DROP INDEX ix_entities_label;
"""

# Which limit cut an earlier document short is not recorded, except that pages are missing.
COPY_DOCUMENTS = """
INSERT INTO revisions (id, document_id, tenant_id, job_id, number, pipeline_version, state, outcome, reasons,
                       page_count, pages_read, pages_failed, pages_no_text, language, title, metadata, truncated,
                       passages, entities, created_at, published_at)
SELECT pg_temp.waybill_random_uuid7(coalesce(ingested_at, created_at)), id, tenant_id, job_id, 1, '1', 'published',
       CASE WHEN truncated OR with_error > 0 THEN 'partial' WHEN with_text = 0 THEN 'no_text' ELSE 'complete' END,
       '[]', page_count, rows - failed, failed, rows - failed - with_text, language, pdf_metadata ->> 'title', pdf_metadata,
       truncated, coalesce(found.passages, 0), coalesce(found.entities, 0), coalesce(ingested_at, created_at),
       coalesce(ingested_at, created_at)
FROM documents
CROSS JOIN LATERAL (
    SELECT count(*) AS rows,
           count(*) FILTER (WHERE error_code IS NOT NULL) AS with_error,
           count(*) FILTER (WHERE error_code IS NOT NULL AND text = '') AS failed,
           count(*) FILTER (WHERE text <> '') AS with_text
    FROM old_pages WHERE document_id = documents.id
) AS pages
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM passages WHERE document_id = documents.id) AS passages,
           (SELECT count(*) FROM old_entities WHERE document_id = documents.id) AS entities
) AS found
WHERE status = 'ingested';

INSERT INTO pages (revision_id, number, status, outcome, reason, text, engine, width_points, height_points, sentences)
SELECT revisions.id, old.number,
       CASE WHEN error_code IS NOT NULL AND old.text = '' THEN 'failed' ELSE 'read' END,
       coalesce(pg_temp.waybill_outcome(error_code, 'timeout_page'), CASE WHEN old.text = '' THEN 'no_text' ELSE 'complete' END),
       CASE WHEN error_code IS NULL THEN '' ELSE 'This page could not be read as a whole.' END,
       old.text, 'pypdf', width_points, height_points,
       ARRAY(
           SELECT bound::integer
           FROM passages CROSS JOIN LATERAL (VALUES (0, start), (1, "end")) AS bounds (position, bound)
           WHERE passages.document_id = old.document_id AND page = old.number
           ORDER BY ordinal, position
       )
FROM old_pages AS old
JOIN revisions ON revisions.document_id = old.document_id;

INSERT INTO entities (revision_id, page, ordinal, label, text, normal_form, start, "end")
SELECT revisions.id, page, ordinal, label, old.text, normal_form, start, "end"
FROM old_entities AS old
JOIN revisions ON revisions.document_id = old.document_id;

UPDATE revisions SET reasons = found.reasons
FROM (
    SELECT revision_id, jsonb_agg(jsonb_build_object(
        'outcome', outcome, 'pages', ranges, 'page_count', page_count, 'reason', reason
    ) ORDER BY outcome) AS reasons
    FROM (
        SELECT revision_id, outcome, reason, sum(last - first + 1) AS page_count,
               jsonb_agg(jsonb_build_array(first, last) ORDER BY first) FILTER (WHERE position <= 50) AS ranges
        FROM (
            SELECT revision_id, outcome, reason, min(number) AS first, max(number) AS last,
                   row_number() OVER (PARTITION BY revision_id, outcome ORDER BY min(number)) AS position
            FROM (
                SELECT revision_id, outcome, reason, number,
                       number - row_number() OVER (PARTITION BY revision_id, outcome ORDER BY number) AS island
                FROM pages WHERE reason <> ''
            ) AS missing
            GROUP BY revision_id, outcome, reason, island
        ) AS ranges
        GROUP BY revision_id, outcome, reason
    ) AS grouped
    GROUP BY revision_id
) AS found
WHERE found.revision_id = revisions.id;

UPDATE revisions SET reasons = reasons || jsonb_build_object(
    'outcome', CASE WHEN page_count > rows THEN 'limit_pages' ELSE 'limit_text' END,
    'pages', CASE WHEN page_count > rows THEN jsonb_build_array(jsonb_build_array(rows + 1, page_count)) ELSE '[]' END,
    'page_count', greatest(page_count - rows, 0),
    'reason', 'A limit cut the text short.'
)
FROM (SELECT revision_id, count(*) AS rows FROM pages GROUP BY revision_id) AS counted
WHERE counted.revision_id = revisions.id AND truncated;

UPDATE documents SET revision_id = revisions.id, outcome = revisions.outcome,
                     status = CASE revisions.outcome WHEN 'partial' THEN 'partial' ELSE status END
FROM revisions WHERE revisions.document_id = documents.id;

UPDATE documents SET outcome = pg_temp.waybill_outcome(error_code, 'timeout_document'),
                     error_code = pg_temp.waybill_new_code(error_code)
WHERE status = 'failed';

UPDATE documents SET status = 'reading'
FROM steps
WHERE steps.job_id = documents.job_id AND steps.name = 'ingest' AND steps.status IN ('waiting', 'queued', 'running')
  AND documents.status = 'stored';
"""

# `done` was progress that no transaction had kept; from now on it counts pages that are written.
CHANGE_STEPS = """
UPDATE steps SET ordinal = 2 WHERE name = 'ingest';
UPDATE steps SET done = 0, done_at_claim = 0 WHERE name = 'ingest' AND status IN ('waiting', 'queued', 'running');
UPDATE steps SET error_code = pg_temp.waybill_new_code(error_code) WHERE error_code LIKE 'pdf\\_%';
"""

RESTORE_DOCUMENTS = """
UPDATE documents SET
    page_count = revisions.page_count, language = revisions.language, truncated = revisions.truncated,
    pdf_metadata = coalesce(revisions.metadata, '{}')
FROM revisions WHERE revisions.id = documents.revision_id AND state = 'published';

UPDATE documents SET status = CASE status WHEN 'reading' THEN 'stored' ELSE 'ingested' END
WHERE status IN ('reading', 'partial');

UPDATE documents SET error_code = pg_temp.waybill_old_code(error_code) WHERE error_code LIKE 'document\\_%';

INSERT INTO old_pages (document_id, number, text, error_code, width_points, height_points)
SELECT documents.id, pages.number, pages.text,
       pg_temp.waybill_page_code(pages.outcome), width_points, height_points
FROM pages
JOIN revisions ON revisions.id = revision_id AND state = 'published'
JOIN documents ON documents.revision_id = revisions.id;

INSERT INTO passages (document_id, page, ordinal, start, "end", text)
SELECT documents.id, pages.number, position / 2, sentences[position + 1], sentences[position + 2],
       substr(pages.text, sentences[position + 1] + 1, sentences[position + 2] - sentences[position + 1])
FROM pages
JOIN revisions ON revisions.id = revision_id AND state = 'published'
JOIN documents ON documents.revision_id = revisions.id
CROSS JOIN LATERAL generate_series(0, cardinality(sentences) - 2, 2) AS position;

INSERT INTO old_entities (document_id, page, ordinal, label, text, normal_form, start, "end")
SELECT documents.id, page, ordinal, label, text, normal_form, start, "end"
FROM entities
JOIN revisions ON revisions.id = revision_id AND state = 'published'
JOIN documents ON documents.revision_id = revisions.id;
"""

RESTORE_STEPS = """
DELETE FROM jobs WHERE kind = 'reprocess';

-- The pages that are written so far are lost.
WITH begun AS (
    SELECT DISTINCT job_id FROM steps
    WHERE name IN ('ingest_rest', 'ocr') AND status IN ('waiting', 'queued', 'running')
), again AS (
    UPDATE steps SET status = 'queued', done = 0, done_at_claim = 0, finished_at = NULL, overdue_at = now() + interval '5 minutes'
    FROM begun
    WHERE steps.job_id = begun.job_id AND steps.name = 'ingest'
    RETURNING steps.event_id
)
INSERT INTO outbox (event_id, queue) SELECT event_id, 'document_processing' FROM again;

UPDATE steps SET done = 0, done_at_claim = 0 WHERE name = 'ingest' AND status IN ('waiting', 'queued', 'running');

-- A job that failed in a step of this version failed in its reading.
UPDATE steps SET status = failed.status, error_code = failed.error_code, error_detail = failed.error_detail,
                 error_retryable = failed.error_retryable, finished_at = failed.finished_at
FROM steps AS failed
WHERE failed.job_id = steps.job_id AND failed.name IN ('ingest_rest', 'ocr') AND failed.status IN ('failed', 'cancelled')
  AND steps.name = 'ingest';

DELETE FROM steps WHERE name IN ('metadata', 'ingest_rest', 'ocr');
DELETE FROM tenant_steps WHERE name IN ('metadata', 'ingest_rest', 'ocr');
UPDATE steps SET ordinal = 1 WHERE name = 'ingest';
UPDATE steps SET error_code = pg_temp.waybill_old_code(error_code) WHERE error_code LIKE 'document\\_%';

UPDATE jobs SET status = 'completed', stage = 'done', finished_at = now(), revision = revision + 1, updated_at = now()
WHERE stage = 'metadata'
  AND NOT EXISTS (SELECT FROM steps WHERE steps.job_id = jobs.id AND steps.status <> 'completed');
UPDATE jobs SET stage = 'ingest' WHERE stage IN ('metadata', 'ingest_rest', 'ocr');
"""


def upgrade() -> None:
    op.execute(RANDOM_UUID7)
    op.execute(CODES)
    op.add_column("documents", sa.Column("outcome", sa.Text(), nullable=True))
    op.add_column("documents", sa.Column("revision_id", sa.Uuid(), nullable=True))
    _create_revisions()
    op.execute(MOVE_OLD)
    _create_pages()
    op.execute(COPY_DOCUMENTS)
    op.execute(CHANGE_STEPS)
    op.drop_table("passages")
    op.drop_table("old_pages")
    op.drop_table("old_entities")
    for column in ("page_count", "language", "truncated", "pdf_metadata"):
        op.drop_column("documents", column)
    # After the rows, which then takes half the time.
    op.create_index("ix_documents_content", "documents", ["tenant_id", "sha256"])
    op.create_index("ix_entities_label", "entities", ["revision_id", "label", "page", "ordinal"])


def downgrade() -> None:
    op.execute(OLD_CODES)
    op.add_column("documents", sa.Column("page_count", sa.BigInteger(), nullable=True))
    op.add_column("documents", sa.Column("language", sa.Text(), nullable=True))
    op.add_column(
        "documents",
        sa.Column("truncated", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.alter_column("documents", "truncated", server_default=None)
    op.add_column(
        "documents",
        sa.Column(
            "pdf_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )
    _create_old_pages()
    op.execute(RESTORE_DOCUMENTS)
    op.drop_table("entities")
    op.drop_table("pages")
    op.drop_table("revisions")
    op.drop_index("ix_documents_content", table_name="documents")
    op.drop_column("documents", "revision_id")
    op.drop_column("documents", "outcome")
    op.execute(RESTORE_STEPS)
    _name_old_pages()


def _create_revisions() -> None:
    op.create_table(
        "revisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("pipeline_version", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        _json_list("reasons"),
        sa.Column("page_count", sa.Integer(), nullable=True),
        _count("pages_read"),
        _count("pages_ocr"),
        _count("pages_failed"),
        _count("pages_needs_ocr"),
        _count("pages_no_text"),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("language_confidence", sa.REAL(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), nullable=True),
        sa.Column("outline", postgresql.JSONB(), nullable=True),
        sa.Column("attachments", postgresql.JSONB(), nullable=True),
        sa.Column("page_labels", postgresql.JSONB(), nullable=True),
        _flag("structure_is_cut"),
        _flag("has_thumbnail"),
        _json_list("key_phrases"),
        _flag("truncated"),
        _count("warnings"),
        _count("passages"),
        _count("entities"),
        sa.Column("reused_from", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("fk_revisions_document_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_revisions_job_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_revisions_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint("document_id", "number", name=op.f("uq_revisions_document_id_number")),
        sa.UniqueConstraint("job_id", name=op.f("uq_revisions_job_id")),
    )
    op.create_index(
        "ix_revisions_unpublished",
        "revisions",
        ["created_at"],
        postgresql_where=sa.text("state <> 'published'"),
    )


def _create_pages() -> None:
    op.create_table(
        "pages",
        sa.Column("revision_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        _text("reason"),
        sa.Column("text", sa.Text(), nullable=False),
        _text("engine"),
        _text("engine_version"),
        _text("engine_reason"),
        sa.Column("confidence", sa.REAL(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("language_confidence", sa.REAL(), nullable=True),
        sa.Column("width_points", sa.REAL(), nullable=True),
        sa.Column("height_points", sa.REAL(), nullable=True),
        _integers("sentences"),
        _integers("lines"),
        _integers("spans"),
        sa.ForeignKeyConstraint(
            ["revision_id"],
            ["revisions.id"],
            name=op.f("fk_pages_revision_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("revision_id", "number", name=op.f("pk_pages")),
    )
    op.create_table(
        "entities",
        sa.Column("revision_id", sa.Uuid(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("normal_form", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["revision_id"],
            ["revisions.id"],
            name=op.f("fk_entities_revision_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("revision_id", "page", "ordinal", name=op.f("pk_entities")),
    )


def _create_old_pages() -> None:
    op.create_table(
        "old_pages",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("width_points", sa.Float(), nullable=True),
        sa.Column("height_points", sa.Float(), nullable=True),
    )
    op.create_table(
        "old_entities",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("normal_form", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "passages",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("page", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed("to_tsvector('simple', left(text, 100000))", persisted=True),
            nullable=False,
        ),
    )


def _name_old_pages() -> None:
    """Give the restored tables their names, keys and indexes."""
    op.rename_table("old_pages", "pages")
    op.rename_table("old_entities", "entities")
    keys = {
        "pages": ["document_id", "number"],
        "passages": ["document_id", "page", "ordinal"],
        "entities": ["document_id", "page", "ordinal"],
    }
    for table, columns in keys.items():
        op.create_primary_key(op.f(f"pk_{table}"), table, columns)
        op.create_foreign_key(
            op.f(f"fk_{table}_document_id"),
            table,
            "documents",
            ["document_id"],
            ["id"],
            ondelete="CASCADE",
        )
    op.create_index("ix_entities_label", "entities", ["document_id", "label", "page", "ordinal"])
    op.create_index("ix_passages_search", "passages", ["search"], postgresql_using="gin")


def _count(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)


def _flag(name: str) -> "sa.Column[bool]":
    return sa.Column(name, sa.Boolean(), server_default=sa.text("false"), nullable=False)


def _text(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), server_default="", nullable=False)


def _json_list(name: str) -> "sa.Column[object]":
    return sa.Column(
        name, postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False
    )


def _integers(name: str) -> "sa.Column[object]":
    return sa.Column(
        name,
        postgresql.ARRAY(sa.Integer()),
        server_default=sa.text("'{}'::integer[]"),
        nullable=False,
    )
