"""Passwords of documents, deleted with the end of the work that needs them."""

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

NO_TRIGGERS = """
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


def downgrade() -> None:
    op.execute(NO_TRIGGERS)
    op.drop_table("document_passwords")
