"""Why a job cannot be cancelled or retried."""

from datetime import timedelta
from typing import Final

from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId
from schemas.lifecycle import JobStatus

BUSY_FOR: Final = timedelta(seconds=2)
"""A worker notices a cancellation within a second, and cleans up in about another."""


class JobNotCancellable(DomainError):
    """The job has ended."""

    code = ErrorCode.JOB_NOT_CANCELLABLE

    def __init__(self, job_id: JobId, *, status: JobStatus) -> None:
        super().__init__(f"job {job_id} cannot be cancelled: it is {status}")


class JobNotRetryable(DomainError):
    """The job has no step that failed or was cancelled, or its file has malware."""

    code = ErrorCode.JOB_NOT_RETRYABLE

    def __init__(self, job_id: JobId, *, reason: str) -> None:
        super().__init__(f"job {job_id} cannot be retried: {reason}")


class JobSourceGone(DomainError):
    """What the step reads is deleted; only a new job can succeed."""

    code = ErrorCode.JOB_SOURCE_GONE

    def __init__(self, job_id: JobId, *, reason: str) -> None:
        super().__init__(f"job {job_id} cannot be retried: {reason}")


class JobBusy(DomainError):
    """A worker still cleans up after the job, or another job does the same work."""

    code = ErrorCode.JOB_BUSY
    retryable = True
    retry_after = BUSY_FOR

    def __init__(self, job_id: JobId, *, reason: str) -> None:
        super().__init__(f"job {job_id} cannot be retried now: {reason}")
