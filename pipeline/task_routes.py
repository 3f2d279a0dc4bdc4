"""The door from the broker into Celery: which task a message starts.

Facts are past tense, orders imperative. Work queues carry facts, and this table
is where one becomes an order; its names are what the logs and Flower show.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from celery import Celery

from pipeline.ingest.tasks import IngestDocument
from pipeline.maintenance.tasks import Sweep, SweepOrphans, SweepRows, SweepUploads
from pipeline.messaging.consumer import EventConsumer
from pipeline.messaging.event_task import EventTask
from pipeline.transfer.discard import CleanUpUpload
from pipeline.transfer.task import TransferUpload
from schemas import topology
from schemas.events.uploads import StoredEvent, UploadCancelled, UploadFinalized

TASKS: Final[Mapping[str, Mapping[str, type[EventTask]]]] = MappingProxyType(
    {
        topology.UPLOADS: {
            UploadFinalized.TYPE: TransferUpload,
            UploadCancelled.TYPE: CleanUpUpload,
        },
        topology.DOCUMENT_PROCESSING: {StoredEvent.TYPE: IngestDocument},
    },
)
"""Which task an event of a queue starts."""

ORDERS: Final[tuple[type[Sweep], ...]] = (SweepUploads, SweepOrphans, SweepRows)
"""What the clock may order, on a queue that carries no events."""

LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


class NoTasks(ValueError):
    """No queue was named, or one without a task: its events would be dead-lettered one and all."""

    def __init__(self, queues: Iterable[str]) -> None:
        known = ", ".join((*TASKS, topology.MAINTENANCE))
        named = ", ".join(sorted(queues)) or "none"
        super().__init__(f"name queues with -Q: some of {known}, not {named}")


def tasks_for(queues: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """Return queue → event type → task name for a worker that consumes these queues.

    Raises:
        NoTasks: there is no queue, or one that nothing is done with.
    """
    queues = frozenset(queues)
    without_task = queues - {*TASKS, topology.MAINTENANCE}
    if without_task or not queues:
        raise NoTasks(without_task)
    return {
        queue: {event_type: task.name for event_type, task in tasks.items()}
        for queue, tasks in TASKS.items()
        if queue in queues
    }


def schedule(*, every: timedelta) -> Mapping[str, Mapping[str, Any]]:
    """Return beat's schedule; every order is due when beat starts, then once per interval.

    A beat that is restarted often would otherwise never order anything.
    """
    return {
        order.name: {
            "task": order.name,
            "schedule": every,
            "last_run_at": LONG_AGO,
            # Under a memory alarm the broker confirms nothing, and beat would wait for ever.
            "options": {"queue": order.home_queue, "mandatory": True, "confirm_timeout": 10},
        }
        for order in ORDERS
    }


def register(app: Celery) -> None:
    """Make the tasks known to a configured application.

    A task takes its acknowledgement and its limits from the configuration at
    the moment it is registered: registered before, it would acknowledge early
    and lose its event with its worker.
    """
    for task in (*(task for tasks in TASKS.values() for task in tasks.values()), *ORDERS):
        app.register_task(task())


def open_for(queues: Iterable[str]) -> None:
    """Let the worker's consumer know its tasks; called once, before it consumes."""
    EventConsumer.tasks = tasks_for(queues)
    EventConsumer.orders = frozenset(order.name for order in ORDERS)
