"""What a worker may write with a lease, without a lease, and after its lease expired."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import Session

from pipeline.steps import lease as leases
from pipeline.steps.errors import LeaseHeld, LeaseLost, StepCancelled, UnknownStep
from pipeline.steps.lease import ClaimedStep
from pipeline.transfer import claim as transfers
from pipeline.transfer import record
from pipeline.transfer.claim import ClaimedTransfer, UnknownUpload, encode_checkpoint
from pipeline.transfer.resume import Checkpoint
from pipeline.transfer.send import SentObject
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadFinalized
from schemas.ids import JobId, UploadId
from schemas.lifecycle import StepStatus
from schemas.policy.quotas import Quotas
from schemas.settings import DatabaseSettings, QuotaSettings, StepSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables import uploads as rows
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from tests.factories.uploads import add_finalized_upload, add_tenant, upload_of
from tests.seen_jobs import seen_job

SETTINGS = StepSettings(step_lease=timedelta(minutes=1))
OVER = timedelta(microseconds=1)
"""A lease that has expired when the next transaction begins."""

OBJECT = SentObject(etag="e", sha256="0" * 64, size_bytes=4, content_type="text/plain")


@pytest.fixture
def session(database: DatabaseSettings) -> Iterator[Session]:
    engine = create_engine(database.database_url.get_secret_value())
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def event(session: Session, tmp_path: Path) -> Envelope:
    event = add_finalized_upload(
        session, tenant_id=add_tenant(session), staging_dir=tmp_path, content=b"good"
    )
    session.commit()
    return event


def claim(
    session: Session, event: Envelope, *, owner: str, lease: timedelta = SETTINGS.step_lease
) -> ClaimedStep | StepStatus:
    assert event.job_id is not None
    try:
        return leases.claim(
            session,
            job_id=event.job_id,
            name=StepName.TRANSFER,
            owner=owner,
            settings=SETTINGS.model_copy(update={"step_lease": lease}),
        )
    finally:
        session.commit()


def claimed_by(
    session: Session, event: Envelope, *, owner: str, lease: timedelta = SETTINGS.step_lease
) -> ClaimedTransfer:
    claimed = claim(session, event, owner=owner, lease=lease)
    assert isinstance(claimed, ClaimedStep)
    return transfers.load(session, claimed, upload_id=upload_of(event))


def expire_leases(session: Session) -> None:
    session.execute(update(Step).values(lease_until=func.now() - OVER))
    session.commit()


def got_further(session: Session, claimed: ClaimedTransfer) -> bool:
    return leases.got_further(session, job_id=claimed.job_id, name=StepName.TRANSFER)


def renew(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    bytes_done: int = 0,
    checkpoint: Checkpoint | None = None,
) -> None:
    leases.renew(
        session,
        claimed.step,
        lease=SETTINGS.step_lease,
        done=bytes_done,
        total=claimed.size,
        checkpoint=encode_checkpoint("m-1", checkpoint),
    )
    session.commit()


def record_stored(session: Session, claimed: ClaimedTransfer) -> None:
    record.record_stored(
        session,
        claimed,
        sent=OBJECT,
        will_be_read=False,
        will_be_scanned=False,
        settings=SETTINGS,
        now=datetime.now(UTC),
        traceparent=None,
    )
    session.commit()


def test_a_second_worker_cannot_claim_a_leased_upload(session: Session, event: Envelope) -> None:
    claimed_by(session, event, owner="first")
    with pytest.raises(LeaseHeld):
        claim(session, event, owner="second")


def test_a_claim_after_an_expired_lease_returns_the_multipart_upload(
    session: Session, event: Envelope
) -> None:
    renew(session, claimed_by(session, event, owner="first"))
    expire_leases(session)
    assert claimed_by(session, event, owner="second").multipart_id == "m-1"


def test_a_worker_whose_lease_is_lost_cannot_write(session: Session, event: Envelope) -> None:
    stale = claimed_by(session, event, owner="first", lease=OVER)
    claimed_by(session, event, owner="second")
    with pytest.raises(LeaseLost):
        renew(session, stale)
    with pytest.raises(LeaseLost):
        record_stored(session, stale)


def test_a_released_upload_can_be_claimed_at_once(session: Session, event: Envelope) -> None:
    first = claimed_by(session, event, owner="first")
    leases.release_lease(session, first.step)
    session.commit()
    claimed_by(session, event, owner="second")


def test_progress_never_decreases_within_a_multipart_upload(
    session: Session, event: Envelope
) -> None:
    claimed = claimed_by(session, event, owner="first")
    renew(session, claimed, bytes_done=3)
    renew(session, claimed, bytes_done=1)
    assert seen_job(session, claimed.job_id).bytes_done == 3


def test_only_the_first_claim_of_a_step_is_first(session: Session, event: Envelope) -> None:
    first = claimed_by(session, event, owner="first")
    leases.release_lease(session, first.step)
    session.commit()
    second = claimed_by(session, event, owner="second")

    assert (first.step.is_first, second.step.is_first) == (True, False)


def test_a_claim_returns_the_checkpoint_of_the_last_renewal(
    session: Session, event: Envelope
) -> None:
    first = claimed_by(session, event, owner="first", lease=OVER)
    assert first.checkpoint is None
    written = Checkpoint(3, state=b"state")
    renew(session, first, bytes_done=3, checkpoint=written)
    leases.release_lease(session, first.step)
    session.commit()
    second = claimed_by(session, event, owner="second")
    assert second.checkpoint == written

    renew(session, second)
    leases.release_lease(session, second.step)
    session.commit()
    assert claimed_by(session, event, owner="third").checkpoint is None


def test_a_reference_whose_size_has_changed_loses_its_checkpoint(
    session: Session, event: Envelope
) -> None:
    claimed = claimed_by(session, event, owner="first")
    renew(session, claimed, bytes_done=3, checkpoint=Checkpoint(3, state=b"state"))

    admitted = record.admit_reference(
        session,
        replace(claimed, checkpoint=Checkpoint(3, state=b"state")),
        size_bytes=claimed.size + 1,
        sniffed_type=None,
        content_type=None,
        defaults=Quotas.from_settings(QuotaSettings()),
        settings=SETTINGS,
    )
    session.commit()

    assert admitted.checkpoint is None
    job = seen_job(session, claimed.job_id)
    assert (job.bytes_done, job.digested_bytes, job.digest_state) == (0, 0, None)


def test_a_claim_returns_the_acknowledged_checksums_of_the_chunks(
    session: Session, event: Envelope
) -> None:
    session.execute(update(rows.Chunk).values(crc32c=b"\0\1\2\3"))
    session.commit()

    (chunk,) = claimed_by(session, event, owner="first").chunks

    assert chunk.crc32c == b"\0\1\2\3"


def test_got_further_compares_with_the_last_claim(session: Session, event: Envelope) -> None:
    claimed = claimed_by(session, event, owner="first", lease=OVER)
    assert not got_further(session, claimed)
    renew(session, claimed, bytes_done=3)
    assert got_further(session, claimed)
    expire_leases(session)
    again = claimed_by(session, event, owner="second")
    assert again.bytes_done == 3
    assert not got_further(session, claimed)


def test_every_step_notices_a_cancellation(session: Session, event: Envelope) -> None:
    claimed = claimed_by(session, event, owner="first")
    session.execute(steps.cancel(claimed.job_id))
    session.commit()
    with pytest.raises(StepCancelled):
        renew(session, claimed)
    with pytest.raises(StepCancelled):
        record_stored(session, claimed)
    session.rollback()
    assert claim(session, event, owner="second") is StepStatus.CANCELLED


def test_a_stored_upload_cannot_be_claimed_again(session: Session, event: Envelope) -> None:
    claimed = claimed_by(session, event, owner="first")
    record_stored(session, claimed)
    assert claim(session, event, owner="second") is StepStatus.COMPLETED
    with pytest.raises(LeaseLost):
        record_stored(session, claimed)


def test_an_unknown_upload_cannot_be_claimed(session: Session) -> None:
    with pytest.raises(UnknownStep):
        leases.claim(
            session,
            job_id=JobId(uuid4()),
            name=StepName.TRANSFER,
            owner="first",
            settings=SETTINGS,
        )


def record_failed(session: Session, event: Envelope) -> StepStatus:
    assert isinstance(event.data, UploadFinalized)
    try:
        return record.record_failed(
            session,
            event.data,
            tenant_id=event.tenantid,
            error=UnknownUpload(UploadId(uuid4())),
            settings=SETTINGS,
            now=datetime.now(UTC),
            traceparent=None,
        )
    finally:
        session.commit()


def test_a_failure_is_recorded_once(session: Session, event: Envelope) -> None:
    assert [record_failed(session, event) for _ in range(2)] == [StepStatus.FAILED] * 2
    assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 1


def test_a_leased_upload_cannot_be_recorded_as_failed(session: Session, event: Envelope) -> None:
    first = claimed_by(session, event, owner="first")
    with pytest.raises(LeaseHeld):
        record_failed(session, event)
    record_stored(session, first)
    assert record_failed(session, event) is StepStatus.COMPLETED
