"""The door from the broker into Celery: which task an event starts.

Facts are past tense, orders imperative; this table is where the one becomes
the other, and its names are what the logs and Flower show.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from celery import Celery

from pipeline.consumer import EventConsumer
from pipeline.event_task import EventTask
from pipeline.ingest.tasks import IngestDocument
from pipeline.transfer.tasks import UploadToObjectStore
from schemas import topology

TASKS: Final[tuple[type[EventTask], ...]] = (UploadToObjectStore, IngestDocument)


class WrongQueues(ValueError):
    """The queues a worker was started with are not ones it can work on."""


class NoTasks(WrongQueues):
    """No queue was named, or one without a task: its events would be dead-lettered one and all."""

    def __init__(self, queues: Iterable[str]) -> None:
        known = ", ".join(task.home_queue for task in TASKS)
        named = ", ".join(sorted(queues)) or "none"
        super().__init__(f"name queues with -Q: one of {known}, not {named}")


class AmbiguousIntake(WrongQueues):
    """A worker asked for two queues on which the same event starts different tasks."""

    def __init__(self, event_type: str, tasks: Iterable[str]) -> None:
        super().__init__(
            f"{event_type} starts {' and '.join(sorted(tasks))}: run a worker per queue"
        )


def tasks_for(queues: Iterable[str]) -> Mapping[str, str]:
    """Return event type → task name for a worker that consumes these queues.

    Raises:
        NoTasks: there is no queue, or one that nothing is done with.
        AmbiguousIntake: two of the queues handle the same event differently.
    """
    queues = frozenset(queues)
    without_task = queues - {task.home_queue for task in TASKS}
    if without_task or not queues:
        raise NoTasks(without_task)
    chosen: dict[str, str] = {}
    for task in TASKS:
        if task.home_queue not in queues:
            continue
        for event_type in topology.SUBSCRIPTIONS[task.home_queue]:
            if event_type in chosen:
                raise AmbiguousIntake(event_type, (chosen[event_type], task.name))
            chosen[event_type] = task.name
    return chosen


def register(app: Celery) -> None:
    """Make the tasks known to a configured application.

    A task takes its acknowledgement and its limits from the configuration at
    the moment it is registered: registered before, it would acknowledge early
    and lose its event with its worker.
    """
    for task in TASKS:
        app.register_task(task())


def open_for(queues: Iterable[str]) -> None:
    """Let the worker's consumer know its tasks; called once, before it consumes."""
    EventConsumer.tasks_by_event = tasks_for(queues)
