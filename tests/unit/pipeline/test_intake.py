from pathlib import Path

import pytest
from celery import Celery
from pydantic import SecretStr

from pipeline import celery_app, intake
from pipeline.settings import Settings
from schemas import topology


def test_a_registered_task_acknowledges_late() -> None:
    settings = Settings(
        database_url=SecretStr("postgresql+psycopg://nobody@127.0.0.1/none"),
        rabbitmq_url=SecretStr("amqp://nobody@127.0.0.1/none"),
        s3_bucket="none",
        s3_access_key_id=SecretStr("none"),
        s3_secret_access_key=SecretStr("none"),
        staging_dir=Path("none"),
    )
    app = Celery(set_as_current=False)
    app.conf.update(celery_app.configuration(settings))
    intake.register(app)
    for task_type in intake.TASKS:
        task = app.tasks[task_type.name]
        assert task.acks_late
        assert task.reject_on_worker_lost
        assert task.acks_on_failure_or_timeout is False
        assert task.time_limit == settings.task_time_limit.total_seconds()


def test_a_worker_knows_the_tasks_of_its_queues_alone() -> None:
    assert intake.tasks_for({topology.UPLOADS}) == {
        "upload.finalized": "tasks.upload_to_object_store"
    }
    assert intake.tasks_for({topology.DOCUMENT_PROCESSING}) == {
        "upload.stored": "tasks.ingest_document"
    }


@pytest.mark.parametrize("queues", [set(), {topology.EXPORTS}, {topology.UPLOADS, "uplaods"}])
def test_a_worker_that_could_only_dead_letter_is_refused(queues: set[str]) -> None:
    with pytest.raises(intake.NoTasks, match="-Q"):
        intake.tasks_for(queues)


def test_every_event_of_a_consumed_queue_has_a_task() -> None:
    for task in intake.TASKS:
        handled = intake.tasks_for({task.home_queue})
        assert handled.keys() == set(topology.SUBSCRIPTIONS[task.home_queue])


def test_two_tasks_for_one_event_in_one_worker_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rival:
        name = "tasks.rival"
        home_queue = topology.UPLOADS

    monkeypatch.setattr(intake, "TASKS", (*intake.TASKS, Rival))
    with pytest.raises(intake.AmbiguousIntake, match=r"tasks\.rival and tasks\.upload"):
        intake.tasks_for({topology.UPLOADS})
