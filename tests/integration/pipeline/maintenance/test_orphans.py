"""The sweep that deletes files, objects and multipart uploads without an upload."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from uuid import uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from pipeline.context import Context
from pipeline.maintenance import orphans
from pipeline.maintenance.report import SweepReport
from pipeline.maintenance.tasks import SweepOrphans
from schemas import object_keys, staging_layout
from schemas.errors import StoreMisconfigured, StoreRejected, StoreUnavailable
from schemas.ids import TenantId, UploadId
from schemas.lifecycle import StagingKind, StepStatus, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload
from tests.fakes.storage import FakeStorage, raising
from tests.integration.pipeline.maintenance.leftovers import (
    DAY,
    ample_budget,
    begin,
    change_transfer,
    keys,
    open_multiparts,
    opened,
    put,
    staged_file,
    transferring,
    unavailable,
    without_grace,
)


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
    change_transfer(with_store, waiting, checkpoint={"multipart_id": recorded.id})
    running, key = transferring(with_store)
    just_begun = begin(with_store, key, with_part=False)
    change_transfer(
        with_store,
        running,
        status=StepStatus.RUNNING,
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
    change_transfer(with_store, event, checkpoint={"multipart_id": recorded.id})
    begin(with_store, key, with_part=False)  # never recorded: the answer was lost
    failed, key = transferring(with_store)
    begin(with_store, key)
    change_transfer(with_store, failed, status=StepStatus.FAILED)
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
    change_transfer(with_store, event, status=StepStatus.COMPLETED)
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
    change_transfer(context, event, status=StepStatus.FAILED)
    with context.transaction() as session:
        session.execute(
            update(Job).where(Job.id == event.job_id).values(finished_at=datetime.now(UTC) - ago)
        )
        session.execute(update(Upload).where(Upload.id == event.upload_id).values(status=status))
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
