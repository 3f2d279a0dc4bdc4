"""The trigger on uploads counts a tenant's usage at every change."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, delete, select, update
from sqlalchemy.orm import Session

from schemas.ids import TenantId
from schemas.lifecycle import UploadStatus
from schemas.settings import DatabaseSettings
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload
from tests.factories.abandoned import add_abandoned_upload

NOTHING = (0, 0)
OPEN = (12, 1)
STORED = (12, 0)


@pytest.fixture
def session(database: DatabaseSettings) -> Iterator[Session]:
    engine = create_engine(database.database_url.get_secret_value())
    with Session(engine) as session:
        yield session
    engine.dispose()


def used_by(session: Session, tenant_id: TenantId) -> tuple[int, int]:
    usage = session.get_one(TenantUsage, tenant_id, populate_existing=True)
    return usage.bytes, usage.open_uploads


def test_an_upload_counts_from_its_creation_until_its_deletion(session: Session) -> None:
    upload = add_abandoned_upload(session)
    assert used_by(session, upload.tenant_id) == OPEN
    session.execute(update(Upload).values(status=UploadStatus.STORED))
    assert used_by(session, upload.tenant_id) == STORED
    session.execute(update(Upload).values(size=7, filename="b"))
    assert used_by(session, upload.tenant_id) == (7, 0)
    session.execute(delete(Upload))
    assert used_by(session, upload.tenant_id) == NOTHING


def test_an_upload_counts_for_its_current_tenant(session: Session) -> None:
    before = add_abandoned_upload(session).tenant_id
    after = TenantId(uuid4())
    session.add(Tenant(id=after, name=str(after)))
    session.flush()

    session.execute(update(Upload).values(tenant_id=after))
    assert (used_by(session, before), used_by(session, after)) == (NOTHING, OPEN)

    session.execute(update(Upload).values(tenant_id=before, status=UploadStatus.STORED))
    assert (used_by(session, before), used_by(session, after)) == (STORED, NOTHING)
    assert len(session.scalars(select(TenantUsage)).all()) == 2
