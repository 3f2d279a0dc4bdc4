"""A job as clients see it, from its row and its steps."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.view import progress, show
from schemas.api.jobs import JobError
from schemas.lifecycle import JobStatus, StepStatus
from schemas.steps import STEPS, StepName
from schemas.tables.steps import Step
from tests.factories.jobs import NOW, a_job_row, a_step

TRANSFERRED = a_step(StepName.TRANSFER, StepStatus.COMPLETED, done=5, total=5, finished_at=NOW)
CLEANUP = a_step(StepName.CLEANUP, StepStatus.QUEUED)
counts = st.integers(0, 2**62)


def transferring(done: int, *, of: int | None, status: StepStatus = StepStatus.RUNNING) -> Step:
    return a_step(StepName.TRANSFER, status, done=done, total=of)


def ingesting(done: int, *, of: int | None, status: StepStatus = StepStatus.RUNNING) -> Step:
    return a_step(StepName.INGEST, status, done=done, total=of)


def test_the_weights_of_the_steps_of_an_upload_leave_100_to_a_completed_job() -> None:
    assert sum(kind.weight for kind in STEPS.values()) == 99


@pytest.mark.parametrize("status", [StepStatus.WAITING, StepStatus.QUEUED])
def test_a_queued_job_has_progress_0(status: StepStatus) -> None:
    assert progress([transferring(0, of=100, status=status)]) == 0


def test_half_of_the_bytes_is_half_of_the_transfer_share() -> None:
    assert progress([transferring(50, of=100)]) == 30


def test_ingest_starts_where_the_transfer_ends() -> None:
    assert progress([transferring(100, of=100)]) == 60
    assert progress([TRANSFERRED, ingesting(0, of=None)]) == 60
    assert progress([TRANSFERRED, ingesting(0, of=7)]) == 60


def test_only_a_job_whose_steps_are_all_completed_has_progress_100() -> None:
    assert progress([TRANSFERRED, ingesting(7, of=7)]) == 88
    assert progress([TRANSFERRED, ingesting(7, of=7, status=StepStatus.COMPLETED)]) == 100
    assert progress([TRANSFERRED]) == 100
    assert progress([]) == 0


def test_progress_never_decreases_through_all_steps_of_a_reading() -> None:
    read = ingesting(7, of=10, status=StepStatus.COMPLETED)
    rest_read = a_step(StepName.INGEST_REST, StepStatus.COMPLETED, done=10, total=10)
    described = a_step(StepName.METADATA, StepStatus.COMPLETED)
    stages = [
        [ingesting(0, of=None)],
        [described, ingesting(5, of=10)],
        [described, ingesting(7, of=10)],
        [described, read, a_step(StepName.INGEST_REST, done=7, total=10)],
        [described, read, a_step(StepName.INGEST_REST, done=9, total=10)],
        [described, read, rest_read, a_step(StepName.OCR, done=0, total=4)],
        [described, read, rest_read, a_step(StepName.OCR, done=4, total=4)],
        [described, read, rest_read, a_step(StepName.OCR, StepStatus.COMPLETED, done=4, total=4)],
    ]
    of_upload = [progress([TRANSFERRED, *steps]) for steps in stages]
    of_reprocessing = [progress(steps) for steps in stages]
    assert of_upload == [60, 75, 80, 80, 86, 89, 99, 100]
    assert of_reprocessing == [0, 38, 50, 50, 66, 73, 99, 100]


@pytest.mark.parametrize("status", [StepStatus.FAILED, StepStatus.CANCELLED])
def test_a_job_that_failed_or_was_cancelled_keeps_its_progress(status: StepStatus) -> None:
    assert progress([transferring(50, of=100, status=status)]) == 30
    assert progress([transferring(50, of=100, status=status), CLEANUP]) == 30
    assert progress([TRANSFERRED, ingesting(1, of=3, status=status), CLEANUP]) == 69


def test_the_purge_of_a_completed_job_keeps_progress_100() -> None:
    assert progress([TRANSFERRED, CLEANUP]) == 100


@pytest.mark.parametrize("total", [0, None])
def test_an_empty_file_and_a_file_of_unknown_size_have_progress_0(total: int | None) -> None:
    assert progress([transferring(0, of=total)]) == 0


@given(counts, counts, counts)
def test_more_work_done_never_lowers_progress(earlier: int, later: int, total: int) -> None:
    earlier, later = sorted((earlier, later))

    assert progress([transferring(earlier, of=total)]) >= 0
    assert progress([transferring(earlier, of=total)]) <= progress([transferring(later, of=total)])
    first, second = (progress([TRANSFERRED, ingesting(n, of=total)]) for n in (earlier, later))
    assert 60 <= first <= second <= 88


def test_counts_and_the_time_of_storage_come_from_the_steps() -> None:
    job = a_job_row()

    begun = show(job, [transferring(2, of=5)])
    read = show(job, [TRANSFERRED, ingesting(1, of=3)])

    assert (begun.bytes_done, begun.bytes_total, begun.stored_at) == (2, 5, None)
    assert (begun.pages_done, begun.pages_total) == (0, None)
    assert (read.bytes_done, read.bytes_total, read.stored_at) == (5, 5, NOW)
    assert (read.pages_done, read.pages_total) == (1, 3)


def test_the_error_of_a_failed_job_is_that_of_the_step_that_failed() -> None:
    step = a_step(
        StepName.INGEST,
        StepStatus.FAILED,
        error_code="document_corrupt",
        error_detail="it is cut off",
    )
    error = JobError(code="document_corrupt", detail="it is cut off", retryable=False)

    failed = show(a_job_row(JobStatus.FAILED), [TRANSFERRED, step])
    purged = show(a_job_row(JobStatus.CANCELLED), [TRANSFERRED, step, CLEANUP])

    assert failed.error == error
    assert purged.error is None
    assert [shown.error for shown in purged.steps] == [None, error, None]


def test_an_error_of_an_attempt_that_will_be_repeated_is_no_error_of_the_job() -> None:
    step = a_step(StepName.TRANSFER, attempts=1, error_code="store_unavailable")

    shown = show(a_job_row(), [step])

    assert shown.error is None
    assert (shown.steps[0].attempts, shown.steps[0].error) == (
        1,
        JobError(code="store_unavailable", detail="", retryable=False),
    )


def test_the_timeline_has_the_steps_in_order_with_their_times() -> None:
    later = NOW + timedelta(minutes=1)
    step = a_step(StepName.INGEST, done=1, total=3, queued_at=NOW, started_at=later)

    first, second = show(a_job_row(), [TRANSFERRED, step]).steps

    assert (first.name, first.status, first.unit) == ("transfer", "completed", "bytes")
    assert (second.name, second.done, second.total, second.unit) == ("ingest", 1, 3, "pages")
    assert (second.queued_at, second.started_at, second.finished_at) == (NOW, later, None)


def test_only_a_step_with_a_known_place_shows_it() -> None:
    steps = [TRANSFERRED, ingesting(0, of=None, status=StepStatus.WAITING)]

    detail = show(a_job_row(), steps, places={StepName.INGEST: 7})
    listed = show(a_job_row(), steps)

    assert [step.place for step in detail.steps] == [None, 7]
    assert [step.place for step in listed.steps] == [None, None]


def test_the_progress_of_a_replay_is_that_of_its_step() -> None:
    running = [a_step(StepName.REPLAY, done=done, total=3600) for done in (0, 1800, 3600)]
    completed = a_step(StepName.REPLAY, StepStatus.COMPLETED, done=3600, total=3600)

    assert [progress([each]) for each in running] == [0, 49, 99]
    assert progress([completed]) == 100
