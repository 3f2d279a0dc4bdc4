import pytest

from pipeline import intake
from schemas import topology


def test_a_worker_knows_the_tasks_of_its_queues_alone() -> None:
    assert intake.tasks_for({topology.UPLOADS}) == {
        "upload.finalized": "tasks.upload_to_object_store"
    }
    assert intake.tasks_for({topology.DOCUMENT_PROCESSING}) == {
        "upload.stored": "tasks.ingest_document"
    }


def test_every_event_of_a_consumed_queue_has_a_task() -> None:
    for task in intake.TASKS:
        handled = intake.tasks_for({task.home_queue})
        assert handled.keys() == set(topology.SUBSCRIPTIONS[task.home_queue])


def test_two_tasks_for_one_event_in_one_worker_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rival:
        name = "tasks.rival"
        home_queue = topology.UPLOADS

    monkeypatch.setattr(intake, "TASKS", (*intake.TASKS, Rival()))
    with pytest.raises(intake.AmbiguousIntake, match=r"tasks\.rival and tasks\.upload"):
        intake.tasks_for({topology.UPLOADS})
