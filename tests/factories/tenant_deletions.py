"""Tenants with rows in every table, and the order to delete one of them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from dev.seed.extent import Extent
from dev.seed.load import TENANTS, seed
from schemas.ids import TenantId
from schemas.lifecycle import JobStatus
from schemas.settings import DatabaseSettings
from schemas.tables import tenant_rows
from schemas.tables.deliveries import FanOut
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.tenant_deletions import TenantDeletion
from schemas.tables.tenants import ApiKey, Tenant
from tests.factories.embedding_models import add_model

EXTENT: Final = Extent(rows=200, tenants=3)
PASSAGES: Final = """
    INSERT INTO passages (revision_id, page, ordinal, tenant_id, document_id, kind, start, "end", digest, tokens, search)
    SELECT id, pages.number, 0, tenant_id, document_id, 'text', 0, 9, md5(pages.text)::uuid, 3, 'word'
    FROM pages JOIN revisions ON id = revision_id
"""
VECTORS: Final = """
    INSERT INTO passage_embeddings (revision_id, page, ordinal, model_id, tenant_id, document_id, embedding)
    SELECT revision_id, page, ordinal, :model_id, tenant_id, document_id, '[1]' FROM passages
"""
LONG_SINCE: Final = timedelta(hours=1)
"""Longer than a lease: nothing waits for the workers of the tenant."""


def seeded_tenants(database: DatabaseSettings, engine: Engine) -> list[TenantId]:
    """Add tenants with rows in every table and return them, the largest first; no worker has a lease."""
    seed(database.database_url.get_secret_value(), EXTENT)
    with Session(engine) as session, session.begin():
        session.execute(text("UPDATE steps SET lease_until = now() - interval '1 minute'"))
        tenants = list(session.scalars(select(Tenant.id).where(TENANTS).order_by(Tenant.name)))
        for number, tenant_id in enumerate(tenants):
            session.add(
                ApiKey(id=tenant_id, tenant_id=tenant_id, key_hash=bytes([number]) * 32, scopes=[])
            )
            event_id = session.scalar(
                select(EventRecord.id).where(EventRecord.tenant_id == tenant_id).limit(1)
            )
            session.add(FanOut(tenant_id=tenant_id, event_id=event_id, reached=tenant_id))
            # A trigger deletes the password of a job that ends.
            upload_id = session.scalar(
                select(Job.upload_id)
                .where(Job.tenant_id == tenant_id, Job.status == JobStatus.COMPLETED)
                .limit(1)
            )
            session.add(DocumentPassword(upload_id=upload_id, secret="encrypted"))  # noqa: S106  # no password
        session.execute(text(PASSAGES))
        session.execute(text(VECTORS), {"model_id": add_model(session, dimension=1)})
    return tenants


def order_deletion(engine: Engine, tenant_id: TenantId, *, ago: timedelta = LONG_SINCE) -> None:
    """Order the deletion of a tenant, as the command does."""
    with Session(engine) as session, session.begin():
        session.add(
            TenantDeletion(
                tenant_id=tenant_id,
                name=session.get_one(Tenant, tenant_id).name,
                requested_by="tests",
                requested_at=func.now() - ago,
            )
        )


def rows_of(engine: Engine, tenant_id: TenantId) -> Mapping[str, int]:
    """Return the number of rows of a tenant, by table."""
    with Session(engine) as session:
        return {
            table.name: session.execute(tenant_rows.count(table, tenant_id)).scalar_one()
            for table in tenant_rows.tables()
        }


def deletion_of(engine: Engine, tenant_id: TenantId) -> TenantDeletion:
    with Session(engine) as session:
        return session.get_one(TenantDeletion, tenant_id)
