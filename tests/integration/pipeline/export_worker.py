"""An export worker in this process: the real task and a real database, without a broker."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from celery import Celery
from celery.exceptions import Ignore
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.context import Context, build_context, install_context
from pipeline.export.task import ExportRows
from pipeline.ingest.extractors import registry
from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.settings import DatabaseSettings
from schemas.steps import StepName
from schemas.tables.events import EventRecord
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from schemas.topology import RetryTier
from tests.factories.exports import export_of
from tests.fakes.storage import FakeStorage
from tests.integration.pipeline.transfer_worker import worker_settings


class _ExportRows(ExportRows):
    """Records the messages that the task would publish to a retry tier."""

    abstract = True
    retried: list[Mapping[str, object]]

    def _publish(
        self, event: ReceivedEvent, *, headers: dict[str, object], tier: RetryTier
    ) -> None:
        del event, tier
        self.retried.append(headers)


@dataclass
class ExportWorker:
    """Delivers events to the task as the broker would; `retried` has the headers of retried messages."""

    context: Context
    storage: FakeStorage
    retried: list[Mapping[str, object]] = field(default_factory=list)

    def deliver(self, event: Envelope, *, crashes: int = 0, attempt: int = 0) -> bool:
        """Deliver an event; return True if it was handled, False if it is retried later.

        A `BaseException` that is not an `Exception` stands for a crash, and is raised.
        """
        install_context(self.context)
        app = Celery("tests", set_as_current=False)
        app.conf["waybill_task_attempts"] = self.context.settings.task_attempts
        task = _ExportRows()
        task.retried = self.retried
        app.register_task(task)
        task.push_request(**{DELIVERY_HEADER: {"crashes": crashes, "attempt": attempt, "waits": 0}})
        try:
            task.run(ReceivedEvent(envelope=event, body=envelope.encode(event)))
        except Ignore:
            return False
        finally:
            task.pop_request()
        return True

    def with_settings(self, **settings: object) -> "ExportWorker":
        changed = self.context.settings.model_copy(update=settings)
        return ExportWorker(replace(self.context, settings=changed), self.storage)

    @contextmanager
    def session(self) -> Iterator[Session]:
        with (
            Session(self.context.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def export(self, event: Envelope) -> Export:
        with self.session() as session:
            return session.get_one(Export, export_of(event))

    def job(self, event: Envelope) -> Job:
        with self.session() as session:
            return session.get_one(Job, event.job_id)

    def step(self, event: Envelope) -> Step:
        with self.session() as session:
            return session.get_one(Step, (event.job_id, StepName.EXPORT))

    def emitted(self, event: Envelope) -> list[Envelope]:
        """Return the events of the export that are facts."""
        with self.session() as session:
            bodies = session.scalars(
                select(EventRecord.body)
                .where(EventRecord.job_id == event.job_id, EventRecord.id != event.id)
                .order_by(EventRecord.id)
            )
            return [envelope.decode(body) for body in bodies]

    def content(self, event: Envelope) -> bytes:
        """Return the file of a completed export; the store has nothing else of it."""
        key = self.export(event).object_key
        assert self.left(event) == ([key], [])
        found: bytes = next(
            stored.content for name, stored in self.storage.objects.items() if name == key
        )
        return found

    def left(self, event: Envelope) -> tuple[list[str], list[str]]:
        """Return the keys of the objects and of the multipart uploads of an export."""
        prefix = f"exports/{event.tenantid}/{export_of(event)}/"
        return (
            [key for key in self.storage.objects if key.startswith(prefix)],
            [each.multipart.key for each in self.storage.multiparts_under(prefix)],
        )


@contextmanager
def export_worker(
    database: DatabaseSettings, *, work_dir: Path, **settings: object
) -> Iterator[ExportWorker]:
    context = build_context(
        worker_settings(
            database,
            work_dir=work_dir,
            staging_dir=work_dir,
            export_disk_reserve=1,
            step_lease="1ms",
            s3_part_size="5MiB",
            **settings,
        ),
        will_be_read=registry.will_be_read,
    )
    storage = FakeStorage()
    try:
        yield ExportWorker(replace(context, storage=storage), storage)
    finally:
        context.engine.dispose()
