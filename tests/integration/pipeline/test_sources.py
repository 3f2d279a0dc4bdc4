"""What becomes of an upload wherever its bytes wait, and whatever kills its worker."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Event
from time import monotonic
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from pipeline.context import build_context
from pipeline.settings import Settings
from pipeline.transfer.plan import MIN_PART_SIZE
from schemas import object_keys, staging_layout, topology
from schemas.errors import ErrorCode, StoreFailed, StoreRejected, StoreUnavailable
from schemas.events.envelope import Envelope
from schemas.ids import TenantId
from schemas.lifecycle import JobStatus, StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.settings import MIB, DatabaseSettings
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload
from tests.factories.uploads import add_finalized_upload, add_tenant, cancel_upload, staged_objects
from tests.fakes.storage import Call, FakeStorage, Object, nothing, raising
from tests.integration.pipeline.transfer_worker import Hands, settings_of_a_worker

pytestmark = pytest.mark.integration

SOURCE = ObjectKey("incoming/tenant/scan.bin")
CHUNK_SIZE = 6 * MIB
CONTENT = Random(1).randbytes(2 * CHUNK_SIZE + 12_345)

every_staging = pytest.mark.parametrize("staging", StagingKind)


class Killed(BaseException):
    """What comes instead of SIGKILL: nothing of ours gets to see it."""


@pytest.fixture
def settings(database: DatabaseSettings, tmp_path: Path) -> Settings:
    (tmp_path / "staging").mkdir()
    return settings_of_a_worker(
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
def hands(settings: Settings, storage: FakeStorage) -> Iterator[Hands]:
    context = replace(build_context(settings), storage=storage)
    yield Hands(context)
    context.engine.dispose()


def finalized(
    hands: Hands,
    staging: StagingKind,
    *,
    content: bytes = CONTENT,
    tenant_id: TenantId | None = None,
    sha256: str | None = None,
) -> Envelope:
    """Leave an upload as the gateway does, and return its event."""
    with Session(hands.context.engine) as session, session.begin():
        event = add_finalized_upload(
            session,
            tenant_id=tenant_id or add_tenant(session),
            staging_dir=hands.context.settings.staging_dir,
            content=content,
            chunk_size=CHUNK_SIZE,
            sha256=sha256,
            staging=staging,
            source_key=SOURCE if staging is StagingKind.REFERENCE else None,
        )
    storage = fake(hands)
    if staging is StagingKind.OBJECTS:
        for key, piece in staged_objects(event, content, chunk_size=CHUNK_SIZE).items():
            storage.objects[key] = Object(piece, "", etag="")
    if staging is StagingKind.REFERENCE:
        storage.objects[SOURCE] = Object(content, "", etag="1")
    return event


def fake(hands: Hands) -> FakeStorage:
    assert isinstance(hands.context.storage, FakeStorage)
    return hands.context.storage


def original(event: Envelope) -> ObjectKey:
    return object_keys.original(event.tenantid, event.data.upload_id)


def is_staged(hands: Hands, event: Envelope) -> bool:
    assert hands.context.settings.staging_dir is not None
    prefix = staging_layout.prefix_of(event.tenantid, event.data.upload_id)
    in_bucket = any(key.startswith(prefix) for key in fake(hands).objects)
    return in_bucket or (hands.context.settings.staging_dir / str(event.data.upload_id)).exists()


def cancel(hands: Hands, event: Envelope) -> Envelope:
    """Do to the rows what the gateway does, and return its event."""
    with Session(hands.context.engine) as session, session.begin():
        return cancel_upload(session, event)


def used_bytes(hands: Hands, tenant_id: TenantId) -> int:
    with Session(hands.context.engine) as session:
        return (
            session.scalar(select(TenantUsage.bytes).where(TenantUsage.tenant_id == tenant_id)) or 0
        )


@every_staging
def test_an_upload_becomes_an_object_and_its_staged_bytes_are_deleted(
    hands: Hands, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(hands, staging)

    assert hands.deliver(event)

    job = hands.job(event)
    assert (job.status, job.bytes_done, job.bytes_total) == (
        JobStatus.COMPLETED,
        len(CONTENT),
        len(CONTENT),
    )
    assert storage.objects[original(event)].content == CONTENT
    assert not is_staged(hands, event)
    assert hands.upload(event).size == len(CONTENT)
    assert used_bytes(hands, event.tenantid) == len(CONTENT)
    if staging is StagingKind.REFERENCE:
        assert storage.objects[SOURCE].content == CONTENT


@every_staging
def test_every_log_line_of_a_transfer_has_the_upload_id_and_the_job_id(
    hands: Hands, staging: StagingKind
) -> None:
    event = finalized(hands, staging)

    with capture_logs(processors=[merge_contextvars]) as lines:
        hands.deliver(event)
        hands.deliver(event)

    # Some are from the threads that send the parts.
    told = {line["event"] for line in lines}
    assert told >= {
        "transfer.part_stored",
        "transfer.object_stored",
        "transfer.already_settled",
    }
    assert {(line["upload_id"], line["job_id"]) for line in lines} == {
        (str(event.data.upload_id), str(event.job_id))
    }


@every_staging
def test_the_next_delivery_deletes_staged_bytes_that_a_worker_left(
    hands: Hands, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(hands, staging)
    inputs = dict(storage.objects)
    hands.deliver(event)
    storage.objects |= inputs

    assert hands.deliver(event)

    assert not is_staged(hands, event)
    assert storage.objects[original(event)].content == CONTENT


def test_chunks_that_were_never_acknowledged_are_deleted(
    hands: Hands, storage: FakeStorage
) -> None:
    event = finalized(hands, StagingKind.OBJECTS)
    refused = staging_layout.chunk_key(
        event.tenantid, event.data.upload_id, index=1, sha256=bytes(32)
    )
    storage.objects[refused] = Object(b"other bytes", "", etag="")

    hands.deliver(event)

    assert not is_staged(hands, event)


@pytest.mark.parametrize("call", ["delete_all", "objects_under"])
def test_staged_objects_that_cannot_be_deleted_are_retried(
    hands: Hands, storage: FakeStorage, call: str
) -> None:
    event = finalized(hands, StagingKind.OBJECTS)
    storage.before = raising(StoreUnavailable(call, reason="down"), on=call)
    assert not hands.deliver(event)
    storage.before = nothing
    assert hands.job(event).status == JobStatus.COMPLETED

    assert hands.deliver(event)

    assert not is_staged(hands, event)


def test_an_upload_in_an_unmounted_directory_waits(settings: Settings, hands: Hands) -> None:
    event = finalized(hands, StagingKind.DIRECTORY)
    elsewhere = Hands(
        replace(
            hands.context,
            settings=settings.model_copy(
                update={"staging": StagingKind.OBJECTS, "staging_dir": None}
            ),
        )
    )

    assert not elsewhere.deliver(event, waits=1)

    assert elsewhere.waiting[-1]["tier"] == topology.RETRY_TIERS[1]
    assert hands.job(event).status == JobStatus.PROCESSING
    assert Hands(hands.context).deliver(event)


# ---- by reference


def test_a_reference_to_a_missing_object_fails(hands: Hands, storage: FakeStorage) -> None:
    event = finalized(hands, StagingKind.REFERENCE)
    del storage.objects[SOURCE]

    assert hands.deliver(event)

    job = hands.job(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, ErrorCode.REFERENCE_MISSING)
    assert hands.upload(event).status == UploadStatus.FAILED
    assert storage.objects == {}


@pytest.mark.parametrize("whose", ["everybody's", "the tenant's own"])
def test_a_reference_larger_than_the_file_size_quota_fails(
    settings: Settings, hands: Hands, whose: str
) -> None:
    event = finalized(hands, StagingKind.REFERENCE)
    if whose == "the tenant's own":
        with Session(hands.context.engine) as session, session.begin():
            session.execute(update(Tenant).values(quota_file_size=len(CONTENT) - 1))
    else:
        smaller = settings.model_copy(update={"upload_max_size": len(CONTENT) - 1})
        hands = Hands(replace(hands.context, settings=smaller))

    assert hands.deliver(event)

    assert hands.job(event).error_code == ErrorCode.FILE_TOO_LARGE
    assert set(fake(hands).objects) == {SOURCE}


@pytest.mark.parametrize("whose", ["everybody's", "the tenant's own"])
def test_a_reference_beyond_the_total_quota_fails_and_uses_no_quota(
    settings: Settings, hands: Hands, whose: str
) -> None:
    first = finalized(hands, StagingKind.REFERENCE)
    hands.deliver(first)
    event = finalized(hands, StagingKind.REFERENCE, tenant_id=first.tenantid)
    quota = 2 * len(CONTENT) - 1
    if whose == "the tenant's own":
        with Session(hands.context.engine) as session, session.begin():
            session.execute(update(Tenant).values(quota_bytes=quota))
    else:
        hands = Hands(
            replace(hands.context, settings=settings.model_copy(update={"quota_bytes": quota}))
        )

    assert hands.deliver(event)

    job = hands.job(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, ErrorCode.QUOTA_EXCEEDED)
    assert used_bytes(hands, event.tenantid) == len(CONTENT)
    assert original(event) not in fake(hands).objects


def test_a_reference_to_a_forbidden_media_type_fails(hands: Hands) -> None:
    event = finalized(hands, StagingKind.REFERENCE)
    with Session(hands.context.engine) as session, session.begin():
        session.execute(update(Tenant).values(allowed_types=["application/pdf"]))

    assert hands.deliver(event)

    assert hands.job(event).error_code == ErrorCode.TYPE_NOT_ALLOWED
    assert set(fake(hands).objects) == {SOURCE}


def test_a_reference_with_another_digest_than_declared_fails(hands: Hands) -> None:
    event = finalized(hands, StagingKind.REFERENCE, sha256="0" * 64)

    assert hands.deliver(event)

    assert hands.job(event).error_code == ErrorCode.FILE_DIGEST_MISMATCH
    assert set(fake(hands).objects) == {SOURCE}


def test_progress_of_another_version_of_a_reference_is_reset(
    hands: Hands, storage: FakeStorage
) -> None:
    event = finalized(hands, StagingKind.REFERENCE)

    def fail(call: Call) -> None:
        if call.part == 2:
            raise StoreUnavailable("copy_part", reason="down")

    storage.before = fail
    # One after the other: the first part is stored when the second one fails.
    settings = hands.context.settings.model_copy(
        update={"task_attempts": 2, "s3_parallel_parts": 1}
    )
    hands = Hands(replace(hands.context, settings=settings))
    assert not hands.deliver(event)
    assert hands.job(event).bytes_done == MIN_PART_SIZE
    storage.before = nothing
    shorter = CONTENT[:-1][::-1]
    storage.objects[SOURCE] = Object(shorter, "", etag="2")

    assert hands.deliver(event)

    job = hands.job(event)
    assert (job.bytes_done, job.bytes_total) == (len(shorter), len(shorter))
    assert storage.objects[original(event)].content == shorter
    assert used_bytes(hands, event.tenantid) == len(shorter)


# ---- in slices


@every_staging
def test_a_transfer_in_many_slices_completes(
    hands: Hands, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(hands, staging)
    settings = hands.context.settings.model_copy(
        update={"transfer_slice": timedelta(microseconds=1), "s3_parallel_parts": 1}
    )
    hands = Hands(replace(hands.context, settings=settings))
    shown: list[int] = []

    while not hands.deliver(event):
        shown.append(hands.job(event).bytes_done)

    assert shown == sorted(set(shown))
    assert storage.objects[original(event)].content == CONTENT
    assert len(storage.parts_sent() + storage.parts_copied()) <= 2 * len(shown) + 2


# ---- cancelled


@every_staging
def test_a_cancelled_upload_is_deleted_with_all_its_leftovers(
    hands: Hands, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(hands, staging)
    storage.create_multipart(original(event), content_type="")
    storage.objects[original(event)] = Object(b"", "", etag="")
    cancelled = cancel(hands, event)

    assert hands.deliver(cancelled)
    assert hands.deliver(cancelled)

    assert not is_staged(hands, event)
    assert storage.open_multiparts(original(event)) == []
    assert set(storage.objects) == ({SOURCE} if staging is StagingKind.REFERENCE else set())


@pytest.mark.parametrize("failing", ["open_multiparts", "delete"])
@pytest.mark.parametrize(
    "error", [StoreUnavailable("test", reason="down"), StoreRejected("test", reason="no")]
)
def test_a_failed_cleanup_of_a_cancelled_upload_is_retried(
    hands: Hands, storage: FakeStorage, failing: str, error: StoreFailed
) -> None:
    event = finalized(hands, StagingKind.DIRECTORY)
    storage.objects[original(event)] = Object(b"", "", etag="")
    cancelled = cancel(hands, event)
    storage.before = raising(error, on=failing)

    assert not hands.deliver(cancelled, attempt=hands.context.settings.task_attempts)

    assert not is_staged(hands, event), "what can go goes at once"
    storage.before = nothing
    assert hands.deliver(cancelled)
    assert original(event) not in storage.objects


@pytest.mark.parametrize(
    "status", [status for status in UploadStatus if status is not UploadStatus.CANCELLED]
)
def test_an_upload_that_is_not_cancelled_is_kept(
    hands: Hands, storage: FakeStorage, status: UploadStatus
) -> None:
    event = finalized(hands, StagingKind.DIRECTORY)
    storage.objects[original(event)] = Object(b"wanted", "", etag="")
    forged = cancel(hands, event)
    with Session(hands.context.engine) as session, session.begin():
        session.execute(update(Upload).values(status=status))

    assert hands.deliver(forged)

    assert storage.objects[original(event)].content == b"wanted"
    assert is_staged(hands, event)


def test_the_cancellation_of_an_unknown_upload_deletes_nothing(
    hands: Hands, storage: FakeStorage
) -> None:
    event = finalized(hands, StagingKind.DIRECTORY)
    cancelled = cancel(hands, event)
    unknown = msgspec.structs.replace(
        cancelled, data=msgspec.structs.replace(cancelled.data, upload_id=uuid4())
    )

    assert hands.deliver(unknown)

    assert storage.called("delete") == 0


def test_a_cancelled_upload_under_a_live_lease_waits(hands: Hands) -> None:
    event = finalized(hands, StagingKind.DIRECTORY)
    cancelled = cancel(hands, event)
    with Session(hands.context.engine) as session, session.begin():
        session.execute(
            update(Job).values(lease_owner="other", lease_until=func.now() + timedelta(minutes=1))
        )

    assert not hands.deliver(cancelled)

    assert hands.waiting[-1]["tier"] == topology.RETRY_TIERS[0]
    assert is_staged(hands, event)


@every_staging
def test_a_worker_that_notices_the_cancel_leaves_nothing_and_lets_go(
    hands: Hands, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(hands, staging)
    told: list[Envelope] = []

    def cancel_it(call: Call) -> None:
        if call.part == 2:
            told.append(cancel(hands, event))

    storage.before = cancel_it

    assert hands.deliver(event)

    assert not is_staged(hands, event)
    assert storage.open_multiparts(original(event)) == []
    assert original(event) not in storage.objects
    assert hands.deliver(told[0]), "the lease was not given back"


@every_staging
def test_a_cancellation_is_noticed_while_the_store_does_not_answer(
    hands: Hands, storage: FakeStorage, staging: StagingKind
) -> None:
    event = finalized(hands, staging)
    cancelled_at: list[float] = []
    aborted_at: list[float] = []
    aborted = Event()

    def be_silent(call: Call) -> None:
        if call.part is not None:
            if call.part == 1:
                cancel(hands, event)
                cancelled_at.append(monotonic())
            aborted.wait(timeout=10)

    def note(call: Call) -> None:
        if call.name == "abort":
            aborted_at.append(monotonic())
            aborted.set()

    storage.before, storage.after = be_silent, note

    assert hands.deliver(event)

    assert aborted_at[0] - cancelled_at[0] < 2
    assert storage.open_multiparts(original(event)) == []
    assert not is_staged(hands, event)


def test_the_parts_of_a_failed_upload_are_deleted_without_a_listing(
    hands: Hands, storage: FakeStorage
) -> None:
    event = finalized(hands, StagingKind.DIRECTORY)

    def hardly_answer(call: Call) -> None:
        if call.name in {"complete", "open_multiparts"}:
            raise StoreUnavailable(call.name, reason="down")

    storage.before = hardly_answer

    assert not hands.deliver(event)

    assert hands.job(event).status == JobStatus.FAILED
    assert list(storage.multiparts_under("")) == []


# ---- killed


def deliver_and_kill(hands: Hands, event: Envelope, *, times: int) -> None:
    """Deliver as the broker does until it is done, killing the worker after a new part each time."""
    crashes = killed = 0
    done = False
    while not done:
        done_before = hands.job(event).bytes_done

        def die(call: Call, *, done_before: int = done_before) -> None:
            if call.part is not None and hands.job(event).bytes_done > done_before:
                raise Killed

        fake(hands).after = die if killed < times else nothing
        try:
            done = hands.deliver(event, crashes=crashes)
        except Killed:
            killed += 1
            crashes += 1
            let_the_lease_run_out(hands)
        else:
            crashes = crashes if done else hands.crashes_waiting()
    assert killed == times


def let_the_lease_run_out(hands: Hands) -> None:
    with Session(hands.context.engine) as session, session.begin():
        session.execute(update(Job).values(lease_until=func.now() - timedelta(seconds=1)))


@every_staging
def test_a_transfer_that_makes_progress_survives_more_crashes_than_the_limit(
    hands: Hands, storage: FakeStorage, staging: StagingKind
) -> None:
    kills = topology.CRASH_LIMIT + 3
    content = Random(2).randbytes((2 * kills) * CHUNK_SIZE)
    event = finalized(hands, staging, content=content)

    deliver_and_kill(hands, event, times=kills)

    assert hands.job(event).status == JobStatus.COMPLETED
    assert storage.objects[original(event)].content == content
    assert storage.open_multiparts(original(event)) == []
    assert not is_staged(hands, event)
    with Session(hands.context.engine) as session:
        assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 1
    parts = -(
        -len(content) // (MIN_PART_SIZE if staging is not StagingKind.OBJECTS else CHUNK_SIZE)
    )
    in_flight = hands.context.settings.s3_parallel_parts
    assert len(storage.parts_sent() + storage.parts_copied()) <= parts + kills * in_flight


def test_a_transfer_without_progress_is_given_up_at_the_crash_limit(
    hands: Hands, storage: FakeStorage
) -> None:
    event = finalized(hands, StagingKind.DIRECTORY)

    def die(call: Call) -> None:
        if call.part is not None:
            raise Killed

    storage.before = die
    for crashes in range(topology.CRASH_LIMIT):
        with pytest.raises(Killed):
            hands.deliver(event, crashes=crashes)
        let_the_lease_run_out(hands)
    storage.before = nothing

    assert hands.deliver(event, crashes=topology.CRASH_LIMIT)

    assert hands.waiting == []
    assert hands.job(event).error_code == ErrorCode.ATTEMPTS_EXHAUSTED
    assert storage.open_multiparts(original(event)) == []
