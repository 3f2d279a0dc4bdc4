"""Why a worker cannot start a step, or has to stop working on it."""

from pipeline.messaging.event_task import RetryLater
from schemas.errors import DomainError, ErrorCode
from schemas.ids import JobId
from schemas.steps import StepName


class LeaseHeld(RetryLater):
    """Another worker holds the lease, or its lease has not expired yet."""


class LeaseLost(DomainError):
    """Another worker has taken the step over; this worker must not change anything outside."""

    code = ErrorCode.UNAVAILABLE
    retryable = True

    def __init__(self) -> None:
        super().__init__("another worker has taken the step over")


class StepCancelled(DomainError):
    """The client cancelled the job; nothing of it may be kept."""

    code = ErrorCode.CANCELLED

    def __init__(self) -> None:
        super().__init__("the job was cancelled")


class UnknownStep(DomainError):
    """The event names a job without such a step."""

    code = ErrorCode.JOB_NOT_FOUND

    def __init__(self, job_id: JobId | None, name: StepName) -> None:
        super().__init__(f"there is no job {job_id} with a step {name}")
