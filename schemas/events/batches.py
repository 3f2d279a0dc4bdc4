"""Events of a batch: many files in one request."""

from typing import Annotated, ClassVar, TypeAlias

import msgspec

from schemas.ids import BatchId, JobId


class _BatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    batch_id: BatchId
    job_id: JobId

    @property
    def subject(self) -> BatchId:
        return self.batch_id


class _Counted(_BatchEvent, frozen=True, kw_only=True):
    lines: Annotated[int, msgspec.Meta(description="all lines that are not empty")]
    rejected: Annotated[
        int, msgspec.Meta(description="lines that were not valid when they were received")
    ]
    completed: int
    failed: Annotated[
        int, msgspec.Meta(description="lines whose jobs failed, or that could not become jobs")
    ]
    cancelled: int


class BatchReceived(_BatchEvent, frozen=True, kw_only=True):
    """Every line of a batch is stored; only starts the step of a job."""

    TYPE: ClassVar[str] = "batch.received"


class BatchCancelRequested(_BatchEvent, frozen=True, kw_only=True):
    """No further line of a batch becomes a job; only starts the step that cancels its lines."""

    TYPE: ClassVar[str] = "batch.cancel_requested"


class BatchCompleted(_Counted, frozen=True, kw_only=True):
    """Every line of a batch has ended; `GET /batches/{batch_id}/report` has the result of each."""

    TYPE: ClassVar[str] = "batch.completed"


class BatchCancelled(_Counted, frozen=True, kw_only=True):
    """A batch was cancelled, and every line has ended."""

    TYPE: ClassVar[str] = "batch.cancelled"


class BatchFailed(_Counted, frozen=True, kw_only=True):
    """A batch stopped because of a fault of the system; lines that had no turn stay waiting."""

    TYPE: ClassVar[str] = "batch.failed"

    code: Annotated[
        str,
        msgspec.Meta(
            description="stable code of the error, as in the job: `attempts_exhausted` or `internal`"
        ),
    ]
    detail: Annotated[str, msgspec.Meta(description="a sentence for people")]


BatchEvent: TypeAlias = (
    BatchReceived | BatchCancelRequested | BatchCompleted | BatchCancelled | BatchFailed
)
