"""The trigger on uploads counts a tenant's usage at every change."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, func, select, update
from sqlalchemy.orm import Session

from schemas.ids import TenantId
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.settings import DatabaseSettings
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload
from tests.factories.abandoned import add_abandoned_upload

NOTHING = (0, 0, 0)
OPEN = (12, 1, 12)
FINALIZED = (12, 0, 12)
STORED = (12, 0, 0)


@pytest.fixture
def session(database: DatabaseSettings) -> Iterator[Session]:
    engine = create_engine(database.database_url.get_secret_value())
    with Session(engine) as session:
        yield session
    engine.dispose()


def used_by(session: Session, tenant_id: TenantId) -> tuple[int, int, int]:
    usage = session.get_one(TenantUsage, tenant_id, populate_existing=True)
    return usage.bytes, usage.open_uploads, usage.staged_bytes


def test_an_upload_counts_from_its_creation_until_its_deletion(session: Session) -> None:
    upload = add_abandoned_upload(session)
    assert used_by(session, upload.tenant_id) == OPEN
    session.execute(update(Upload).values(status=UploadStatus.FINALIZED))
    assert used_by(session, upload.tenant_id) == FINALIZED
    session.execute(update(Upload).values(status=UploadStatus.STORED))
    assert used_by(session, upload.tenant_id) == STORED
    session.execute(update(Upload).values(size=7, filename="b"))
    assert used_by(session, upload.tenant_id) == (7, 0, 0)
    session.execute(delete(Upload))
    assert used_by(session, upload.tenant_id) == NOTHING


@pytest.mark.parametrize(
    "status", [UploadStatus.FAILED, UploadStatus.CANCELLED, UploadStatus.EXPIRED]
)
def test_an_upload_that_ended_without_an_object_counts_nothing(
    session: Session, status: UploadStatus
) -> None:
    upload = add_abandoned_upload(session)
    session.execute(update(Upload).values(status=status))

    assert used_by(session, upload.tenant_id) == NOTHING


def test_a_reference_has_no_staged_bytes(session: Session) -> None:
    upload = add_abandoned_upload(
        session, staging=StagingKind.REFERENCE, status=UploadStatus.FINALIZED
    )
    assert used_by(session, upload.tenant_id) == STORED


@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.fixed_dictionaries(
                {},
                optional={
                    "status": st.sampled_from(UploadStatus),
                    "size": st.integers(0, 100),
                    "staging": st.sampled_from(StagingKind),
                },
            ).filter(bool),
        ),
        max_size=20,
    )
)
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_counters_equal_the_sums_after_any_changes(
    session: Session, changes: list[tuple[int, dict[str, Any]]]
) -> None:
    uploads = [add_abandoned_upload(session) for _ in range(3)]
    for index, values in changes:
        session.execute(update(Upload).where(Upload.id == uploads[index].id).values(**values))

    for upload in uploads:
        is_staged = Upload.status.in_(["open", "finalized"]) & (Upload.staging != "reference")
        sums = session.execute(
            select(
                func.sum(Upload.size).filter(Upload.status.in_(["open", "finalized", "stored"])),
                func.count().filter(Upload.status == "open"),
                func.sum(Upload.size).filter(is_staged),
            ).where(Upload.tenant_id == upload.tenant_id)
        ).one()
        assert used_by(session, upload.tenant_id) == tuple(value or 0 for value in sums)
    session.rollback()


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
