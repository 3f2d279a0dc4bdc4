"""Transfers by real workers, with a real broker and store."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from schemas import object_keys, queues, staging_layout, topology
from schemas.events import envelope
from schemas.events.uploads import StoredEvent, UploadFailed
from schemas.lifecycle import JobStatus, StagingKind
from schemas.settings import MIB
from schemas.steps import JobStage
from schemas.tables.steps import Step
from tests.eventually import eventually
from tests.factories.uploads import upload_of
from tests.integration.pipeline.workbench import Workbench, sha256
from tests.killable import Killable

every_staging = pytest.mark.parametrize("staging", StagingKind)
acknowledged = pytest.mark.parametrize("staging", [StagingKind.DIRECTORY, StagingKind.OBJECTS])
sizes = pytest.mark.parametrize(
    ("size", "chunk_size"),
    [
        pytest.param(700_001, 256 * 1024, id="one part"),
        pytest.param(6 * MIB + 1, MIB, id="parts of many chunks"),
        pytest.param(6 * MIB + 1, 6 * MIB, id="parts that are chunks"),
    ],
)


@every_staging
@sizes
def test_a_file_that_is_not_a_pdf_is_stored_and_its_job_completes(
    bench: Workbench, staging: StagingKind, size: int, chunk_size: int
) -> None:
    content = Random(1).randbytes(size)
    event = bench.finalized(content, sha256=sha256(content), staging=staging, chunk_size=chunk_size)
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
    (emitted,) = bench.emitted(event)
    assert isinstance(emitted.data, StoredEvent)
    assert not emitted.data.will_be_read
    assert bench.bucket.sha256(document.object_key) == sha256(content)
    eventually(lambda: bench.is_staged(event), until=lambda is_staged: not is_staged)
    assert bench.bucket.open_multiparts() == []


def test_a_repeated_event_changes_nothing(bench: Workbench) -> None:
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
    assert len(bench.emitted(event)) == 1


@acknowledged
@sizes
def test_a_bit_flipped_in_staging_fails_the_upload_and_leaves_no_object(
    bench: Workbench, staging: StagingKind, size: int, chunk_size: int
) -> None:
    content = bytearray(Random(2).randbytes(size))
    event = bench.finalized(bytes(content), staging=staging, chunk_size=chunk_size)
    content[-1] ^= 1
    bench.overwrite_staged(event, bytes(content), chunk_size=chunk_size)
    bench.bus.publish(event)
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "staging_corrupt")
    (emitted,) = bench.emitted(event)
    assert isinstance(emitted.data, UploadFailed)
    assert emitted.data.code == "staging_corrupt"
    eventually(lambda: bench.is_staged(event), until=lambda is_staged: not is_staged)
    keys = bench.bucket.keys()
    assert not [key for key in keys if str(event.upload_id) in key]
    assert bench.bucket.open_multiparts() == []
    assert bench.document(event) is None


def test_a_file_with_another_digest_than_declared_fails(bench: Workbench) -> None:
    event = bench.finalized(b"these bytes", sha256=sha256(b"other bytes"))
    bench.bus.publish(event)
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "file_digest_mismatch")


@acknowledged
def test_missing_staged_bytes_fail_the_upload(bench: Workbench, staging: StagingKind) -> None:
    event = bench.finalized(b"soon gone", staging=staging)
    bench.lose_staged(event)
    bench.bus.publish(event)
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "staging_missing")


def test_an_upload_is_given_up_at_the_crash_limit(bench: Workbench) -> None:
    event = bench.finalized(b"deadly")
    bench.bus.publish_raw(
        envelope.encode(event),
        routing_key=queues.UPLOADS,
        content_type=envelope.CONTENT_TYPE,
        headers={topology.CRASHES_HEADER: topology.CRASH_LIMIT},
    )
    job = bench.settled(event)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "attempts_exhausted")
    assert bench.bus.depth(topology.dead_letter_queue(queues.UPLOADS)) == 0


def test_crashes_after_progress_do_not_count(bench: Workbench) -> None:
    event = bench.finalized(b"survivor")
    with Session(bench.engine) as session, session.begin():
        session.execute(update(Step).where(Step.job_id == event.job_id).values(done=1))
    bench.bus.publish_raw(
        envelope.encode(event),
        routing_key=queues.UPLOADS,
        content_type=envelope.CONTENT_TYPE,
        headers={topology.CRASHES_HEADER: topology.CRASH_LIMIT},
    )
    assert bench.settled(event).status == JobStatus.COMPLETED


@every_staging
def test_the_leftovers_of_a_cancelled_upload_are_deleted(
    bench: Workbench, staging: StagingKind
) -> None:
    event = bench.finalized(b"unwanted", staging=staging)
    original = object_keys.original(event.tenantid, upload_of(event))
    bench.bucket.put(original, b"unwanted")
    bench.bus.publish(bench.cancel(event))
    eventually(lambda: bench.is_staged(event), until=lambda is_staged: not is_staged)
    eventually(bench.bucket.keys, until=lambda keys: original not in keys)


def test_waiting_for_a_lease_to_expire_keeps_the_crash_count(bench: Workbench) -> None:
    event = bench.finalized(b"leased")
    with Session(bench.engine) as session, session.begin():
        session.execute(
            update(Step)
            .where(Step.job_id == event.job_id)
            .values(lease_owner="dead", lease_until=func.now() + timedelta(seconds=60))
        )
    bench.bus.publish_raw(
        envelope.encode(event),
        routing_key=queues.UPLOADS,
        content_type=envelope.CONTENT_TYPE,
        headers={topology.CRASHES_HEADER: 2, topology.ATTEMPT_HEADER: 1},
    )
    waiting = bench.bus.take_about(event, queue=topology.RETRY_TIERS[0].name)
    headers: dict[str, Any] = waiting.headers
    assert (headers[topology.CRASHES_HEADER], headers[topology.ATTEMPT_HEADER]) == (2, 1)


def test_an_unmounted_staging_volume_fails_no_upload(bench: Workbench) -> None:
    event = bench.finalized(b"elsewhere")
    bench.staged(event).unlink()
    marker = bench.staging / staging_layout.MARKER
    marker.unlink()
    try:
        bench.bus.publish(event)
        bench.bus.take_about(event, queue=topology.RETRY_TIERS[0].name)
    finally:
        marker.touch()
    assert bench.job(event).status == JobStatus.PROCESSING


def test_an_upload_survives_an_outage_of_the_store(store_front: Killable, bench: Workbench) -> None:
    event = bench.finalized(b"outage")
    store_front.halt()
    bench.bus.publish(event)
    tier = topology.RETRY_TIERS[0].name
    eventually(lambda: bench.bus.depth(tier), until=lambda depth: depth == 1)
    store_front.start()
    assert bench.settled(event).status == JobStatus.COMPLETED


def test_an_upload_fails_if_the_outage_outlasts_its_attempts(
    store_front: Killable, bench: Workbench
) -> None:
    event = bench.finalized(b"long outage")
    store_front.halt()
    bench.bus.publish(event)
    job = bench.settled(event)
    store_front.start()
    assert (job.status, job.error_code) == (JobStatus.FAILED, "store_unavailable")
    assert job.error_retryable
    (emitted,) = bench.emitted(event)
    assert isinstance(emitted.data, UploadFailed)
    assert not bench.staged(event).exists()
