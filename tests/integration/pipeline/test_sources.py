"""The transfer task with every kind of source, a real database and a store in memory.

Faults of single requests: tests/unit/pipeline/transfer/test_source_faults.py.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Event
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from pipeline.context import build_context
from pipeline.ingest.extractors import registry
from pipeline.settings import Settings
from pipeline.storage.plan import MIN_PART_SIZE
from schemas import object_keys, staging_layout, topology
from schemas.errors import ErrorCode, StoreFailed, StoreRejected, StoreUnavailable
from schemas.events.envelope import Envelope
from schemas.ids import TenantId
from schemas.lifecycle import JobStatus, StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.settings import MIB, DatabaseSettings
from schemas.steps import StepName
from schemas.tables.documents import Document
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload
from tests.factories.uploads import (
    add_finalized_upload,
    add_tenant,
    cancel_upload,
    staged_objects,
    upload_of,
)
from tests.fakes.storage import Call, FakeStorage, Object, nothing, raising
from tests.integration.pipeline.transfer_worker import TransferWorker, worker_settings

SOURCE = ObjectKey("incoming/tenant/scan.bin")
CHUNK_SIZE = 6 * MIB
CONTENT = Random(1).randbytes(2 * CHUNK_SIZE + 12_345)

every_staging = pytest.mark.parametrize("staging", StagingKind)


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` catches it."""


@pytest.fixture
def settings(database: DatabaseSettings, tmp_path: Path) -> Settings:
    (tmp_path / "staging").mkdir()
    return worker_settings(
        database,
        s3_part_size=MIN_PART_SIZE,
        s3_parallel_parts=2,
        staging_dir=tmp_path / "staging",
        work_dir=tmp_path,
    )


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


@pytest.fixture
def worker(settings: Settings, storage: FakeStorage) -> Iterator[TransferWorker]:
    context = replace(build_context(settings, will_be_read=registry.will_be_read), storage=storage)
    yield TransferWorker(context)
    context.engine.dispose()


def finalized(
    worker: TransferWorker,
    staging: StagingKind,
    *,
    content: bytes = CONTENT,
    tenant_id: TenantId | None = None,
    sha256: str | None = None,
) -> Envelope:
    """Add a finalized upload as the gateway does, and return its event."""
    with Session(worker.context.engine) as session, session.begin():
        event = add_finalized_upload(
            session,
            tenant_id=tenant_id or add_tenant(session),
            staging_dir=worker.context.settings.staging_dir,
            content=content,
            chunk_size=CHUNK_SIZE,
            sha256=sha256,
            staging=staging,
            source_key=SOURCE if staging is StagingKind.REFERENCE else None,
        )
    storage = fake(worker)
    if staging is StagingKind.OBJECTS:
        for key, piece in staged_objects(event, content, chunk_size=CHUNK_SIZE).items():
            storage.objects[key] = Object(piece, "", etag="")
    if staging is StagingKind.REFERENCE:
        storage.objects[SOURCE] = Object(content, "", etag="1")
    return event


def fake(worker: TransferWorker) -> FakeStorage:
    assert isinstance(worker.context.storage, FakeStorage)
    return worker.context.storage


def original(event: Envelope) -> ObjectKey:
    return object_keys.original(event.tenantid, upload_of(event))


def is_staged(worker: TransferWorker, event: Envelope) -> bool:
    assert worker.context.settings.staging_dir is not None
    prefix = staging_layout.prefix_of(event.tenantid, upload_of(event))
    in_bucket = any(key.startswith(prefix) for key in fake(worker).objects)
    return in_bucket or (worker.context.settings.staging_dir / str(event.upload_id)).exists()


def cancel(worker: TransferWorker, event: Envelope) -> Envelope:
    """Cancel an upload as the gateway does, and return its event."""
    with Session(worker.context.engine) as session, session.begin():
        return cancel_upload(session, event)


def used_bytes(worker: TransferWorker, tenant_id: TenantId) -> int:
    with Session(worker.context.engine) as session:
        return (
            session.scalar(select(TenantUsage.bytes).where(TenantUsage.tenant_id == tenant_id)) or 0
        )


