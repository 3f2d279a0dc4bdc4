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
    SCAN = "scan"
    METADATA = "metadata"
    INGEST = "ingest"
    INGEST_REST = "ingest_rest"
    OCR = "ocr"
    TABLES = "tables"
    RENDER = "render"
    REPLAY = "replay"
    EXPORT = "export"
    BATCH = "batch"
    BULK = "bulk"
    DONE = "done"


class StepName(StrEnum):
    """What a worker does for a job; the steps `metadata` and `ingest` run at the same time."""

    TRANSFER = "transfer"  # stores the file as one object
    SCAN = "scan"  # looks for malware in the stored file, before anything reads it
    METADATA = "metadata"  # title, outline and thumbnail of a document
    INGEST = "ingest"  # reads the pages, for a limited time
    INGEST_REST = "ingest_rest"  # reads the pages for which `ingest` had no time
    OCR = "ocr"  # recognises the pages that are pictures of text
    TABLES = "tables"  # finds the tables and figures of a published revision
    RENDER = "render"  # makes the image of a page or figure; the only step of its job
    INDEX = "index"  # makes vectors of the passages of a published document; its job does not wait for it
    REPLAY = "replay"  # makes deliveries of an endpoint due again
    EXPORT = "export"  # writes the file of an export
    BATCH = "batch"  # turns the lines of a batch into jobs
    BULK = "bulk"  # cancels or retries the jobs of a filter
    CLEANUP = "cleanup"  # of a cancelled job; a job with this step is cancelled


@dataclass(frozen=True, kw_only=True)
class StepKind:
    """A kind of step.

    Attributes:
        name: unique within a job.
        queue: the work queue that receives the event of the step.
        ordinal: position in the timeline of a job.
        unit: what `done` and `total` of the step count; None if it has no progress.
        weight: share of the progress of an upload's job, in percent. The pages of `ingest_rest`
            count in the share of `ingest`. The only step of a job has no weight: the progress of the
            job is that of the step.
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
                name=StepName.SCAN,
                queue=queues.UPLOADS,
                ordinal=1,
                unit=None,
                weight=0,
            ),
            StepKind(
                name=StepName.METADATA,
                queue=queues.METADATA_EXTRACTION,
                ordinal=2,
                unit=None,
                weight=1,
            ),
            StepKind(
                name=StepName.INGEST,
                queue=queues.DOCUMENT_PROCESSING,
                ordinal=3,
                unit="pages",
                weight=28,
            ),
            StepKind(
                name=StepName.INGEST_REST,
                queue=queues.BATCH_PROCESSING,
                ordinal=4,
                unit="pages",
                weight=0,
            ),
            StepKind(
                name=StepName.OCR,
                queue=queues.OCR_PROCESSING,
                ordinal=5,
                unit="pages",
                weight=10,
            ),
            StepKind(
                name=StepName.RENDER,
                queue=queues.METADATA_EXTRACTION,
                ordinal=6,
                unit=None,
                weight=0,
            ),
            StepKind(
                name=StepName.TABLES,
                queue=queues.BATCH_PROCESSING,
                ordinal=6,
                unit="pages",
                weight=0,
            ),
            StepKind(
                name=StepName.INDEX,
                queue=queues.SEARCH_INDEXING,
                ordinal=8,
                unit="passages",
                weight=0,
            ),
            StepKind(
                name=StepName.REPLAY,
                queue=queues.EXPORTS,
                ordinal=0,
                unit="seconds",
                weight=0,
            ),
            StepKind(
                name=StepName.EXPORT,
                queue=queues.EXPORTS,
                ordinal=0,
                unit="rows",
                weight=0,
            ),
            StepKind(
                name=StepName.BATCH,
                queue=queues.BATCH_PROCESSING,
                ordinal=0,
                unit="lines",
                weight=0,
            ),
            StepKind(
                name=StepName.BULK,
                queue=queues.EXPORTS,
                ordinal=0,
                unit="jobs",
                weight=0,
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

FIRST_OF_READING: Final = (StepName.METADATA, StepName.INGEST)
"""The steps with which a reading begins, in the order of their ordinals."""

ASIDE: Final = frozenset({StepName.CLEANUP, StepName.INDEX})
"""Steps that count neither in the progress nor for the end of a job."""

WEIGHTS: Final = sum(kind.weight for kind in STEPS.values())
"""Below 100: only a job whose steps are all completed has a progress of 100."""
