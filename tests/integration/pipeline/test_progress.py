"""When the progress of a transfer is recorded, and when a slice ends."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from pipeline.context import Context, build_context
from pipeline.ingest.extractors import registry
from pipeline.steps import lease
from pipeline.steps.errors import LeaseLost
from pipeline.steps.lease import ClaimedStep
from pipeline.transfer import claim as transfers
from pipeline.transfer.claim import ClaimedTransfer
from pipeline.transfer.progress import PROGRESS_INTERVAL, PartsLost, Progress, SliceEnded
from pipeline.transfer.resume import Checkpoint
from schemas.ids import JobId, UploadId
from schemas.settings import DatabaseSettings
from schemas.steps import StepName
from tests.factories.uploads import add_finalized_upload, add_tenant, upload_of
from tests.integration.pipeline.transfer_worker import worker_settings
from tests.seen_jobs import SeenJob, seen_job

SLICE = timedelta(minutes=10)
A_MOMENT = timedelta(milliseconds=1)


class Clock:
    def __init__(self) -> None:
        self._now = 1_000.0

    def __call__(self) -> float:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by.total_seconds()


@pytest.fixture
def context(database: DatabaseSettings, tmp_path: Path) -> Iterator[Context]:
    settings = worker_settings(database, staging_dir=tmp_path, transfer_slice=SLICE)
    context = build_context(settings, will_be_read=registry.will_be_read)
    yield context
    context.engine.dispose()


@pytest.fixture
def claimed(context: Context, tmp_path: Path) -> ClaimedTransfer:
    with Session(context.engine) as session, session.begin():
        event = add_finalized_upload(
            session, tenant_id=add_tenant(session), staging_dir=tmp_path, content=bytes(100)
        )
    assert event.job_id is not None
    return claim(context, event.job_id, upload_of(event), owner="worker")


def claim(context: Context, job_id: JobId, upload_id: UploadId, *, owner: str) -> ClaimedTransfer:
    with context.transaction() as session:
        claimed = lease.claim(
            session,
            job_id=job_id,
            name=StepName.TRANSFER,
            owner=owner,
            settings=context.settings,
        )
        assert isinstance(claimed, ClaimedStep)
        return transfers.load(session, claimed, upload_id=upload_id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(context: Context, claimed: ClaimedTransfer, clock: Clock) -> Progress:
    return Progress(context, claimed, clock=clock)


def job(context: Context, claimed: ClaimedTransfer) -> SeenJob:
    with Session(context.engine) as session:
        return seen_job(session, claimed.job_id)


def test_the_first_new_part_is_recorded_at_once_and_later_parts_at_intervals(
    context: Context, claimed: ClaimedTransfer, progress: Progress, clock: Clock
) -> None:
    progress.bytes_stored(10, Checkpoint(10, state=b"first"))
    assert job(context, claimed).bytes_done == 10

    clock.advance(PROGRESS_INTERVAL - A_MOMENT)
    progress.bytes_stored(20, Checkpoint(20, state=b"second"))
    assert (job(context, claimed).bytes_done, job(context, claimed).digest_state) == (10, b"first")

    clock.advance(2 * A_MOMENT)
    progress.bytes_stored(30, Checkpoint(30, state=b"third"))
    assert (job(context, claimed).bytes_done, job(context, claimed).digest_state) == (30, b"third")


def test_a_renewal_records_pending_progress(
    context: Context, claimed: ClaimedTransfer, progress: Progress
) -> None:
    progress.bytes_stored(10, None)
    progress.bytes_stored(20, Checkpoint(20, state=b"state"))

    progress.renew()

    assert (job(context, claimed).bytes_done, job(context, claimed).digested_bytes) == (20, 20)


def test_a_new_multipart_upload_has_no_checkpoint(
    context: Context, claimed: ClaimedTransfer, progress: Progress
) -> None:
    progress.multipart_created("one")
    progress.bytes_stored(10, Checkpoint(10, state=b"of the first"))

    progress.multipart_created("another")

    assert (job(context, claimed).multipart_id, job(context, claimed).digest_state) == (
        "another",
        None,
    )


def next_delivery(context: Context, claimed: ClaimedTransfer) -> ClaimedTransfer:
    """Release the lease, and claim the transfer for the next delivery."""
    with context.transaction() as session:
        lease.release_lease(session, claimed.step)
    return claim(context, claimed.job_id, claimed.upload_id, owner=f"after {claimed.step.owner}")


def test_progress_is_reset_for_a_lost_multipart_upload(
    context: Context, claimed: ClaimedTransfer, progress: Progress, clock: Clock
) -> None:
    progress.multipart_created("lost")
    progress.bytes_stored(90, Checkpoint(90, state=b"state"))
    again = next_delivery(context, claimed)
    assert again.bytes_done == 90
    progress = Progress(context, again, clock=clock)

    progress.multipart_created("another")
    assert job(context, claimed).bytes_done == 0

    progress.bytes_stored(10, None)
    assert job(context, claimed).bytes_done == 10
    with context.transaction() as session:
        assert not lease.got_further(session, job_id=claimed.job_id, name=StepName.TRANSFER), (
            "90 bytes were stored before"
        )


def test_a_worker_without_a_lease_cannot_begin_anew(
    context: Context, claimed: ClaimedTransfer, progress: Progress
) -> None:
    progress.multipart_created("one")
    progress.bytes_stored(90, None)
    next_delivery(context, claimed)

    with pytest.raises(LeaseLost):
        progress.multipart_created("another")

    assert (job(context, claimed).multipart_id, job(context, claimed).bytes_done) == ("one", 90)


def test_a_slice_after_a_loss_of_parts_counts_as_an_attempt(
    context: Context, claimed: ClaimedTransfer, progress: Progress, clock: Clock
) -> None:
    progress.multipart_created("lost")
    progress.bytes_stored(90, None)
    second = next_delivery(context, claimed)
    progress = Progress(context, second, clock=clock)
    progress.multipart_created("another")

    clock.advance(SLICE + A_MOMENT)
    with pytest.raises(PartsLost, match="90 bytes"):
        progress.bytes_stored(10, None)

    progress = Progress(context, next_delivery(context, second), clock=clock)
    clock.advance(SLICE + A_MOMENT)
    with pytest.raises(SliceEnded):
        progress.bytes_stored(20, None)


def test_a_slice_that_sends_all_lost_parts_again_does_not_count_as_an_attempt(
    context: Context, claimed: ClaimedTransfer, progress: Progress, clock: Clock
) -> None:
    progress.multipart_created("lost")
    progress.bytes_stored(90, None)
    progress = Progress(context, next_delivery(context, claimed), clock=clock)
    progress.multipart_created("another")

    clock.advance(SLICE + A_MOMENT)
    with pytest.raises(SliceEnded):
        progress.bytes_stored(claimed.size, None)


def test_a_slice_ends_after_the_first_new_part_once_its_time_is_over(
    context: Context, claimed: ClaimedTransfer, progress: Progress, clock: Clock
) -> None:
    clock.advance(SLICE + A_MOMENT)
    progress.renew()

    with pytest.raises(SliceEnded):
        progress.bytes_stored(10, Checkpoint(10, state=b"state"))

    assert (job(context, claimed).bytes_done, job(context, claimed).digest_state) == (10, b"state")
