"""A worker of transfers and scans in this process: real tasks and a real database, without a broker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from celery import Celery
from celery.exceptions import Ignore
from sqlalchemy.orm import Session

from pipeline.context import Context, install_context
from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from pipeline.scan.task import ScanFile
from pipeline.settings import Settings
from pipeline.transfer.task import CleanUpUpload, TransferUpload
from schemas.events import envelope
from schemas.events.documents import ReprocessRequested
from schemas.events.envelope import Envelope
from schemas.events.uploads import StoredEvent, UploadCancelled
from schemas.settings import DatabaseSettings
from schemas.tables.uploads import Upload
from schemas.topology import CRASHES_HEADER, RetryTier
from tests.factories.secret_keys import KEY
from tests.seen_jobs import SeenJob, seen_job

if TYPE_CHECKING:
    from pipeline.messaging.event_task import EventTask

Headers = Mapping[str, object]


def worker_settings(database: DatabaseSettings, **others: object) -> Settings:
    """Return settings without a broker, and without a store unless `others` name one."""
    return Settings.model_validate(
        {
            "database_url": database.database_url.get_secret_value(),
            "rabbitmq_url": "amqp://nobody@nowhere",
            "secret_keys": KEY,
            "s3_bucket": "none",
            "s3_access_key_id": "",
            "s3_secret_access_key": "",
            "task_attempts": 1,
            **others,
        }
    )


class _RecordsRetries:
    """Records the messages that the task would publish to a retry tier."""

    retried: list[Headers]

    def _publish(
        self, event: ReceivedEvent, *, headers: dict[str, object], tier: RetryTier
    ) -> None:
        del event
        self.retried.append({**headers, "tier": tier})


class _TransferUpload(_RecordsRetries, TransferUpload):
    abstract = True


class _CleanUpUpload(_RecordsRetries, CleanUpUpload):
    abstract = True


class _ScanFile(_RecordsRetries, ScanFile):
    abstract = True


@dataclass
class TransferWorker:
    """Delivers events to the tasks as the broker would; `retried` has the headers of retried messages."""

    context: Context
    retried: list[Headers] = field(default_factory=list)

    def __post_init__(self) -> None:
        install_context(self.context)
        self._app = Celery("tests", set_as_current=False)
        self._app.conf["waybill_task_attempts"] = self.context.settings.task_attempts
        self._transfer_upload, self._clean_up_upload = _TransferUpload(), _CleanUpUpload()
        self._scan_file = _ScanFile()
        for task in (self._transfer_upload, self._clean_up_upload, self._scan_file):
            task.retried = self.retried
            self._app.register_task(task)

    def deliver(
        self, event: Envelope, *, crashes: int = 0, attempt: int = 0, waits: int = 0
    ) -> bool:
        """Deliver an event; return True if it was handled, False if it is retried later.

        A `BaseException` that is not an `Exception` stands for a crash, and is raised.
        """
        task: EventTask
        match event.data:
            case UploadCancelled():
                task = self._clean_up_upload
            case StoredEvent() | ReprocessRequested():
                task = self._scan_file
            case _:
                task = self._transfer_upload
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

    def crashes_of_retry(self) -> int:
        """Return the crash count in the headers of the last retried message."""
        crashes = self.retried[-1][CRASHES_HEADER]
        assert isinstance(crashes, int)
        return crashes

    def job(self, event: Envelope) -> SeenJob:
        with Session(self.context.engine) as session:
            return seen_job(session, event.job_id)

    def upload(self, event: Envelope) -> Upload:
        with Session(self.context.engine) as session:
            return session.get_one(Upload, event.upload_id)