@every_staging
def test_an_upload_becomes_an_object_and_its_staged_bytes_are_deleted(
    worker: TransferWorker, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(worker, staging)

    assert worker.deliver(event)

    job = worker.job(event)
    assert (job.status, job.bytes_done, job.bytes_total) == (
        JobStatus.COMPLETED,
        len(CONTENT),
        len(CONTENT),
    )
    assert storage.objects[original(event)].content == CONTENT
    assert not is_staged(worker, event)
    assert worker.upload(event).size == len(CONTENT)
    assert used_bytes(worker, event.tenantid) == len(CONTENT)
    if staging is StagingKind.REFERENCE:
        assert storage.objects[SOURCE].content == CONTENT


@every_staging
def test_every_log_line_of_a_transfer_has_the_upload_id_and_the_job_id(
    worker: TransferWorker, staging: StagingKind
) -> None:
    event = finalized(worker, staging)

    with capture_logs(processors=[merge_contextvars]) as lines:
        worker.deliver(event)
        worker.deliver(event)

    # Some lines are from the threads that send the parts.
    assert {line["event"] for line in lines} >= {
        "transfer.part_stored",
        "transfer.object_stored",
        "step.already_ended",
    }
    assert {(line["upload_id"], line["job_id"]) for line in lines} == {
        (str(event.upload_id), str(event.job_id))
    }


@every_staging
def test_the_next_delivery_deletes_staged_bytes_that_a_worker_left(
    worker: TransferWorker, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(worker, staging)
    inputs = dict(storage.objects)
    worker.deliver(event)
    storage.objects |= inputs

    assert worker.deliver(event)

    assert not is_staged(worker, event)
    assert storage.objects[original(event)].content == CONTENT


def test_chunks_that_were_never_acknowledged_are_deleted(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.OBJECTS)
    refused = staging_layout.chunk_key(event.tenantid, upload_of(event), index=1, sha256=bytes(32))
    storage.objects[refused] = Object(b"other bytes", "", etag="")

    worker.deliver(event)

    assert not is_staged(worker, event)


@pytest.mark.parametrize("call", ["delete_all", "objects_under"])
def test_a_failed_deletion_of_staged_objects_is_retried(
    worker: TransferWorker, storage: FakeStorage, call: str
) -> None:
    event = finalized(worker, StagingKind.OBJECTS)
    storage.before = raising(StoreUnavailable(call, reason="down"), on=call)
    assert not worker.deliver(event)
    storage.before = nothing
    assert worker.job(event).status == JobStatus.COMPLETED

    assert worker.deliver(event)

    assert not is_staged(worker, event)


def test_an_upload_in_an_unmounted_directory_waits(
    settings: Settings, worker: TransferWorker
) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)
    elsewhere = TransferWorker(
        replace(
            worker.context,
            settings=settings.model_copy(
                update={"staging": StagingKind.OBJECTS, "staging_dir": None}
            ),
        )
    )

    assert not elsewhere.deliver(event, waits=1)

    assert elsewhere.retried[-1]["tier"] == topology.RETRY_TIERS[1]
    assert worker.job(event).status == JobStatus.PROCESSING
    assert TransferWorker(worker.context).deliver(event)


# ---- references


def test_a_reference_to_a_missing_object_fails(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.REFERENCE)
    del storage.objects[SOURCE]

    assert worker.deliver(event)

    job = worker.job(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, ErrorCode.REFERENCE_MISSING)
    assert worker.upload(event).status == UploadStatus.FAILED
    assert storage.objects == {}


def test_a_reference_that_was_never_copied_needs_no_cleanup(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.REFERENCE)
    del storage.objects[SOURCE]

    worker.deliver(event)

    assert [call.name for call in storage.calls] == ["head"]


def test_what_was_copied_is_deleted_if_the_referenced_object_disappears(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.REFERENCE)

    def die(call: Call) -> None:
        if call.name == "complete":
            raise Killed

    # The object is stored, and no row says so.
    storage.after = die
    with pytest.raises(Killed):
        worker.deliver(event)
    storage.after = nothing
    assert original(event) in storage.objects
    del storage.objects[SOURCE]
    with Session(worker.context.engine) as session, session.begin():
        session.execute(update(Step).values(lease_until=func.now()))

    assert worker.deliver(event)

    assert worker.job(event).error_code == ErrorCode.REFERENCE_MISSING
    assert storage.objects == {}


@pytest.mark.parametrize("whose", ["default quota", "tenant quota"])
def test_a_reference_larger_than_the_file_size_quota_fails(
    settings: Settings, worker: TransferWorker, whose: str
) -> None:
    event = finalized(worker, StagingKind.REFERENCE)
    if whose == "tenant quota":
        with Session(worker.context.engine) as session, session.begin():
            session.execute(update(Tenant).values(quota_file_size=len(CONTENT) - 1))
    else:
        smaller = settings.model_copy(update={"upload_max_size": len(CONTENT) - 1})
        worker = TransferWorker(replace(worker.context, settings=smaller))

    assert worker.deliver(event)

    assert worker.job(event).error_code == ErrorCode.FILE_TOO_LARGE
    assert set(fake(worker).objects) == {SOURCE}


@pytest.mark.parametrize("whose", ["default quota", "tenant quota"])
def test_a_reference_beyond_the_total_quota_fails_and_uses_no_quota(
    settings: Settings, worker: TransferWorker, whose: str
) -> None:
    first = finalized(worker, StagingKind.REFERENCE)
    worker.deliver(first)
    event = finalized(worker, StagingKind.REFERENCE, tenant_id=first.tenantid)
    quota = 2 * len(CONTENT) - 1
    if whose == "tenant quota":
        with Session(worker.context.engine) as session, session.begin():
            session.execute(update(Tenant).values(quota_bytes=quota))
    else:
        worker = TransferWorker(
            replace(worker.context, settings=settings.model_copy(update={"quota_bytes": quota}))
        )

    assert worker.deliver(event)

    job = worker.job(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, ErrorCode.QUOTA_EXCEEDED)
    assert used_bytes(worker, event.tenantid) == len(CONTENT)
    assert original(event) not in fake(worker).objects


def test_a_reference_to_a_forbidden_media_type_fails(worker: TransferWorker) -> None:
    event = finalized(worker, StagingKind.REFERENCE)
    with Session(worker.context.engine) as session, session.begin():
        session.execute(update(Tenant).values(allowed_types=["application/pdf"]))

    assert worker.deliver(event)

    assert worker.job(event).error_code == ErrorCode.TYPE_NOT_ALLOWED
    assert set(fake(worker).objects) == {SOURCE}


def test_a_reference_with_another_digest_than_declared_fails(worker: TransferWorker) -> None:
    event = finalized(worker, StagingKind.REFERENCE, sha256="0" * 64)

    assert worker.deliver(event)

    assert worker.job(event).error_code == ErrorCode.FILE_DIGEST_MISMATCH
    assert set(fake(worker).objects) == {SOURCE}


def test_progress_is_reset_if_the_referenced_object_has_changed(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.REFERENCE)

    def fail(call: Call) -> None:
        if call.part == 2:
            raise StoreUnavailable("copy_part", reason="down")

    storage.before = fail
    # With one thread, the first part is stored before the second one fails.
    settings = worker.context.settings.model_copy(
        update={"task_attempts": 2, "s3_parallel_parts": 1}
    )
    worker = TransferWorker(replace(worker.context, settings=settings))
    assert not worker.deliver(event)
    assert worker.job(event).bytes_done == MIN_PART_SIZE
    storage.before = nothing
    shorter = CONTENT[:-1][::-1]
    storage.objects[SOURCE] = Object(shorter, "", etag="2")

    assert worker.deliver(event)

    job = worker.job(event)
    assert (job.bytes_done, job.bytes_total) == (len(shorter), len(shorter))
    assert storage.objects[original(event)].content == shorter
    assert used_bytes(worker, event.tenantid) == len(shorter)


# ---- slices


@every_staging
def test_a_transfer_in_many_slices_completes(
    worker: TransferWorker, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(worker, staging)
    settings = worker.context.settings.model_copy(
        update={"transfer_slice": timedelta(microseconds=1), "s3_parallel_parts": 1}
    )
    worker = TransferWorker(replace(worker.context, settings=settings))
    shown: list[int] = []

    while not worker.deliver(event):
        shown.append(worker.job(event).bytes_done)

    assert shown == sorted(set(shown))
    assert storage.objects[original(event)].content == CONTENT
    assert len(storage.parts_sent() + storage.parts_copied()) <= 2 * len(shown) + 2


# ---- cancelled uploads


@every_staging
def test_a_cancelled_upload_is_deleted_with_all_its_leftovers(
    worker: TransferWorker, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(worker, staging)
    storage.create_multipart(original(event), content_type="")
    storage.objects[original(event)] = Object(b"", "", etag="")
    cancelled = cancel(worker, event)

    assert worker.deliver(cancelled)
    assert worker.deliver(cancelled)

    assert not is_staged(worker, event)
    assert storage.open_multiparts(original(event)) == []
    assert set(storage.objects) == ({SOURCE} if staging is StagingKind.REFERENCE else set())


@pytest.mark.parametrize("failing", ["open_multiparts", "delete"])
@pytest.mark.parametrize(
    "error", [StoreUnavailable("test", reason="down"), StoreRejected("test", reason="no")]
)
def test_a_failed_cleanup_of_a_cancelled_upload_is_retried(
    worker: TransferWorker, storage: FakeStorage, failing: str, error: StoreFailed
) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)
    storage.objects[original(event)] = Object(b"", "", etag="")
    cancelled = cancel(worker, event)
    storage.before = raising(error, on=failing)

    assert not worker.deliver(cancelled, attempt=worker.context.settings.task_attempts)

    assert not is_staged(worker, event), "other leftovers are deleted at once"
    storage.before = nothing
    assert worker.deliver(cancelled)
    assert original(event) not in storage.objects


@pytest.mark.parametrize(
    "status", [status for status in UploadStatus if status is not UploadStatus.CANCELLED]
)
def test_an_upload_that_is_not_cancelled_is_kept(
    worker: TransferWorker, storage: FakeStorage, status: UploadStatus
) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)
    storage.objects[original(event)] = Object(b"kept", "", etag="")
    forged = cancel(worker, event)
    with Session(worker.context.engine) as session, session.begin():
        session.execute(update(Upload).values(status=status))

    assert worker.deliver(forged)

    assert storage.objects[original(event)].content == b"kept"
    assert is_staged(worker, event)


def test_the_cancellation_of_an_unknown_upload_deletes_nothing(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)
    cancelled = cancel(worker, event)
    unknown = msgspec.structs.replace(
        cancelled, data=msgspec.structs.replace(cancelled.data, upload_id=uuid4())
    )

    assert worker.deliver(unknown)

    assert storage.called("delete") == 0


@pytest.mark.parametrize("own_end", ["open", "cancelled"])
@pytest.mark.parametrize("crashes", [0, topology.CRASH_LIMIT])
def test_an_event_with_the_upload_of_another_job_changes_nothing(
    worker: TransferWorker, storage: FakeStorage, own_end: str, crashes: int
) -> None:
    stored, open_upload = (finalized(worker, StagingKind.DIRECTORY) for _ in range(2))
    assert worker.deliver(stored)
    own = finalized(worker, StagingKind.DIRECTORY)
    if own_end == "cancelled":
        cancel(worker, own)
    before = worker.job(own).status

    for victim in (stored, open_upload):
        data = msgspec.structs.replace(own.data, upload_id=victim.upload_id)
        assert worker.deliver(msgspec.structs.replace(own, data=data), crashes=crashes)

    assert storage.objects[original(stored)].content == CONTENT
    assert is_staged(worker, open_upload)
    assert worker.upload(open_upload).status == UploadStatus.FINALIZED
    assert worker.job(own).status in {before, JobStatus.PROCESSING}


def test_a_cleanup_deletes_the_document_as_soon_as_no_worker_reads_it(
    worker: TransferWorker,
) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)
    assert worker.deliver(event)
    cancelled = cancel(worker, event)
    document = select(Document.id).where(Document.upload_id == event.upload_id)
    with Session(worker.context.engine) as reader:
        assert reader.scalar(document.with_for_update(read=True, key_share=True)) is not None
        assert not worker.deliver(cancelled)
        assert worker.retried[-1]["tier"] == topology.RETRY_TIERS[0]

    assert worker.deliver(cancelled)

    with Session(worker.context.engine) as session:
        assert session.scalar(document) is None


