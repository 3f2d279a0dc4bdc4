"""What the sweeps delete and what they keep: real rows, files, objects and multipart uploads."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker
from structlog.testing import capture_logs

from pipeline.context import CONNECTION, Context, build_context, install_context
from pipeline.maintenance import exclusive, expiry, orphans, retention
from pipeline.maintenance.exclusive import Budget
from pipeline.maintenance.report import SweepReport
from pipeline.maintenance.tasks import SweepOrphans, SweepRows, SweepUploads
from pipeline.settings import Settings
from pipeline.storage.port import Body, Multipart
from schemas import object_keys, staging_layout
from schemas.errors import ErrorCode, StoreMisconfigured, StoreRejected, StoreUnavailable
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadFailed
from schemas.ids import DeliveryId, EventId, TenantId, UploadId, WebhookId
from schemas.lifecycle import JobStage, JobStatus, StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.runtime import postgres
from schemas.settings import DatabaseSettings, ObjectStoreSettings
from schemas.tables.deliveries import Attempt, Delivery
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.inbox import InboxMessage
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Chunk, Upload
from schemas.tables.webhooks import Webhook
from tests.factories.abandoned import CHUNKS, add_abandoned_upload
from tests.factories.uploads import add_finalized_upload, add_tenant
from tests.fakes.storage import FakeStorage, raising

pytestmark = pytest.mark.integration

DAY = timedelta(days=1)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

NO_GRACE = timedelta(seconds=-10)
"""A grace period that is over even for objects that the store, by its own clock, made just now."""


@pytest.fixture
def context(database: DatabaseSettings, tmp_path: Path) -> Iterator[Context]:
    """A real database and staging directory, and a store in memory."""
    (tmp_path / staging_layout.MARKER).touch()
    settings = Settings(
        database_url=database.database_url,
        rabbitmq_url=SecretStr("amqp://nobody@127.0.0.1/none"),
        staging_dir=tmp_path,
        s3_bucket="none",
        s3_access_key_id=SecretStr("none"),
        s3_secret_access_key=SecretStr("none"),
    )
    engine = postgres.build_engine(settings, connection=CONNECTION)
    yield Context(
        settings=settings,
        engine=engine,
        transaction=sessionmaker(engine, expire_on_commit=False).begin,
        storage=FakeStorage(),
    )
    engine.dispose()


@pytest.fixture
def with_store(context: Context, object_store_settings: ObjectStoreSettings) -> Context:
    """The same context with a real store."""
    built = build_context(context.settings.model_copy(update=object_store_settings.model_dump()))
    built.engine.dispose()
    return replace(context, storage=built.storage)


def without_grace(context: Context) -> Context:
    """Return the context with a grace period that is over for everything."""
    return replace(context, settings=context.settings.model_copy(update={"sweep_grace": NO_GRACE}))


def unavailable(call: str) -> FakeStorage:
    storage = FakeStorage()
    storage.before = raising(StoreUnavailable(call, reason="test"), on=call)
    return storage


def ample_budget() -> Budget:
    return Budget.of(timedelta(minutes=1))


def opened(
    context: Context,
    *,
    staging: StagingKind = StagingKind.DIRECTORY,
    expires_in: timedelta = -timedelta(minutes=1),
    status: UploadStatus = UploadStatus.OPEN,
) -> Upload:
    """Add an upload with two chunks, their rows and their staged bytes."""
    with context.transaction() as session:
        upload = add_abandoned_upload(
            session, staging=staging, expires_in=expires_in, status=status
        )
    if staging is StagingKind.DIRECTORY:
        staged_file(context, str(upload.id))
    else:
        for index in range(CHUNKS):
            key = staging_layout.chunk_key(
                upload.tenant_id, upload.id, index=index, sha256=bytes(32)
            )
            put(context, key)
    return upload


def staged_file(context: Context, name: str, *, age: timedelta = DAY) -> Path:
    assert context.settings.staging_dir is not None
    path = context.settings.staging_dir / name
    path.write_bytes(b"good")
    modified_at = (datetime.now(UTC) - age).timestamp()
    os.utime(path, (modified_at, modified_at))
    return path


def body(content: bytes) -> Body:
    return Body(content, md5=hashlib.md5(content, usedforsecurity=False).digest())


def put(context: Context, key: str) -> str:
    context.storage.put(
        ObjectKey(key), body=body(b"good"), content_type="text/plain", abandoned=Event()
    )
    return key


def begin(context: Context, key: ObjectKey, *, with_part: bool = True) -> Multipart:
    multipart = context.storage.create_multipart(key, content_type="text/plain")
    if with_part:
        context.storage.upload_part(multipart, number=1, body=body(b"good"), abandoned=Event())
    return multipart


def keys(context: Context) -> set[str]:
    return {found.key for found in context.storage.objects_under("")}


def open_multiparts(context: Context) -> set[str]:
    return {found.multipart.id for found in context.storage.multiparts_under("")}


def transferring(context: Context) -> tuple[Envelope, ObjectKey]:
    """Add a finalized upload whose job is in transfer; return its event and its object's key."""
    assert context.settings.staging_dir is not None
    with context.transaction() as session:
        event = add_finalized_upload(
            session,
            tenant_id=add_tenant(session),
            staging_dir=context.settings.staging_dir,
            content=b"good",
        )
    return event, object_keys.original(event.tenantid, event.data.upload_id)


