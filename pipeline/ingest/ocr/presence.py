"""Records, while a worker consumes, that it has an OCR engine."""

from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import structlog
from celery import bootsteps
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline import celery_app
from pipeline.context import CONNECTION
from pipeline.ingest.ocr import engines
from pipeline.ingest.ocr.engines import RENEW_EVERY, Choice, NoEngine
from schemas import queues
from schemas.runtime import outages, postgres

if TYPE_CHECKING:
    from pipeline.settings import Settings

log = structlog.stdlib.get_logger(__name__)


class EnginePresence(bootsteps.StartStopStep):
    """Renews the engine's row in the main process of a worker that consumes the queue of OCR.

    In a thread: the event loop would not answer the broker while the database is slow. In the main
    process: the others are busy with one document for minutes.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:  # noqa: ANN401  # Celery's own signature
        super().__init__(consumer, **options)
        self._stopped = Event()
        self._thread: Thread | None = None

    def start(self, consumer: Any) -> None:  # noqa: ANN401  # Celery's own signature
        if queues.OCR_PROCESSING not in {queue.name for queue in consumer.task_consumer.queues}:
            return
        settings: Settings = consumer.app.conf["waybill_process"]
        try:
            choice = engines.choose(settings)
        except NoEngine as lack:
            log.warning("ocr.no_engine", reason=str(lack))
            return
        log.info("ocr.engine", engine=choice.name, detail=choice.detail)
        self._stopped = Event()
        self._thread = Thread(
            target=_renew_until,
            args=(self._stopped, choice),
            kwargs={"settings": settings, "name": celery_app.name_of(consumer.app)},
            name="ocr-presence",
        )
        self._thread.start()

    def stop(self, consumer: Any) -> None:  # noqa: ANN401, ARG002  # Celery's own signature
        if self._thread is not None:
            self._stopped.set()
            self._thread.join()
            self._thread = None


def _renew_until(stopped: Event, choice: Choice, *, settings: "Settings", name: str) -> None:
    database = postgres.build_engine(settings, connection={**CONNECTION, "application_name": name})
    try:
        while True:
            _renew(database, choice)
            if stopped.wait(RENEW_EVERY.total_seconds()):
                return
    finally:
        database.dispose()


def _renew(database: Engine, choice: Choice) -> None:
    try:
        with Session(database) as session, session.begin():
            engines.renew(session, choice)
    except SQLAlchemyError as error:
        # Without the database nothing asks for an engine, and the next renewal follows soon.
        log.debug("ocr.engine_not_renewed", error=outages.describe(error))
