"""The tasks of a transfer worker with a real database, in this process and without a broker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from celery import Celery
from celery.exceptions import Ignore
from sqlalchemy.orm import Session

from pipeline.context import Context, install_context
from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from pipeline.settings import Settings
from pipeline.transfer.task import CleanUpUpload, TransferUpload
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled
from schemas.settings import DatabaseSettings
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload
from schemas.topology import CRASHES_HEADER, RetryTier

if TYPE_CHECKING:
    from pipeline.messaging.event_task import EventTask

Headers = Mapping[str, object]


def settings_of_a_worker(database: DatabaseSettings, **others: object) -> Settings:
    """Return settings without a broker and, unless it is given, without a store."""
    return Settings.model_validate(
        {
            "database_url": database.database_url.get_secret_value(),
            "rabbitmq_url": "amqp://nobody@nowhere",
            "s3_bucket": "none",
            "s3_access_key_id": "",
            "s3_secret_access_key": "",
            "task_attempts": 1,
            **others,
        }
    )


class _Kept:
    """Keeps what the task would publish to a retry tier."""

    waiting: list[Headers]

    def _publish(
        self, event: ReceivedEvent, *, headers: dict[str, object], tier: RetryTier
    ) -> None:
        del event
        self.waiting.append({**headers, "tier": tier})


class _Transferring(_Kept, TransferUpload):
    abstract = True


class _Discarding(_Kept, CleanUpUpload):
    abstract = True


@dataclass
class Hands:
    """Hands events to the tasks as the broker would; `waiting` is what went to a retry tier."""

    context: Context
    waiting: list[Headers] = field(default_factory=list)

    def __post_init__(self) -> None:
        install_context(self.context)
        self._app = Celery("tests", set_as_current=False)
        self._app.conf["waybill_task_attempts"] = self.context.settings.task_attempts
        self._transferring, self._discarding = _Transferring(), _Discarding()
        for task in (self._transferring, self._discarding):
            task.waiting = self.waiting
            self._app.register_task(task)

    def deliver(
        self, event: Envelope, *, crashes: int = 0, attempt: int = 0, waits: int = 0
    ) -> bool:
        """Have the event handled; say whether it is done with, or waits.

        Whatever is not an `Exception` comes out, as a death of the worker would.
        """
        task: EventTask = (
            self._discarding if isinstance(event.data, UploadCancelled) else self._transferring
        )
        task.push_request(
            **{DELIVERY_HEADER: {"crashes": crashes, "attempt": attempt, "waits": waits}}
        )
        try:
            task.run(ReceivedEvent(envelope=event, body=envelope.encode(event)))
        except Ignore:
            return False
        finally:
            task.pop_request()
        return True

    def crashes_waiting(self) -> int:
        """Return the count of crashes the event that waits would come back with."""
        crashes = self.waiting[-1][CRASHES_HEADER]
        assert isinstance(crashes, int)
        return crashes

    def job(self, event: Envelope) -> Job:
        with Session(self.context.engine) as session:
            return session.get_one(Job, event.job_id)

    def upload(self, event: Envelope) -> Upload:
        with Session(self.context.engine) as session:
            return session.get_one(Upload, event.data.upload_id)
