"""Events of jobs that act on other jobs."""

from datetime import datetime
from typing import Annotated, ClassVar, TypeAlias

import msgspec

from schemas.ids import JobId
from schemas.lifecycle import JobAction, JobKind


class JobActionRequested(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of a filter are to be cancelled or retried; only starts the step of a job."""

    TYPE: ClassVar[str] = "job.action_requested"

    job_id: JobId
    action: JobAction
    filter: Annotated[str, msgspec.Meta(description="the filter of the request, as JSON")]
    """`schemas.api.jobs.JobFilter`."""
    kinds: tuple[JobKind, ...]
    """Jobs of these kinds only: those that the API key of the request may start."""
    created_before: Annotated[datetime, msgspec.Meta(tz=True)]
    """The time of the request; later jobs are left alone."""

    @property
    def subject(self) -> JobId:
        return self.job_id


JobEvent: TypeAlias = JobActionRequested
