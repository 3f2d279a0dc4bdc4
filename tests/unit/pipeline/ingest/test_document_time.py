from datetime import timedelta
from uuid import uuid4

from pipeline.ingest.document_time import Slice, noted, used_before
from pipeline.steps.lease import ClaimedStep
from schemas.ids import JobId, TenantId
from schemas.lifecycle import Priority
from schemas.settings import CelerySettings
from schemas.steps import StepName


def claimed(checkpoint: dict[str, object] | None) -> ClaimedStep:
    return ClaimedStep(
        job_id=JobId(uuid4()),
        name=StepName.OCR,
        tenant_id=TenantId(uuid4()),
        priority=Priority.INTERACTIVE,
        owner="a worker",
        done=0,
        total=None,
        checkpoint=checkpoint,
    )


def test_a_document_has_cost_nothing_before_its_first_delivery() -> None:
    assert used_before(claimed(None)) == timedelta(0)


def test_the_cost_of_a_document_is_beside_its_other_progress() -> None:
    step = noted(claimed({"last_page": 7}), used=timedelta(seconds=1.5))
    assert step.checkpoint == {"last_page": 7, "seconds": 1.5}
    assert used_before(step) == timedelta(seconds=1.5)


def test_a_slice_is_over_after_half_of_the_time_limit() -> None:
    now = 100.0
    of_document = Slice(CelerySettings(task_time_limit=timedelta(minutes=20)), clock=lambda: now)
    now += 599
    assert not of_document.is_over
    now += 1
    assert of_document.is_over
