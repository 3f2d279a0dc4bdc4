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


def test_a_queued_job_is_at_the_start() -> None:
    assert transferring(0, of=100, status=JobStatus.QUEUED) == 0


def test_half_the_bytes_are_half_of_the_transfers_share() -> None:
    assert transferring(50, of=100) == 30


def test_reading_starts_where_the_transfer_ended() -> None:
    assert transferring(100, of=100) == ingesting(0, of=None) == ingesting(0, of=7) == 60


def test_only_the_end_is_a_hundred() -> None:
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


def test_a_failed_job_stays_where_it_stood() -> None:
    assert transferring(50, of=100, status=JobStatus.FAILED) == 30


def test_an_empty_file_divides_by_nothing() -> None:
    assert transferring(0, of=0) == 0


@given(counts, counts, counts)
def test_progress_never_goes_back(earlier: int, later: int, total: int) -> None:
    earlier, later = sorted((earlier, later))

    assert 0 <= transferring(earlier, of=total) <= transferring(later, of=total) <= 60
    assert 60 <= ingesting(earlier, of=total) <= ingesting(later, of=total) <= 99
