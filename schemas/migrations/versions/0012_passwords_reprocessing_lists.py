"""Passwords of documents, jobs that read a document again, indexes of lists, refused duplicates.

Passwords are deleted with the end of the work that needs them.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

TRIGGERS = """
-- The job of an upload, or a job that reads its document again. At the commit: a transaction that
-- completes a step and adds the next one ends the job for a moment.
CREATE FUNCTION waybill_forget_password_of_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM document_passwords USING jobs
    WHERE (document_passwords.upload_id = NEW.upload_id OR document_passwords.job_id = NEW.id)
      AND jobs.id = NEW.id AND jobs.status IN ('completed', 'failed', 'cancelled');
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER forget_password_of_job AFTER UPDATE OF status ON jobs
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (OLD.status <> NEW.status AND NEW.status IN ('completed', 'failed', 'cancelled'))
EXECUTE FUNCTION waybill_forget_password_of_job();

-- Only of an upload without a job. The other trigger deletes the password of a job, after every lock of
-- the transaction: here it would be locked before the steps, which could end in a deadlock.
CREATE FUNCTION waybill_forget_password_of_upload() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM document_passwords WHERE upload_id = NEW.id;
    RETURN NULL;
END $$;

CREATE TRIGGER forget_password_of_upload AFTER UPDATE OF status ON uploads
FOR EACH ROW WHEN (OLD.status = 'open' AND NEW.status IN ('failed', 'cancelled', 'expired'))
EXECUTE FUNCTION waybill_forget_password_of_upload();
"""

# The language of the revision that clients see. Not the other way round, at a change of the revision:
# a transaction locks a document before its revisions.
LANGUAGE = """
CREATE FUNCTION waybill_copy_language() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.language := (SELECT language FROM revisions WHERE id = NEW.revision_id);
    RETURN NEW;
END $$;

CREATE TRIGGER copy_language BEFORE INSERT OR UPDATE OF revision_id ON documents
FOR EACH ROW EXECUTE FUNCTION waybill_copy_language();

UPDATE documents SET language = revisions.language
FROM revisions WHERE revisions.id = documents.revision_id AND revisions.language IS NOT NULL;
"""

MEDIA_TYPE = "lower(btrim(split_part(content_type, ';', 1)))"

LISTS: dict[str, list[Any]] = {
    "ix_documents_status": ["tenant_id", "status", "created_at", "id"],
    "ix_documents_outcome": ["tenant_id", "outcome", "created_at", "id"],
    "ix_documents_language": ["tenant_id", "language", "created_at", "id"],
    "ix_documents_media_type": ["tenant_id", sa.text(MEDIA_TYPE), "created_at", "id"],
    "ix_documents_filename": ["tenant_id", "filename", "id"],
}

NO_TRIGGERS = """
DROP TRIGGER copy_language ON documents;
DROP FUNCTION waybill_copy_language();
DROP TRIGGER forget_password_of_upload ON uploads;
DROP FUNCTION waybill_forget_password_of_upload();
DROP TRIGGER forget_password_of_job ON jobs;
DROP FUNCTION waybill_forget_password_of_job();
"""


def upgrade() -> None:
    op.create_table(
        "document_passwords",
        sa.Column("upload_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.PrimaryKeyConstraint("upload_id", name="pk_document_passwords"),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["uploads.id"],
            name="fk_document_passwords_upload_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_document_passwords_job_id", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_document_passwords_job_id",
        "document_passwords",
        ["job_id"],
        postgresql_where=sa.text("job_id IS NOT NULL"),
    )
    op.execute(TRIGGERS)
    op.add_column("documents", sa.Column("language", sa.Text(), nullable=True))
    op.execute(LANGUAGE)
    # By code points: an index then finds the names with a prefix. No row is rewritten.
    op.execute('ALTER TABLE documents ALTER COLUMN filename TYPE text COLLATE "C"')
    for name, columns in LISTS.items():
        op.create_index(name, "documents", columns)
    op.add_column("jobs", sa.Column("document_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_jobs_open_of_document",
        "jobs",
        ["document_id"],
        unique=True,
        postgresql_where=sa.text("document_id IS NOT NULL AND status IN ('queued', 'processing')"),
    )
    op.add_column(
        "tenants",
        sa.Column(
            "refuses_duplicates", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
    )


def downgrade() -> None:
    op.drop_column("tenants", "refuses_duplicates")
    op.drop_index("ix_jobs_open_of_document", table_name="jobs")
    op.drop_column("jobs", "document_id")
    for name in LISTS:
        op.drop_index(name, table_name="documents")
    op.execute('ALTER TABLE documents ALTER COLUMN filename TYPE text COLLATE "default"')
    op.execute(NO_TRIGGERS)
    op.drop_column("documents", "language")
    op.drop_table("document_passwords")
