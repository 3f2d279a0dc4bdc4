"""A batch worker in this process: the real tasks and a real database, without a broker."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import Ignore
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from pipeline.batch.cleanup_task import CleanUpBatch
from pipeline.batch.task import RunBatch
from pipeline.context import Context, build_context, install_context
from pipeline.ingest.extractors import registry
from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from schemas.events import envelope
from schemas.events.batches import BatchCancelRequested
from schemas.events.envelope import Envelope
from schemas.lifecycle import BatchLineState, StepStatus
from schemas.settings import DatabaseSettings
from schemas.steps import StepName
from schemas.tables.batches import Batch, BatchLine
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.topology import RetryTier
from tests.factories.batches import batch_of
from tests.integration.pipeline.transfer_worker import worker_settings

if TYPE_CHECKING:
    from pipeline.messaging.event_task import EventTask


class _RecordsRetries:
    """Records the messages that the task would publish to a retry tier."""

    retried: list[Mapping[str, object]]

    def _publish(
        self, event: ReceivedEvent, *, headers: dict[str, object], tier: RetryTier
    ) -> None:
        del event
        self.retried.append({**headers, "tier": tier})


class _RunBatch(_RecordsRetries, RunBatch):
    abstract = True


class _CleanUpBatch(_RecordsRetries, CleanUpBatch):
    abstract = True


@dataclass
class BatchWorker:
    """Delivers events to the tasks as the broker would; `retried` has the headers of retried messages."""

    context: Context
    retried: list[Mapping[str, object]] = field(default_factory=list)

    def deliver(self, event: Envelope, *, crashes: int = 0, attempt: int = 0) -> bool:
        """Deliver an event; return True if it was acknowledged, False if it waits in a tier.

        A `BaseException` that is not an `Exception` stands for a crash, and is raised.
        """
        install_context(self.context)
        app = Celery("tests", set_as_current=False)
        app.conf["waybill_task_attempts"] = self.context.settings.task_attempts
        task: EventTask = (
            _CleanUpBatch() if isinstance(event.data, BatchCancelRequested) else _RunBatch()
        )
        task.retried = self.retried  # type: ignore[attr-defined]  # both classes record retries
        app.register_task(task)
        task.push_request(**{DELIVERY_HEADER: {"crashes": crashes, "attempt": attempt, "waits": 0}})
        try:
            task.run(ReceivedEvent(envelope=event, body=envelope.encode(event)))
        except Ignore:
            return False
        finally:
            task.pop_request()
        return True

    def deliver_from_tier(self, event: Envelope) -> bool:
        """Deliver the event as if its time in the retry tier were over."""
        with self.session() as session:
            session.execute(
                update(Step)
                .where(Step.job_id == event.job_id, Step.name == StepName.BATCH)
                .values(checkpoint=text("checkpoint - 'next_at'"))
            )
        return self.deliver(event)

    def with_settings(self, **settings: object) -> "BatchWorker":
        changed = self.context.settings.model_copy(update=settings)
        return BatchWorker(replace(self.context, settings=changed))

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.context.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def batch(self, event: Envelope) -> Batch:
        with self.session() as session:
            return session.get_one(Batch, batch_of(event))

    def job(self, event: Envelope) -> Job:
        with self.session() as session:
            return session.get_one(Job, event.job_id)

    def step(self, event: Envelope, name: StepName = StepName.BATCH) -> Step:
        with self.session() as session:
            return session.get_one(Step, (event.job_id, name))

    def lines(self, event: Envelope) -> Sequence[BatchLine]:
        with self.session() as session:
            return session.scalars(
                select(BatchLine)
                .where(BatchLine.batch_id == batch_of(event))
                .order_by(BatchLine.line)
            ).all()

    def states(self, event: Envelope) -> dict[BatchLineState, int]:
        """Return the number of lines in each state; the counters of the batch must be equal."""
        found = Counter(line.state for line in self.lines(event))
        batch = self.batch(event)
        counted = {
            BatchLineState.REJECTED: batch.rejected,
            BatchLineState.STARTED: batch.started,
            BatchLineState.COMPLETED: batch.completed,
            BatchLineState.FAILED: batch.failed,
            BatchLineState.CANCELLED: batch.cancelled,
        }
        counted[BatchLineState.WAITING] = batch.lines - sum(counted.values())
        states = {state: count for state, count in counted.items() if count}
        assert states == found
        return states

    def end_jobs(
        self, event: Envelope, *, at_most: int, status: StepStatus = StepStatus.COMPLETED
    ) -> None:
        """End the jobs of so many started lines, each in a transaction of its own."""
        started = [
            line.job_id
            for line in self.lines(event)
            if line.state is BatchLineState.STARTED and line.job_id is not None
        ]
        for job_id in started[:at_most]:
            self.set_step(job_id, status)

    def set_step(self, job_id: Any, status: StepStatus) -> None:  # noqa: ANN401  # a job's id
        failure = {"error_code": "store_rejected", "error_detail": "refused"}
        with self.session() as session:
            session.execute(
                update(Step)
                .where(Step.job_id == job_id, Step.name == StepName.TRANSFER)
                .values(status=status, **(failure if status is StepStatus.FAILED else {}))
            )

    def wakes(self, event: Envelope) -> int:
        """Return how often the event was given to the broker."""
        with self.session() as session:
            return (
                session.scalar(
                    select(func.count())
                    .select_from(OutboxMessage)
                    .where(OutboxMessage.event_id == event.id)
                )
                or 0
            )

    def emitted(self, event: Envelope) -> list[Envelope]:
        """Return the events of the batch that are facts."""
        with self.session() as session:
            bodies = session.scalars(
                select(EventRecord.body)
                .join(OutboxMessage, OutboxMessage.event_id == EventRecord.id)
                .where(EventRecord.batch_id == batch_of(event), OutboxMessage.queue.is_(None))
                .order_by(EventRecord.id)
            )
            return [envelope.decode(body) for body in bodies]


@contextmanager
def batch_worker(
    database: DatabaseSettings, *, work_dir: Path, **settings: object
) -> Iterator[BatchWorker]:
    context = build_context(
        worker_settings(
            database, work_dir=work_dir, staging_dir=work_dir, step_lease="1ms", **settings
        ),
        will_be_read=registry.will_be_read,
    )
    try:
        yield BatchWorker(context)
    finally:
        context.engine.dispose()
