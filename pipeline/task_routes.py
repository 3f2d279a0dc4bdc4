"""The table of the tasks that events start.

Events are past tense, tasks are imperative. The task names are what the logs
and Flower show.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from celery import Celery

from pipeline.batch.cleanup_task import CleanUpBatch
from pipeline.batch.task import RunBatch
from pipeline.beat import PERIODIC_TASKS
from pipeline.bulk.task import ActOnJobs
from pipeline.export.task import ExportRows
from pipeline.index.task import IndexPassages
from pipeline.ingest.metadata_task import ExtractMetadata
from pipeline.ingest.ocr_task import RecognizePages
from pipeline.ingest.render_task import RenderPage
from pipeline.ingest.tables_task import FindTablesOfDocument
from pipeline.ingest.task import IngestDocument, IngestRest
from pipeline.messaging.consumer import EventConsumer
from pipeline.messaging.event_task import EventTask
from pipeline.replay.task import ReplayDeliveries
from pipeline.scan.task import ScanFile
from pipeline.transfer.task import CleanUpUpload, TransferUpload
from schemas import queues, topology
from schemas.events.batches import BatchCancelRequested, BatchReceived
from schemas.events.documents import (
    IndexRequested,
    RenderRequested,
    ReprocessRequested,
    TablesRequested,
)
from schemas.events.endpoints import ReplayRequested
from schemas.events.exports import ExportRequested
from schemas.events.jobs import JobActionRequested
from schemas.events.uploads import StoredEvent, UploadCancelled, UploadFinalized

READING: Final = frozenset(
    {
        queues.METADATA_EXTRACTION,
        queues.DOCUMENT_PROCESSING,
        queues.BATCH_PROCESSING,
        queues.OCR_PROCESSING,
    }
)
"""Queues whose tasks read documents in child processes."""


def _reads(task: type[EventTask]) -> Mapping[str, type[EventTask]]:
    """Return the events that start the scan or the reading of a document, each with the task."""
    return {StoredEvent.TYPE: task, ReprocessRequested.TYPE: task}


TASKS: Final[Mapping[str, Mapping[str, type[EventTask]]]] = MappingProxyType(
    {
        queues.UPLOADS: {
            UploadFinalized.TYPE: TransferUpload,
            **_reads(ScanFile),
            UploadCancelled.TYPE: CleanUpUpload,
            BatchCancelRequested.TYPE: CleanUpBatch,
        },
        queues.METADATA_EXTRACTION: {
            **_reads(ExtractMetadata),
            RenderRequested.TYPE: RenderPage,
        },
        queues.DOCUMENT_PROCESSING: _reads(IngestDocument),
        queues.BATCH_PROCESSING: {
            **_reads(IngestRest),
            TablesRequested.TYPE: FindTablesOfDocument,
            BatchReceived.TYPE: RunBatch,
        },
        queues.OCR_PROCESSING: _reads(RecognizePages),
        queues.SEARCH_INDEXING: {IndexRequested.TYPE: IndexPassages},
        queues.EXPORTS: {
            ReplayRequested.TYPE: ReplayDeliveries,
            ExportRequested.TYPE: ExportRows,
            JobActionRequested.TYPE: ActOnJobs,
        },
    },
)
"""Queue → event type → task."""


class QueuesWithoutTasks(ValueError):
    """The worker has no queue, or a queue without tasks, whose events would be dead-lettered."""

    def __init__(self, queues: Iterable[str]) -> None:
        known = ", ".join((*TASKS, *topology.PERIODIC_QUEUES))
        named = ", ".join(sorted(queues)) or "none"
        super().__init__(f"name queues with --queues: some of {known}, not {named}")


def tasks_for(queues: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """Return queue → event type → task name for a worker that consumes these queues.

    Raises:
        QueuesWithoutTasks: there is no queue, or one of them has no tasks.
    """
    queues = frozenset(queues)
    without_tasks = queues - {*TASKS, *topology.PERIODIC_QUEUES}
    if without_tasks or not queues:
        raise QueuesWithoutTasks(without_tasks)
    return {
        queue: {event_type: task.name for event_type, task in tasks.items()}
        for queue, tasks in TASKS.items()
        if queue in queues
    }


def register(app: Celery) -> None:
    """Register every task with a configured application.

    A task copies its acknowledgement mode and its limits from the configuration
    when it is registered. A task that is registered before the configuration would acknowledge
    early, and lose its event when its worker dies.
    """
    of_events = {task for tasks in TASKS.values() for task in tasks.values()}
    for task in (*of_events, *PERIODIC_TASKS):
        app.register_task(task())


def route(queues: Iterable[str]) -> None:
    """Give the worker's consumer the tasks of its queues; called once, before it consumes.

    Raises:
        QueuesWithoutTasks: there is no queue, or one of them has no tasks.
    """
    EventConsumer.tasks = tasks_for(queues)
    EventConsumer.periodic_tasks = frozenset(task.name for task in PERIODIC_TASKS)
