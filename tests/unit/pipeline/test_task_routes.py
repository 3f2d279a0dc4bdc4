from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery
from pydantic import SecretStr

from pipeline import beat, celery_app, task_routes
from pipeline.beat import PERIODIC_TASKS, BeatScheduler
from pipeline.messaging.consumer import register_serializer
from pipeline.settings import Settings
from pipeline.steps.task import StepTask
from schemas import queues, topology
from schemas.steps import STEPS
from tests.factories.secret_keys import KEY


@pytest.fixture
def settings() -> Settings:
    return Settings(
        database_url=SecretStr("postgresql+psycopg://nobody@127.0.0.1/none"),
        rabbitmq_url=SecretStr("amqp://nobody@127.0.0.1/none"),
        secret_keys=SecretStr(KEY),
        s3_bucket="none",
        s3_access_key_id=SecretStr("none"),
        s3_secret_access_key=SecretStr("none"),
        staging_dir=Path("none"),
    )


@pytest.fixture
def app(settings: Settings) -> Celery:
    register_serializer()
    app = Celery(set_as_current=False)
    app.conf.update(celery_app.configuration(settings))
    task_routes.register(app)
    return app


def test_a_registered_task_acknowledges_late(app: Celery, settings: Settings) -> None:
    of_events = [task for tasks in task_routes.TASKS.values() for task in tasks.values()]
    for task_type in (*of_events, *PERIODIC_TASKS):
        task = app.tasks[task_type.name]
        assert task.acks_late
        assert task.reject_on_worker_lost
        assert task.acks_on_failure_or_timeout is False
        assert task.time_limit == settings.task_time_limit.total_seconds()


def test_a_worker_gets_the_tasks_of_its_queues_only() -> None:
    assert task_routes.tasks_for({queues.UPLOADS}) == {
        "uploads": {
            "upload.finalized": "tasks.upload_to_object_store",
            "upload.stored": "tasks.scan_file",
            "document.reprocess_requested": "tasks.scan_file",
            "upload.cancelled": "tasks.discard_upload",
            "batch.cancel_requested": "tasks.clean_up_batch",
        }
    }
    assert task_routes.tasks_for({queues.DOCUMENT_PROCESSING}) == {
        "document_processing": {
            "upload.stored": "tasks.ingest_document",
            "document.reprocess_requested": "tasks.ingest_document",
        }
    }
    assert task_routes.tasks_for({queues.METADATA_EXTRACTION, queues.BATCH_PROCESSING}) == {
        "metadata_extraction": {
            "upload.stored": "tasks.extract_metadata",
            "document.reprocess_requested": "tasks.extract_metadata",
            "document.render_requested": "tasks.render_page",
        },
        "batch_processing": {
            "upload.stored": "tasks.ingest_rest",
            "document.reprocess_requested": "tasks.ingest_rest",
            "document.tables_requested": "tasks.find_tables",
            "batch.received": "tasks.run_batch",
        },
    }


def test_a_worker_may_consume_the_maintenance_queue_alone_or_with_others() -> None:
    both = task_routes.tasks_for({queues.UPLOADS, topology.MAINTENANCE})
    assert both == task_routes.tasks_for({queues.UPLOADS})
    assert task_routes.tasks_for({topology.MAINTENANCE}) == {}


@pytest.mark.parametrize("queues", [set(), {queues.NOTIFY}, {queues.UPLOADS, "uplaods"}])
def test_a_worker_without_queues_or_with_an_unknown_queue_is_refused(queues: set[str]) -> None:
    with pytest.raises(task_routes.QueuesWithoutTasks, match="--queues"):
        task_routes.tasks_for(queues)


def test_every_step_has_one_task_on_its_queue() -> None:
    found = {
        (task.step, queue): task
        for queue, tasks in task_routes.TASKS.items()
        for task in tasks.values()
        if issubclass(task, StepTask)
    }
    assert found.keys() <= {(kind.name, kind.queue) for kind in STEPS.values()}
    assert len(set(found.values())) == len(found)


def test_a_retry_returns_to_the_queue_of_its_task() -> None:
    for queue, tasks in task_routes.TASKS.items():
        assert {task.home_queue for task in tasks.values()} == {queue}


def test_beat_starts_every_sweep_at_once_and_then_once_per_interval(app: Celery) -> None:
    app.conf.beat_schedule = beat.schedule(
        sweep_every=timedelta(minutes=5), watch_every=timedelta(seconds=30)
    )
    scheduler = BeatScheduler(app)

    assert {entry.task for entry in scheduler.schedule.values()} == {
        "tasks.sweep_uploads",
        "tasks.sweep_orphans",
        "tasks.sweep_rows",
        "tasks.sweep_exports",
        "tasks.watch_steps",
        "tasks.delete_tenants",
        "tasks.fill_index",
    }
    for entry in scheduler.schedule.values():
        is_due, _ = entry.is_due()
        assert is_due
        due, wait = next(entry).is_due()
        assert not due
        often = {"tasks.watch_steps", "tasks.delete_tenants", "tasks.fill_index"}
        interval = 30 if entry.task in often else 300
        assert interval - 10 < wait <= interval
        assert entry.options
        assert entry.options["queue"] == (
            topology.SEARCH_MAINTENANCE
            if entry.task == "tasks.fill_index"
            else topology.MAINTENANCE
        )
        assert not entry.args
        assert not entry.kwargs
