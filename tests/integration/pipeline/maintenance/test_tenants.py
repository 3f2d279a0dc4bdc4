"""The deletion of a tenant: its rows, its objects and its staged files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance import tenant_rows as deletion_of_rows
from pipeline.maintenance import tenants
from pipeline.maintenance.tenants import Summary
from schemas import object_keys, staging_layout
from schemas.errors import StoreUnavailable
from schemas.events.examples import example_of
from schemas.ids import ExportId, RevisionId, TenantId, UploadId
from schemas.lifecycle import JobStatus, StepStatus, UploadStatus
from schemas.settings import DatabaseSettings
from schemas.steps import StepName
from schemas.tables import tenant_rows as table_rows
from schemas.tables.audit import AuditEntry
from schemas.tables.documents import Document, Revision
from schemas.tables.events import emit
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.tables.tenant_deletions import TenantDeletion
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook
from tests.factories.tenant_deletions import (
    deletion_of,
    order_deletion,
    rows_of,
    seeded_tenants,
)
from tests.factories.uploads import add_tenant
from tests.fakes.storage import Call, FakeStorage, raising
from tests.integration.pipeline.maintenance.leftovers import (
    LONG_AGO,
    begin,
    change_transfer,
    keys,
    open_multiparts,
    put,
    transferring,
    without_grace,
)

MAX_TIME = timedelta(minutes=1)
KILLS = 20


class Killed(BaseException):
    """The worker dies."""


def sweep(context: Context, *, max_time: timedelta = MAX_TIME) -> Summary:
    return tenants.sweep(context, max_time=max_time)


def staged_file(context: Context, upload_id: UploadId) -> Path:
    assert context.settings.staging_dir is not None
    return staging_layout.file_of(context.settings.staging_dir, upload_id)


def add_objects(context: Context, tenant_id: TenantId) -> list[Path]:
    """Store what a tenant can have outside the database; return its staged files."""
    with Session(context.engine) as session:
        documents = session.execute(
            select(Document.object_key, Document.upload_id).where(Document.tenant_id == tenant_id)
        ).all()
        revisions = session.execute(
            select(Revision.id, Document.upload_id)
            .join(Document, Document.id == Revision.document_id)
            .where(Document.tenant_id == tenant_id)
        ).all()
        open_uploads = session.scalars(
            select(Upload.id).where(
                Upload.tenant_id == tenant_id, Upload.status == UploadStatus.OPEN
            )
        ).all()
    for document in documents:
        put(context, document.object_key)
    for revision in revisions:
        put(context, object_keys.thumbnail(revision.upload_id, revision.id))
        put(context, object_keys.page_image(revision.upload_id, revision.id, number=2))
    put(context, f"{object_keys.incoming(tenant_id)}file.pdf")
    put(context, object_keys.export_file(tenant_id, ExportId(uuid4()), attempt=uuid4()))
    put(
        context,
        staging_layout.chunk_key(tenant_id, UploadId(uuid4()), index=0, sha256=bytes(32)),
    )
    begin(context, object_keys.original(tenant_id, UploadId(uuid4())))
    files = [staged_file(context, upload_id) for upload_id in open_uploads]
    for file in files:
        file.write_bytes(b"good")
    return files


@pytest.fixture
def seeded(context: Context, database: DatabaseSettings) -> list[TenantId]:
    """Tenants with rows in every table, the largest first."""
    return seeded_tenants(database, context.engine)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_of_rows, "ROWS", 7)
    monkeypatch.setattr(deletion_of_rows, "PARENTS", 5)
    monkeypatch.setattr(tenants, "BATCH", 5)
    monkeypatch.setattr(tenants, "OBJECTS", 7)


def test_nothing_of_a_deleted_tenant_is_left_and_others_keep_everything(
    context: Context, seeded: list[TenantId]
) -> None:
    deleted, *others = seeded
    files_of_others = [file for each in others for file in add_objects(context, each)]
    objects_of_others, multiparts_of_others = keys(context), open_multiparts(context)
    files = add_objects(context, deleted)
    objects = len(keys(context)) - len(objects_of_others)
    before = rows_of(context.engine, deleted)
    rows_of_others = [rows_of(context.engine, each) for each in others]
    assert files
    assert [name for name, rows in before.items() if not rows] == []
    order_deletion(context.engine, deleted)

    assert sweep(context) == Summary(finished=1)

    assert set(rows_of(context.engine, deleted).values()) == {0}
    assert not any(file.exists() for file in files)
    assert [rows_of(context.engine, each) for each in others] == rows_of_others
    assert (keys(context), open_multiparts(context)) == (objects_of_others, multiparts_of_others)
    assert all(file.exists() for file in files_of_others)
    deletion = deletion_of(context.engine, deleted)
    assert deletion.finished_at is not None
    assert deletion.rows == before
    assert deletion.objects == objects + 1
    with Session(context.engine) as session:
        entry = session.scalars(
            select(AuditEntry).where(AuditEntry.target == f"tenant/{deleted}")
        ).one()
    assert (entry.actor, entry.action) == ("tests", "tenant.deleted")
    assert entry.detail["objects"] == deletion.objects
    assert sweep(context) == Summary()


@pytest.mark.usefixtures("small_batches")
def test_a_deletion_that_is_killed_at_random_ends_with_nothing_left(
    context: Context, seeded: list[TenantId]
) -> None:
    deleted, *others = seeded
    for each in others:
        add_objects(context, each)
    objects_of_others = keys(context)
    files = add_objects(context, deleted)
    before = rows_of(context.engine, deleted)
    rows_of_others = [rows_of(context.engine, each) for each in others]
    order_deletion(context.engine, deleted)
    random = Random(51)

    for _ in range(KILLS):
        lives = random.randint(1, 25)
        with mortal(context, lives=lives, random=random) as killed, pytest.raises(Killed):
            sweep(killed)
    assert sweep(context) == Summary(finished=1)

    assert set(rows_of(context.engine, deleted).values()) == {0}
    assert not any(file.exists() for file in files)
    assert [rows_of(context.engine, each) for each in others] == rows_of_others
    assert keys(context) == objects_of_others
    # Each row is counted once, in the transaction that deletes it.
    deletion = deletion_of(context.engine, deleted)
    assert deletion.rows == before


@contextmanager
def mortal(context: Context, *, lives: int, random: Random) -> Iterator[Context]:
    """Yield a context whose process dies at its nth transaction or request to the store.

    It dies before the transaction or request, or after it.
    """
    storage = context.storage
    assert isinstance(storage, FakeStorage)
    left = lives
    dies_before = random.random() < 0.5

    def count() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed

    @contextmanager
    def transaction() -> Iterator[Session]:
        if dies_before:
            count()
        with context.transaction() as session:
            yield session
        if not dies_before:
            count()

    def arrives(_: Call) -> None:
        count()

    if dies_before:
        storage.before = arrives
    else:
        storage.after = arrives
    try:
        yield replace(context, transaction=transaction)
    finally:
        storage.before = storage.after = lambda _: None


def test_every_table_of_the_database_has_a_place_in_the_deletion(context: Context) -> None:
    with Session(context.engine) as session:
        names = session.scalars(
            text(
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
                " AND relnamespace = 'public'::regnamespace"
            )
        ).all()

    declared = {table.name for table in table_rows.tables()} | table_rows.WITHOUT_TENANT
    assert set(names) == declared | {"alembic_version"}


def test_the_deletion_waits_until_no_worker_has_a_lease(context: Context) -> None:
    event, key = transferring(context)
    assert event.upload_id is not None
    change_transfer(
        context,
        event,
        status=StepStatus.RUNNING,
        lease_owner="worker",
        lease_until=func.now() + timedelta(minutes=1),
    )
    put(context, key)
    order_deletion(context.engine, event.tenantid)

    assert sweep(context) == Summary(left=1)

    with Session(context.engine) as session:
        assert session.get_one(Job, event.job_id).status is JobStatus.CANCELLED
        assert session.get_one(Step, (event.job_id, StepName.TRANSFER)).lease_owner == "worker"
    assert keys(context) == {key}
    assert staged_file(context, event.upload_id).exists()

    with context.transaction() as session:
        session.execute(update(TenantDeletion).values(quiet_at=func.now() - timedelta(seconds=1)))
    assert sweep(context) == Summary(finished=1)
    assert keys(context) == set()
    assert not staged_file(context, event.upload_id).exists()


def test_a_new_order_stops_the_work_of_the_tenant_at_once(
    context: Context, seeded: list[TenantId]
) -> None:
    deleted, other, *_ = seeded
    before = rows_of(context.engine, deleted)
    order_deletion(context.engine, deleted, ago=timedelta())

    assert sweep(context) == Summary(left=1)

    def active(tenant_id: TenantId) -> list[int]:
        with Session(context.engine) as session:
            return [
                session.scalar(select(func.count()).where(table.tenant_id == tenant_id, condition))
                or 0
                for table, condition in (
                    (Upload, Upload.status == UploadStatus.OPEN),
                    (Job, Job.status.in_((JobStatus.QUEUED, JobStatus.PROCESSING))),
                    (Webhook, Webhook.deleted_at.is_(None)),
                )
            ]

    assert active(deleted) == [0, 0, 0]
    assert all(active(other))
    # Triggers delete the password of an upload or job that ends; an endpoint loses its secrets.
    changed = {"document_passwords", "webhook_secrets"}
    after = rows_of(context.engine, deleted)
    assert {n: r for n, r in after.items() if n not in changed} == {
        n: r for n, r in before.items() if n not in changed
    }


def test_a_store_that_fails_keeps_the_tenant_for_the_next_sweep(context: Context) -> None:
    event, key = transferring(context)
    put(context, key)
    order_deletion(context.engine, event.tenantid)
    storage = context.storage
    assert isinstance(storage, FakeStorage)
    storage.before = raising(StoreUnavailable("delete_all", reason="test"), on="delete_all")

    assert sweep(context) == Summary(left=1)

    assert keys(context) == {key}
    assert deletion_of(context.engine, event.tenantid).finished_at is None
    storage.before = lambda _: None
    assert sweep(context) == Summary(finished=1)
    assert keys(context) == set()


def test_staging_that_is_not_mounted_keeps_the_uploads(context: Context) -> None:
    event, _ = transferring(context)
    assert event.upload_id is not None
    assert context.settings.staging_dir is not None
    order_deletion(context.engine, event.tenantid)
    marker = context.settings.staging_dir / staging_layout.MARKER
    marker.unlink()

    assert sweep(context) == Summary(left=1)

    assert staged_file(context, event.upload_id).exists()
    assert rows_of(context.engine, event.tenantid)["uploads"] == 1
    marker.touch()
    assert sweep(context) == Summary(finished=1)
    assert not staged_file(context, event.upload_id).exists()


def test_the_images_of_a_document_whose_purge_has_not_ended_are_deleted(context: Context) -> None:
    event, _ = transferring(context)
    assert event.upload_id is not None
    assert event.job_id is not None
    with context.transaction() as session:
        session.add(
            Step(
                job_id=event.job_id,
                name=StepName.CLEANUP,
                ordinal=9,
                tenant_id=event.tenantid,
                priority=session.get_one(Job, event.job_id).priority,
                status=StepStatus.QUEUED,
            )
        )
    put(context, object_keys.thumbnail(event.upload_id, RevisionId(uuid4())))
    order_deletion(context.engine, event.tenantid)

    assert sweep(context) == Summary(finished=1)

    assert keys(context) == set()


def test_the_images_of_a_document_whose_retention_has_just_ended_are_deleted(
    context: Context,
) -> None:
    event, _ = transferring(context)
    assert event.upload_id is not None
    with context.transaction() as session:
        session.get_one(Upload, event.upload_id).removed_at = LONG_AGO
    put(context, object_keys.thumbnail(event.upload_id, RevisionId(uuid4())))
    order_deletion(context.engine, event.tenantid)

    assert sweep(context) == Summary(finished=1)

    assert keys(context) == set()


def test_the_images_of_a_document_that_the_retention_has_deleted_are_deleted(
    context: Context,
) -> None:
    event, _ = transferring(context)
    assert event.upload_id is not None
    with context.transaction() as session:
        session.execute(update(Upload).values(removed_at=func.now()))
    put(context, object_keys.thumbnail(event.upload_id, RevisionId(uuid4())))
    order_deletion(context.engine, event.tenantid)

    assert sweep(context) == Summary(finished=1)

    assert keys(context) == set()


def test_a_sweep_without_time_deletes_nothing(context: Context) -> None:
    event, key = transferring(context)
    put(context, key)
    before = rows_of(context.engine, event.tenantid)
    order_deletion(context.engine, event.tenantid)

    assert sweep(context, max_time=timedelta()) == Summary(left=1)

    assert rows_of(context.engine, event.tenantid) == before
    assert keys(context) == {key}


def test_rows_that_no_endpoint_leads_to_are_deleted(
    context: Context, seeded: list[TenantId]
) -> None:
    deleted = seeded[0]
    with context.transaction() as session:
        # As after the retention of a deleted endpoint.
        session.execute(text("ALTER TABLE webhooks DISABLE TRIGGER USER"))
        session.execute(
            text(
                "DELETE FROM webhooks WHERE tenant_id = :tenant_id AND upload_id IS NULL"
            ).bindparams(tenant_id=deleted)
        )
        session.execute(text("ALTER TABLE webhooks ENABLE TRIGGER USER"))
    order_deletion(context.engine, deleted)

    assert sweep(context) == Summary(finished=1)

    assert set(rows_of(context.engine, deleted).values()) == {0}


def test_what_arrives_after_the_end_is_deleted_by_a_last_look(context: Context) -> None:
    with context.transaction() as session:
        tenant_id = add_tenant(session)
    order_deletion(context.engine, tenant_id)
    assert sweep(context) == Summary(finished=1)
    late = put(context, object_keys.original(tenant_id, UploadId(uuid4())))
    with context.transaction() as session:
        emit(
            session,
            example_of("upload.stored"),
            tenant_id=tenant_id,
            source="/tests",
            now=datetime.now(UTC),
        )

    assert sweep(context) == Summary()
    assert keys(context) == {late}
    assert sweep(without_grace(context)) == Summary(finished=1)

    assert keys(context) == set()
    assert set(rows_of(context.engine, tenant_id).values()) == {0}
    assert deletion_of(context.engine, tenant_id).checked_at is not None
    assert sweep(without_grace(context)) == Summary()
    with Session(context.engine) as session:
        ends = session.scalars(select(AuditEntry.id).where(AuditEntry.action == "tenant.deleted"))
        assert len(ends.all()) == 1


def test_a_later_tenant_of_the_same_name_is_kept(context: Context) -> None:
    with context.transaction() as session:
        tenant_id = add_tenant(session)
        name = session.get_one(Tenant, tenant_id).name
    order_deletion(context.engine, tenant_id)
    assert sweep(context) == Summary(finished=1)
    later = TenantId(uuid4())
    with context.transaction() as session:
        session.add(Tenant(id=later, name=name))
    put(context, object_keys.original(later, UploadId(uuid4())))

    assert sweep(without_grace(context)) == Summary(finished=1)

    assert rows_of(context.engine, later)["tenants"] == 1
    assert len(keys(context)) == 1
