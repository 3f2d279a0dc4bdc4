"""The steps of jobs: their names, queues, units and shares of a job's progress."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from schemas import queues


class JobStage(StrEnum):
    """The name of the step that a job is in; `done` once every step is completed."""

    TRANSFER = "transfer"
    INGEST = "ingest"
    DONE = "done"


class StepName(StrEnum):
    """`transfer` stores the file as one object, `ingest` reads its document, `cleanup` deletes what a cancelled job has left."""

    TRANSFER = "transfer"
    INGEST = "ingest"
    CLEANUP = "cleanup"  # of a cancelled job; a job with this step is cancelled


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """A kind of step.

    Attributes:
        name: unique within a job.
        queue: the work queue that receives the event of the step.
        ordinal: position in the timeline of a job.
        unit: what `done` and `total` of the step count; None if it has no progress.
        weight: share of the job's progress, in percent.
    """

    name: StepName
    queue: str
    ordinal: int
    unit: str | None
    weight: int


STEPS: Final[Mapping[StepName, StepKind]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            StepKind(
                name=StepName.TRANSFER,
                queue=queues.UPLOADS,
                ordinal=0,
                unit="bytes",
                weight=60,
            ),
            StepKind(
                name=StepName.INGEST,
                queue=queues.DOCUMENT_PROCESSING,
                ordinal=1,
                unit="pages",
                weight=39,
            ),
            StepKind(
                name=StepName.CLEANUP,
                queue=queues.UPLOADS,
                ordinal=9,
                unit=None,
                weight=0,
            ),
        )
    }
)
