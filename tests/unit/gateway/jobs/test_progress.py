from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.queries import progress
from schemas.lifecycle import JobStage, JobStatus

counts = st.integers(0, 2**62)


def transferring(done: int, *, of: int, status: JobStatus = JobStatus.PROCESSING) -> int:
    return progress(
        status=status,
        stage=JobStage.TRANSFER,
        bytes_done=done,
        bytes_total=of,
        pages_done=0,
        pages_total=None,
    )


def ingesting(done: int, *, of: int | None) -> int:
    return progress(
        status=JobStatus.PROCESSING,
        stage=JobStage.INGEST,
        bytes_done=5,
        bytes_total=5,
        pages_done=done,
        pages_total=of,
    )


def test_a_queued_job_has_progress_0() -> None:
    assert transferring(0, of=100, status=JobStatus.QUEUED) == 0


def test_half_of_the_bytes_is_half_of_the_transfer_share() -> None:
    assert transferring(50, of=100) == 30


def test_ingest_starts_where_the_transfer_ends() -> None:
    assert transferring(100, of=100) == ingesting(0, of=None) == ingesting(0, of=7) == 60


def test_only_a_completed_job_has_progress_100() -> None:
    assert ingesting(7, of=7) == 99
    assert (
        progress(
            status=JobStatus.COMPLETED,
            stage=JobStage.DONE,
            bytes_done=0,
            bytes_total=0,
            pages_done=0,
            pages_total=None,
        )
        == 100
    )


def test_a_failed_job_keeps_its_progress() -> None:
    assert transferring(50, of=100, status=JobStatus.FAILED) == 30


def test_an_empty_file_has_progress_0() -> None:
    assert transferring(0, of=0) == 0


@given(counts, counts, counts)
def test_more_work_done_never_lowers_progress(earlier: int, later: int, total: int) -> None:
    earlier, later = sorted((earlier, later))

    assert 0 <= transferring(earlier, of=total) <= transferring(later, of=total) <= 60
    assert 60 <= ingesting(earlier, of=total) <= ingesting(later, of=total) <= 99