def test_a_cancelled_upload_under_a_live_lease_waits(worker: TransferWorker) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)
    cancelled = cancel(worker, event)
    with Session(worker.context.engine) as session, session.begin():
        session.execute(
            update(Step)
            .where(Step.name == StepName.TRANSFER)
            .values(lease_owner="other", lease_until=func.now() + timedelta(minutes=1))
        )

    assert not worker.deliver(cancelled)

    assert worker.retried[-1]["tier"] == topology.RETRY_TIERS[0]
    assert is_staged(worker, event)


@every_staging
def test_a_cancellation_during_the_transfer_leaves_nothing_and_releases_the_lease(
    worker: TransferWorker, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(worker, staging)
    are_noticed: list[bool] = []
    aborted = Event()

    cancelled: list[Envelope] = []

    def answer_late(call: Call) -> None:
        if call.part is not None:
            if call.part == 1:
                cancelled.append(cancel(worker, event))
            are_noticed.append(aborted.wait(timeout=60))

    def note(call: Call) -> None:
        if call.name == "abort":
            aborted.set()

    storage.before, storage.after = answer_late, note

    assert worker.deliver(event)

    assert are_noticed
    assert all(are_noticed), "noticed while the store did not answer"
    assert storage.open_multiparts(original(event)) == []
    assert not is_staged(worker, event)
    assert original(event) not in storage.objects
    assert worker.deliver(cancelled[0]), "the lease was not released"


def test_the_parts_of_a_failed_upload_are_deleted_without_a_listing(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)

    def fail_complete_and_listing(call: Call) -> None:
        if call.name in {"complete", "open_multiparts"}:
            raise StoreUnavailable(call.name, reason="down")

    storage.before = fail_complete_and_listing

    assert not worker.deliver(event)

    assert worker.job(event).status == JobStatus.FAILED
    assert list(storage.multiparts_under("")) == []


# ---- killed workers


def deliver_and_kill(worker: TransferWorker, event: Envelope, *, times: int) -> None:
    """Deliver until the transfer is handled, killing the worker `times` times after a new part."""
    crashes = killed = 0
    done = False
    while not done:
        done_before = worker.job(event).bytes_done

        def die(call: Call, *, done_before: int = done_before) -> None:
            if call.part is not None and worker.job(event).bytes_done > done_before:
                raise Killed

        fake(worker).after = die if killed < times else nothing
        try:
            done = worker.deliver(event, crashes=crashes)
        except Killed:
            killed += 1
            crashes += 1
            expire_lease(worker)
        else:
            crashes = crashes if done else worker.crashes_of_retry()
    assert killed == times


def expire_lease(worker: TransferWorker) -> None:
    with Session(worker.context.engine) as session, session.begin():
        session.execute(update(Step).values(lease_until=func.now() - timedelta(seconds=1)))


@every_staging
def test_a_transfer_that_makes_progress_survives_more_crashes_than_the_limit(
    worker: TransferWorker, storage: FakeStorage, staging: StagingKind
) -> None:
    kills = topology.CRASH_LIMIT + 1
    content = Random(2).randbytes((2 * kills) * CHUNK_SIZE)
    event = finalized(worker, staging, content=content)

    deliver_and_kill(worker, event, times=kills)

    assert worker.job(event).status == JobStatus.COMPLETED
    assert storage.objects[original(event)].content == content
    assert storage.open_multiparts(original(event)) == []
    assert not is_staged(worker, event)
    with Session(worker.context.engine) as session:
        assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 1
    parts = -(
        -len(content) // (MIN_PART_SIZE if staging is not StagingKind.OBJECTS else CHUNK_SIZE)
    )
    in_flight = worker.context.settings.s3_parallel_parts
    assert len(storage.parts_sent() + storage.parts_copied()) <= parts + kills * in_flight


def test_a_transfer_without_progress_is_given_up_at_the_crash_limit(
    worker: TransferWorker, storage: FakeStorage
) -> None:
    event = finalized(worker, StagingKind.DIRECTORY)

    def die(call: Call) -> None:
        if call.part is not None:
            raise Killed

    storage.before = die
    for crashes in range(topology.CRASH_LIMIT):
        with pytest.raises(Killed):
            worker.deliver(event, crashes=crashes)
        expire_lease(worker)
    storage.before = nothing

    assert worker.deliver(event, crashes=topology.CRASH_LIMIT)

    assert worker.retried == []
    assert worker.job(event).error_code == ErrorCode.ATTEMPTS_EXHAUSTED
    assert storage.open_multiparts(original(event)) == []