def change_job(context: Context, event: Envelope, **values: object) -> None:
    with context.transaction() as session:
        session.execute(update(Job).where(Job.id == event.job_id).values(**values))


def emitted(context: Context) -> list[Envelope]:
    with Session(context.engine) as session:
        bodies = session.scalars(select(OutboxMessage.body).order_by(OutboxMessage.id))
        return [envelope.decode(each) for each in bodies]


def status_of(context: Context, upload: Upload) -> str:
    with Session(context.engine) as session:
        return session.get_one(Upload, upload.id).status


def count(context: Context, table: type) -> int:
    with Session(context.engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize("staging", [StagingKind.DIRECTORY, StagingKind.OBJECTS])
def test_an_expired_upload_ends_and_leaves_nothing(
    with_store: Context, staging: StagingKind
) -> None:
    upload = opened(with_store, staging=staging)
    swept = expiry.sweep(with_store, ample_budget())
    assert (swept.expired, swept.bytes_left, swept.complete) == (1, 0, True)
    assert status_of(with_store, upload) == UploadStatus.EXPIRED
    assert count(with_store, Chunk) == 0
    assert not keys(with_store)
    assert with_store.settings.staging_dir is not None
    assert [path.name for path in with_store.settings.staging_dir.iterdir()] == [
        staging_layout.MARKER
    ]
    (event,) = emitted(with_store)
    assert event.tenantid == upload.tenant_id
    assert isinstance(event.data, UploadFailed)
    assert event.data.upload_id == upload.id
    assert event.job_id is None
    assert event.data.code == ErrorCode.UPLOAD_EXPIRED
    assert upload.expires_at.isoformat() in event.data.detail


def test_an_expired_upload_uses_no_quota(context: Context) -> None:
    upload = opened(context)
    expiry.sweep(context, ample_budget())
    with Session(context.engine) as session:
        usage = session.get_one(TenantUsage, upload.tenant_id)
    assert (usage.bytes, usage.open_uploads) == (0, 0)


def test_an_expired_upload_emits_one_event(context: Context) -> None:
    opened(context)
    assert [expiry.sweep(context, ample_budget()).expired for _ in range(2)] == [1, 0]
    assert len(emitted(context)) == 1


def test_unexpired_and_finalized_uploads_are_kept(context: Context) -> None:
    open_still = opened(context, expires_in=timedelta(hours=1))
    finalized = opened(context, status=UploadStatus.FINALIZED)
    assert expiry.sweep(context, ample_budget()).expired == 0
    assert status_of(context, open_still) == UploadStatus.OPEN
    assert status_of(context, finalized) == UploadStatus.FINALIZED
    assert count(context, Chunk) == 4


def test_an_upload_that_is_being_finalized_is_skipped(context: Context) -> None:
    upload = opened(context)
    with Session(context.engine) as finalizing:
        finalizing.get_one(Upload, upload.id, with_for_update=True)
        assert expiry.sweep(context, ample_budget()).expired == 0
    assert expiry.sweep(context, ample_budget()).expired == 1


def test_more_uploads_than_one_batch_are_all_ended(context: Context) -> None:
    uploads = [opened(context) for _ in range(expiry.BATCH + 1)]
    assert expiry.sweep(context, ample_budget()).expired == len(uploads)
    assert {status_of(context, upload) for upload in uploads} == {UploadStatus.EXPIRED}


def test_staged_bytes_of_ended_uploads_are_orphans(with_store: Context) -> None:
    in_directory = opened(with_store, status=UploadStatus.EXPIRED)
    opened(with_store, staging=StagingKind.OBJECTS, status=UploadStatus.CANCELLED)
    assert orphans.sweep_files(with_store, ample_budget()).removed == 1
    assert orphans.sweep_staged_objects(without_grace(with_store), ample_budget()).removed == 2
    assert with_store.settings.staging_dir is not None
    assert not (with_store.settings.staging_dir / str(in_directory.id)).exists()
    assert not keys(with_store)


def test_a_file_without_an_upload_is_deleted_after_the_grace_period(context: Context) -> None:
    young = staged_file(context, str(uuid4()), age=timedelta(minutes=30))
    old = staged_file(context, str(uuid4()))
    of_live_uploads = [
        staged_file(context, str(opened(context, status=status).id))
        for status in (UploadStatus.OPEN, UploadStatus.FINALIZED)
    ]
    report = orphans.sweep_files(context, ample_budget())
    assert report == SweepReport(removed=1, kept=3)
    assert not old.exists()
    assert young.exists()
    assert all(path.exists() for path in of_live_uploads)


def test_unrecognized_names_in_the_staging_directory_are_kept(context: Context) -> None:
    assert context.settings.staging_dir is not None
    unrecognized = staged_file(context, "lost+found.txt")
    directory = context.settings.staging_dir / str(uuid4())
    directory.mkdir()
    elsewhere = staged_file(context, "elsewhere")
    link = context.settings.staging_dir / str(uuid4())
    link.symlink_to(elsewhere)
    report = orphans.sweep_files(without_grace(context), ample_budget())
    assert (report.removed, report.unrecognized) == (0, 4)
    assert report.example in {unrecognized.name, directory.name, elsewhere.name, link.name}
    assert unrecognized.exists()
    assert directory.exists()
    assert link.is_symlink()


def test_a_directory_without_the_marker_is_not_swept(context: Context) -> None:
    assert context.settings.staging_dir is not None
    old = staged_file(context, str(uuid4()))
    (context.settings.staging_dir / staging_layout.MARKER).unlink()
    assert orphans.sweep_files(context, ample_budget()) == SweepReport()
    assert old.exists()


def test_more_files_than_one_batch_are_all_swept(context: Context) -> None:
    for _ in range(orphans.LISTING_BATCH + 1):
        staged_file(context, str(uuid4()))
    assert orphans.sweep_files(context, ample_budget()).removed == orphans.LISTING_BATCH + 1


def test_a_staged_object_without_an_upload_is_deleted_after_the_grace_period(
    with_store: Context,
) -> None:
    live = opened(with_store, staging=StagingKind.OBJECTS)
    gone = TenantId(uuid4()), UploadId(uuid4())
    put(with_store, staging_layout.chunk_key(*gone, index=0, sha256=bytes(32)))
    put(with_store, "staging/.probe/left")
    kept = {
        put(with_store, "staging/readme.txt"),
        put(with_store, "elsewhere/file"),
        put(with_store, f"{object_keys.incoming(live.tenant_id)}file"),
        put(with_store, object_keys.original(*gone)),
    } | {key for key in keys(with_store) if str(live.id) in key}
    everything = keys(with_store)
    assert orphans.sweep_staged_objects(with_store, ample_budget()) == SweepReport(
        kept=4, unrecognized=1, example="staging/readme.txt"
    )
    assert keys(with_store) == everything
    report = orphans.sweep_staged_objects(without_grace(with_store), ample_budget())
    assert (report.removed, report.kept, report.unrecognized) == (2, 2, 1)
    assert keys(with_store) == kept


def test_multipart_uploads_of_active_transfers_are_kept(with_store: Context) -> None:
    waiting, key = transferring(with_store)
    recorded = begin(with_store, key)
    change_job(with_store, waiting, multipart_id=recorded.id)
    running, key = transferring(with_store)
    just_begun = begin(with_store, key, with_part=False)
    change_job(
        with_store,
        running,
        status=JobStatus.PROCESSING,
        lease_owner="somebody",
        lease_until=datetime.now(UTC) + timedelta(minutes=1),
    )
    unrecognized = begin(with_store, ObjectKey("elsewhere/file"))
    report = orphans.sweep_multiparts(without_grace(with_store), ample_budget())
    assert (report.removed, report.kept) == (0, 2)
    assert open_multiparts(with_store) == {recorded.id, just_begun.id, unrecognized.id}


def test_multipart_uploads_without_an_active_transfer_are_aborted(with_store: Context) -> None:
    event, key = transferring(with_store)
    recorded = begin(with_store, key)
    change_job(with_store, event, multipart_id=recorded.id)
    begin(with_store, key, with_part=False)  # never recorded: the answer was lost
    failed, key = transferring(with_store)
    begin(with_store, key)
    change_job(with_store, failed, status=JobStatus.FAILED)
    begin(with_store, object_keys.original(TenantId(uuid4()), UploadId(uuid4())))
    before = open_multiparts(with_store)
    assert orphans.sweep_multiparts(with_store, ample_budget()) == SweepReport(kept=4)
    assert open_multiparts(with_store) == before
    assert orphans.sweep_multiparts(without_grace(with_store), ample_budget()) == SweepReport(
        removed=3, kept=1
    )
    assert open_multiparts(with_store) == {recorded.id}


def test_a_multipart_upload_that_may_be_completed_is_kept(with_store: Context) -> None:
    event, key = transferring(with_store)
    put(with_store, key)
    change_job(with_store, event, status=JobStatus.COMPLETED, stage=JobStage.DONE)
    with_parts = begin(with_store, key)
    begin(with_store, key, with_part=False)
    assert orphans.sweep_multiparts(without_grace(with_store), ample_budget()) == SweepReport(
        removed=1, kept=1
    )
    assert open_multiparts(with_store) == {with_parts.id}


def ended(context: Context, status: UploadStatus, *, ago: timedelta = timedelta(0)) -> str:
    """Add an upload whose job failed `ago`, and an object at its key; return the key."""
    event, key = transferring(context)
    put(context, key)
    change_job(context, event, status=JobStatus.FAILED, finished_at=datetime.now(UTC) - ago)
    with context.transaction() as session:
        session.execute(
            update(Upload).where(Upload.id == event.data.upload_id).values(status=status)
        )
    return key


def test_an_object_that_appeared_after_its_upload_ended_is_deleted(with_store: Context) -> None:
    removed = {
        ended(with_store, status) for status in (UploadStatus.FAILED, UploadStatus.CANCELLED)
    }
    wanted = {ended(with_store, status) for status in (UploadStatus.STORED, UploadStatus.FINALIZED)}
    examined_before = {ended(with_store, UploadStatus.CANCELLED, ago=DAY)}
    assert orphans.sweep_originals(with_store, ample_budget()) == SweepReport()
    assert keys(with_store) == removed | wanted | examined_before
    for expected in (2, 0):
        assert (
            orphans.sweep_originals(without_grace(with_store), ample_budget()).removed == expected
        )
    assert keys(with_store) == wanted | examined_before


def test_the_multipart_upload_of_a_dead_probe_is_aborted(with_store: Context) -> None:
    begin(with_store, ObjectKey("staging/.probe/died"))
    assert orphans.sweep_multiparts(with_store, ample_budget()).kept == 1
    assert orphans.sweep_multiparts(without_grace(with_store), ample_budget()).removed == 1
    assert not open_multiparts(with_store)


def test_rows_are_deleted_after_their_retention_time(context: Context) -> None:
    with context.transaction() as session:
        tenant_id = add_tenant(session)
        for at in (LONG_AGO, datetime.now(UTC)):
            session.add(InboxMessage(consumer="c", event_id=EventId(uuid4()), processed_at=at))
            session.add(
                IdempotentRequest(
                    tenant_id=tenant_id,
                    key=str(at),
                    operation="create",
                    request_hash=bytes(32),
                    resource_id=uuid4(),
                    created_at=at,
                )
            )
        for published_at in (LONG_AGO, datetime.now(UTC), None):
            session.add(
                OutboxMessage(
                    event_id=EventId(uuid4()),
                    routing_key="upload.failed",
                    body=b"{}",
                    created_at=LONG_AGO,
                    published_at=published_at,
                )
            )
    assert retention.sweep(context, ample_budget()) == retention.Summary(
        outbox=1, inbox=1, idempotency=1, deliveries=0
    )
    assert (count(context, OutboxMessage), count(context, InboxMessage)) == (2, 1)
    assert count(context, IdempotentRequest) == 1


def test_deliveries_are_deleted_after_their_retention_time(context: Context) -> None:
    with context.transaction() as session:
        webhook = Webhook(
            id=WebhookId(uuid4()), tenant_id=add_tenant(session), url="https://a/", secret=""
        )
        session.add(webhook)
        session.flush()
        for settled_at in (LONG_AGO, datetime.now(UTC), None):
            delivery = Delivery(
                id=DeliveryId(uuid4()),
                tenant_id=webhook.tenant_id,
                webhook_id=webhook.id,
                event_id=EventId(uuid4()),
                event_type="upload.stored",
                body=b"{}",
                created_at=LONG_AGO,
                settled_at=settled_at,
            )
            session.add(delivery)
            session.flush()
            session.add(
                Attempt(
                    delivery_id=delivery.id,
                    number=1,
                    started_at=LONG_AGO,
                    duration=timedelta(seconds=1),
                    outcome="delivered",
                )
            )
    assert retention.sweep(context, ample_budget()).deliveries == 1
    assert (count(context, Delivery), count(context, Attempt)) == (2, 2)


def test_more_rows_than_one_batch_are_all_deleted(context: Context) -> None:
    with context.transaction() as session:
        session.add_all(
            InboxMessage(consumer="c", event_id=EventId(uuid4()), processed_at=LONG_AGO)
            for _ in range(retention.BATCH + 1)
        )
    assert retention.sweep(context, ample_budget()).inbox == retention.BATCH + 1


def test_a_spent_budget_leaves_the_rest_for_the_next_sweep(context: Context) -> None:
    opened(context)
    none_left = Budget.of(timedelta(0))
    assert expiry.sweep(context, none_left) == expiry.Summary(
        expired=0, bytes_left=0, complete=False
    )
    assert orphans.sweep_files(context, none_left) == SweepReport()
    assert retention.sweep(context, none_left) == retention.Summary(
        outbox=0, inbox=0, idempotency=0, deliveries=0
    )


def test_uploads_expire_while_the_store_is_down(context: Context) -> None:
    in_store = opened(context, staging=StagingKind.OBJECTS)
    in_directory = opened(context)
    swept = expiry.sweep(replace(context, storage=unavailable("objects_under")), ample_budget())
    assert (swept.expired, swept.bytes_left, swept.complete) == (2, 1, True)
    assert status_of(context, in_store) == status_of(context, in_directory) == UploadStatus.EXPIRED
    assert orphans.sweep_staged_objects(without_grace(context), ample_budget()).removed == CHUNKS


def test_files_are_swept_while_the_store_is_down(context: Context) -> None:
    orphan = staged_file(context, str(uuid4()))
    SweepOrphans().sweep(
        replace(context, storage=unavailable("objects_under")), max_time=timedelta(minutes=1)
    )
    assert not orphan.exists()


@pytest.mark.parametrize("call", ["abort", "head"])
@pytest.mark.parametrize("error", [StoreRejected, StoreUnavailable])
def test_a_multipart_upload_that_cannot_be_aborted_does_not_end_the_sweep(
    context: Context, call: str, error: type[StoreRejected | StoreUnavailable]
) -> None:
    storage = FakeStorage()
    for _ in range(2):
        key = object_keys.original(TenantId(uuid4()), UploadId(uuid4()))
        storage.create_multipart(key, content_type="text/plain")
    storage.before = raising(error(call, reason="test"), on=call)
    swept = orphans.sweep_multiparts(
        without_grace(replace(context, storage=storage)), ample_budget()
    )
    assert swept == SweepReport(failed=2)
    assert storage.called(call) == 2


class UndeletableKey(FakeStorage):
    """A store that refuses to delete one key, alone or among others."""

    undeletable: ObjectKey

    def delete(self, key: ObjectKey, *, abandoned: Event | None = None) -> None:
        if key == self.undeletable:
            raise StoreMisconfigured("delete", reason="AccessDenied")
        super().delete(key, abandoned=abandoned)

    def delete_all(self, keys: Sequence[ObjectKey]) -> None:
        if self.undeletable in keys:
            raise StoreMisconfigured("delete_all", reason="AccessDenied")
        super().delete_all(keys)


def test_a_staged_object_that_cannot_be_deleted_does_not_end_the_sweep(context: Context) -> None:
    storage = UndeletableKey()
    context = without_grace(replace(context, storage=storage))
    for index in range(3):
        key = staging_layout.chunk_key(
            TenantId(uuid4()), UploadId(uuid4()), index=index, sha256=bytes(32)
        )
        storage.undeletable = ObjectKey(put(context, key))
    assert orphans.sweep_staged_objects(context, ample_budget()) == SweepReport(removed=2, failed=1)
    assert keys(context) == {storage.undeletable}


def test_an_object_that_cannot_be_deleted_does_not_end_the_sweep(context: Context) -> None:
    storage = UndeletableKey()
    context = replace(context, storage=storage)
    for _ in range(3):
        storage.undeletable = ObjectKey(ended(context, UploadStatus.FAILED))
    assert orphans.sweep_originals(without_grace(context), ample_budget()) == SweepReport(
        removed=2, failed=1
    )
    assert keys(context) == {storage.undeletable}


def test_an_object_that_cannot_be_examined_does_not_end_the_sweep(context: Context) -> None:
    storage = FakeStorage()
    context = replace(context, storage=storage)
    for _ in range(2):
        ended(context, UploadStatus.FAILED)
    storage.before = raising(StoreRejected("head", reason="test"), on="head")
    assert orphans.sweep_originals(without_grace(context), ample_budget()) == SweepReport(failed=2)


def test_a_file_that_cannot_be_deleted_does_not_end_the_sweep(context: Context) -> None:
    """The sweep logs an error: an operator has to look at the disk."""
    failed, *others = (staged_file(context, str(uuid4())) for _ in range(3))

    @contextmanager
    def replaced_by_a_directory() -> Iterator[Session]:
        with context.transaction() as session:
            failed.unlink(missing_ok=True)
            failed.mkdir(exist_ok=True)
            yield session

    with capture_logs() as logs:
        SweepOrphans().sweep(
            replace(context, transaction=replaced_by_a_directory), max_time=timedelta(minutes=1)
        )
    assert failed.exists()
    assert not any(other.exists() for other in others)
    (line,) = (line for line in logs if line.get("area") == "staged_files")
    assert (line["log_level"], line["removed"], line["failed"]) == ("error", 2, 1)


def test_a_sweep_ends_quietly_while_the_database_is_down(context: Context) -> None:
    away = context.settings.model_copy(
        update={"database_url": SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")}
    )
    install_context(build_context(away))
    for sweep in (SweepUploads, SweepOrphans, SweepRows):
        sweep().run()


def test_a_second_sweep_of_a_kind_ends_at_once(context: Context) -> None:
    upload = opened(context)
    install_context(context)
    with exclusive.advisory_lock(context.engine, SweepUploads.name) as is_ours:
        assert is_ours
        SweepUploads().run()
        assert status_of(context, upload) == UploadStatus.OPEN
    SweepUploads().run()
    assert status_of(context, upload) == UploadStatus.EXPIRED


def test_the_advisory_lock_is_released_after_an_error(context: Context) -> None:
    with pytest.raises(ZeroDivisionError), exclusive.advisory_lock(context.engine, "sweep"):
        raise ZeroDivisionError
    with (
        exclusive.advisory_lock(context.engine, "sweep") as is_ours,
        exclusive.advisory_lock(context.engine, "another") as another,
    ):
        assert is_ours
        assert another
