"""Entry point of every worker, `celery -A pipeline.worker worker -Q <queues>`, and of beat."""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import structlog
from celery import signals
from sqlalchemy.exc import SQLAlchemyError

from pipeline import beat, celery_app, task_routes
from pipeline.context import Context, build_context, current_context, install_context
from pipeline.enrich import enricher
from pipeline.ingest import readers
from pipeline.ingest.extractors import registry
from pipeline.ingest.ocr.presence import EnginePresence
from pipeline.messaging import lost_connections
from pipeline.messaging.broker import ensure_topology
from pipeline.settings import Settings
from schemas import queues
from schemas.runtime import logging, outages
from schemas.runtime.embedding import chosen
from schemas.runtime.embedding.port import EmbedderUnavailable

log = structlog.stdlib.get_logger(__name__)

settings = Settings.load()
app = celery_app.app
celery_app.configure(settings)
app.steps["consumer"].add(EnginePresence)
task_routes.register(app)
app.conf.beat_schedule = beat.schedule(
    sweep_every=settings.sweep_every, watch_every=settings.step_watch_every
)


def ends_the_process(receiver: Callable[..., None]) -> Callable[..., None]:
    """End the process if a receiver of a signal fails.

    Celery logs the error and continues: a worker would take tasks without what the receiver prepares.
    """

    @wraps(receiver)
    def ending(**arguments: Any) -> None:  # noqa: ANN401  # of any signal
        try:
            receiver(**arguments)
        except Exception as error:
            log.exception("process.start_failed")
            raise SystemExit(f"pipeline: {error}") from error

    return ending


@signals.setup_logging.connect(weak=False)
@ends_the_process
def set_up_logging(**_: object) -> None:
    logging.configure(settings, service="pipeline")
    lost_connections.log_as_warnings()


@signals.celeryd_init.connect(weak=False)
@ends_the_process
def before_start(options: dict[str, Any], **_: object) -> None:
    """Check the queues, declare the topology, load what the processes share: the language model and the parsers."""
    chosen = options.get("queues") or []
    consumed = chosen.split(",") if isinstance(chosen, str) else list(chosen)
    task_routes.route(consumed)
    celery_app.name_connections(app, role="+".join(sorted(consumed)))
    _declare_topology()
    if not task_routes.READING.isdisjoint(consumed):
        enricher.install(settings.spacy_model)
        registry.load()
    if queues.SEARCH_INDEXING in consumed:
        load_embedder()


def load_embedder() -> None:
    """Load the chosen model, whose memory the processes then share; without it documents wait for it."""
    model = chosen.model_of(settings)
    if model is not None:
        with suppress(EmbedderUnavailable):  # logged
            chosen.named(model.name)


@signals.beat_init.connect(weak=False)
@ends_the_process
def before_beat_starts(**_: object) -> None:
    """Declare the topology: a message to a queue that does not exist is lost."""
    celery_app.name_connections(app, role="beat")
    _declare_topology()


@signals.worker_process_init.connect(weak=False)
@ends_the_process
def in_each_process(**_: object) -> None:
    logging.configure(settings, service="pipeline")
    context = build_context(
        settings, will_be_read=registry.will_be_read, name=celery_app.name_of(app)
    )
    install_context(context)
    look_at_clock(context)


@signals.worker_process_shutdown.connect(weak=False)
def before_a_process_ends(**_: object) -> None:
    readers.close()


@signals.task_prerun.connect(weak=False)
def before_each_task(**_: object) -> None:
    look_at_clock(current_context())


def look_at_clock(context: Context) -> None:
    """Log a wrong clock; an outage of the database is the task's to report."""
    try:
        context.look_at_clock()
    except SQLAlchemyError as error:
        log.debug("clock.unknown", error=outages.describe(error))


def _declare_topology() -> None:
    with app.connection_for_write() as connection:
        ensure_topology(connection)
