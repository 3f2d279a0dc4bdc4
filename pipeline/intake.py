"""The door from the broker into Celery: which task an event starts.

Facts are past tense, orders imperative; this table is where the one becomes
the other, and its names are what the logs and Flower show.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.consumer import EventConsumer
from pipeline.event_task import EventTask
from pipeline.ingest.tasks import ingest_document
from pipeline.transfer.tasks import upload_to_object_store
from schemas import topology

TASKS: Final[tuple[EventTask, ...]] = (upload_to_object_store, ingest_document)


class AmbiguousIntake(ValueError):
    """A worker asked for two queues on which the same event starts different tasks."""

    def __init__(self, event_type: str, tasks: Iterable[str]) -> None:
        super().__init__(
            f"{event_type} starts {' and '.join(sorted(tasks))}: run a worker per queue"
        )


def tasks_for(queues: Iterable[str]) -> Mapping[str, str]:
    """Return event type → task name for a worker that consumes these queues.

    Raises:
        AmbiguousIntake: two of the queues handle the same event differently.
    """
    chosen: dict[str, str] = {}
    for task in TASKS:
        if task.home_queue not in queues:
            continue
        for event_type in topology.SUBSCRIPTIONS[task.home_queue]:
            if event_type in chosen:
                raise AmbiguousIntake(event_type, (chosen[event_type], task.name))
            chosen[event_type] = task.name
    return chosen


def open_for(queues: Iterable[str]) -> None:
    """Let the worker's consumer know its tasks; called once, before it consumes."""
    EventConsumer.tasks_by_event = tasks_for(frozenset(queues))
