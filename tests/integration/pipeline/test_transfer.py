"""What becomes of a finalized upload, whatever happens to its event on the way."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from schemas import topology
from schemas.events import envelope
from schemas.events.uploads import StoredEvent, UploadFailed
from schemas.lifecycle import JobStage, JobStatus
from schemas.settings import STAGING_MARKER
from schemas.tables.jobs import Job
from tests.integration.pipeline.workbench import Workbench, sha256
from tests.parts import Part
from tests.store import Bucket

pytestmark = pytest.mark.integration


def test_a_file_that_is_no_pdf_is_stored_and_completed(bench: Workbench) -> None:
    content = Random(1).randbytes(700_001)
    event = bench.finalized(content, sha256=sha256(content))
    bench.bus.publish(event)
    job = bench.settled(event)
    assert (job.status, job.stage, job.bytes_done) == (
        JobStatus.COMPLETED,
        JobStage.DONE,
        len(content),
    )
    document = bench.document(event)
    assert document is not None
    assert document.sha256 == sha256(content)
    (told,) = bench.told(event)
    assert isinstance(told.data, StoredEvent)
    assert not told.data.will_be_read
    bench.eventually(lambda: bench.staged(event).exists(), until=lambda exists: not exists)


def test_the_same_event_delivered_again_changes_nothing(bench: Workbench) -> None:
    event = bench.finalized()
    for _ in range(3):
        bench.bus.publish(event)
    first = bench.settled(event)
    bench.bus.publish(event)
    marker = bench.finalized()
    bench.bus.publish(marker)
    bench.settled(marker)
    again = bench.job(event)
    assert (again.finished_at, again.result) == (first.finished_at, first.result)
    assert len(bench.told(event)) == 1


def test_a_bit_flipped_in_staging_fails_the_upload_and_leaves_no_object(bench: Workbench) -> None:
    content = bytearray(Random(2).randbytes(600_000))
    event = bench.finalized(bytes(content))
    content[300_000] ^= 1
    bench.staged(event).write_bytes(content)
    bench.bus.publish(event)
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "staging_corrupt")
    (told,) = bench.told(event)
    assert isinstance(told.data, UploadFailed)
    assert told.data.code == "staging_corrupt"
    bench.eventually(lambda: bench.staged(event).exists(), until=lambda exists: not exists)
    keys = Bucket(bench.system.environment).keys()
    assert not [key for key in keys if str(event.data.upload_id) in key]
    assert bench.document(event) is None


def test_a_file_other_than_declared_fails(bench: Workbench) -> None:
    event = bench.finalized(b"these bytes", sha256=sha256(b"other bytes"))
    bench.bus.publish(event)
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "file_digest_mismatch")


def test_a_staged_file_that_is_gone_fails_the_upload(bench: Workbench) -> None:
    event = bench.finalized(b"soon gone")
    bench.staged(event).unlink()
    bench.bus.publish(event)
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "staging_missing")


def test_an_upload_whose_worker_keeps_dying_is_given_up(bench: Workbench) -> None:
    event = bench.finalized(b"deadly")
    bench.bus.publish_raw(
        envelope.encode(event),
        routing_key=topology.UPLOADS,
        content_type=envelope.CONTENT_TYPE,
        headers={topology.CRASHES_HEADER: topology.CRASH_LIMIT},
    )
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "attempts_exhausted")
    assert bench.bus.depth(topology.dead_letter_queue(topology.UPLOADS)) == 0


def test_crashes_are_remembered_while_the_dead_workers_lease_runs_out(bench: Workbench) -> None:
    event = bench.finalized(b"leased")
    with Session(bench.engine) as session, session.begin():
        session.execute(
            update(Job)
            .where(Job.id == event.data.job_id)
            .values(lease_owner="dead", lease_until=func.now() + timedelta(seconds=60))
        )
    bench.bus.publish_raw(
        envelope.encode(event),
        routing_key=topology.UPLOADS,
        content_type=envelope.CONTENT_TYPE,
        headers={topology.CRASHES_HEADER: 2, topology.ATTEMPT_HEADER: 1},
    )
    waiting = bench.bus.take_about(event, queue=topology.RETRY_TIERS[0].name)
    headers: dict[str, Any] = waiting.headers
    assert (headers[topology.CRASHES_HEADER], headers[topology.ATTEMPT_HEADER]) == (2, 1)


def test_a_worker_without_the_staging_volume_fails_nothing(bench: Workbench) -> None:
    event = bench.finalized(b"elsewhere")
    bench.staged(event).unlink()
    marker = bench.staging / STAGING_MARKER
    marker.unlink()
    try:
        bench.bus.publish(event)
        bench.bus.take_about(event, queue=topology.RETRY_TIERS[0].name)
    finally:
        marker.touch()
    assert bench.job(event).status == JobStatus.PROCESSING


def test_an_upload_outlasts_an_outage_of_the_store(store_front: Part, bench: Workbench) -> None:
    event = bench.finalized(b"patience")
    store_front.halt()
    bench.bus.publish(event)
    tier = topology.RETRY_TIERS[0].name
    bench.eventually(lambda: bench.bus.depth(tier), until=lambda depth: depth == 1)
    store_front.start()
    assert bench.settled(event).status == JobStatus.COMPLETED


def test_an_upload_is_given_up_when_the_store_stays_away(
    store_front: Part, bench: Workbench
) -> None:
    event = bench.finalized(b"in vain")
    store_front.halt()
    bench.bus.publish(event)
    job = bench.settled(event)
    store_front.start()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "store_unavailable")
    assert job.error_retryable
    (told,) = bench.told(event)
    assert isinstance(told.data, UploadFailed)
    assert not bench.staged(event).exists()
