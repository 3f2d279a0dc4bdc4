"""Passages for search, and their vectors by model.

Documents that were read before have no passages until they are read again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TUNING = """
-- 5,000 of the most common words: their share of the passages tells a rare word from a common one.
ALTER TABLE passages ALTER COLUMN search SET STATISTICS 500;
-- Ranking reads `search` of a thousand passages: in the row, it costs no second look-up.
ALTER TABLE passages SET (toast_tuple_target = 8160, autovacuum_analyze_scale_factor = 0.05);
"""


class HalfVector(UserDefinedType[str]):
    def get_col_spec(self, **_: object) -> str:
        return "halfvec"


def upgrade() -> None:
    # Needs a superuser, unless the extension is there.
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "embedding_models",
        sa.Column("id", sa.SmallInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_embedding_models"),
        sa.UniqueConstraint("name", name="uq_embedding_models_name"),
    )
    op.create_index(
        "ix_embedding_models_active",
        "embedding_models",
        ["state"],
        unique=True,
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "passages",
        *_place_of_a_passage(),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("digest", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("search", postgresql.TSVECTOR(), nullable=False),
        _revision_of("passages"),
        sa.PrimaryKeyConstraint("revision_id", "page", "ordinal", name="pk_passages"),
    )
    op.create_index(
        "ix_passages_search",
        "passages",
        ["search"],
        postgresql_using="gin",
        postgresql_with={"gin_pending_list_limit": 1024},
    )
    op.create_index("ix_passages_tenant", "passages", ["tenant_id"])
    op.execute(TUNING)
    op.create_table(
        "passage_embeddings",
        *_place_of_a_passage(),
        sa.Column("model_id", sa.SmallInteger(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("embedding", HalfVector(), nullable=False),
        _revision_of("passage_embeddings"),
        sa.PrimaryKeyConstraint(
            "revision_id", "page", "ordinal", "model_id", name="pk_passage_embeddings"
        ),
        postgresql_partition_by="LIST (model_id)",
    )
    op.create_index("ix_passage_embeddings_tenant", "passage_embeddings", ["tenant_id"])


def downgrade() -> None:
    # The extension stays: other tables may use it.
    op.drop_table("passage_embeddings")
    op.drop_table("passages")
    op.drop_table("embedding_models")


def _place_of_a_passage() -> "list[sa.Column[object]]":
    return [
        sa.Column("revision_id", sa.Uuid(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
    ]


def _revision_of(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["revision_id"], ["revisions.id"], name=f"fk_{table}_revision_id", ondelete="CASCADE"
    )
