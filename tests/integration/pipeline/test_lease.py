"""What a worker may write with a lease, without a lease, and after its lease expired."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, func, select, update
from sqlalchemy.orm import Session

from pipeline.transfer import lease as leases
from pipeline.transfer import record
from pipeline.steps.errors import LeaseLost, StepCancelled
from pipeline.transfer.claim import ClaimedTransfer, LeaseHeld, Settled, UnknownUpload
from pipeline.transfer.resume import Checkpoint
from pipeline.transfer.send import SentObject
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadFinalized
from schemas.ids import JobId, UploadId
from schemas.lifecycle import JobStatus
from schemas.policy.quotas import Quotas
from schemas.settings import DatabaseSettings, QuotaSettings
from schemas.tables import uploads as rows
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from tests.factories.uploads import add_finalized_upload, add_tenant

LEASE = timedelta(minutes=1)
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
    session: Session, event: Envelope, *, owner: str, lease: timedelta = LEASE
) -> ClaimedTransfer | Settled:
    assert event.job_id is not None
    try:
        return leases.claim(
            session,
            job_id=event.job_id,
            upload_id=event.data.upload_id,
            owner=owner,
            lease=lease,
        )
    finally:
        session.commit()


def claimed_by(
    session: Session, event: Envelope, *, owner: str, lease: timedelta = LEASE
) -> ClaimedTransfer:
    claimed = claim(session, event, owner=owner, lease=lease)
    assert isinstance(claimed, ClaimedTransfer)
    return claimed


def renew(
    session: Session,
    claimed: ClaimedTransfer,
    *,
    bytes_done: int = 0,
    checkpoint: Checkpoint | None = None,
) -> None:
    leases.renew(
        session,
        claimed,
        lease=LEASE,
        bytes_done=bytes_done,
        multipart_id="m-1",
        checkpoint=checkpoint,
    )
    session.commit()


def record_stored(session: Session, claimed: ClaimedTransfer, event: Envelope) -> None:
    record.record_stored(
        session,
        claimed,
        sent=OBJECT,
        will_be_read=False,
        event_id=event.id,
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
    session.execute(update(Job).values(lease_until=datetime.now(UTC) - OVER))
    session.commit()
    assert claimed_by(session, event, owner="second").multipart_id == "m-1"


def test_a_worker_whose_lease_is_lost_cannot_write(session: Session, event: Envelope) -> None:
    stale = claimed_by(session, event, owner="first", lease=OVER)
    claimed_by(session, event, owner="second")
    with pytest.raises(LeaseLost):
        renew(session, stale)
    with pytest.raises(LeaseLost):
        record_stored(session, stale, event)


def test_a_released_upload_can_be_claimed_at_once(session: Session, event: Envelope) -> None:
    first = claimed_by(session, event, owner="first")
    leases.release(session, first)
    session.commit()
    claimed_by(session, event, owner="second")


def test_progress_never_decreases_within_a_multipart_upload(
    session: Session, event: Envelope
) -> None:
    claimed = claimed_by(session, event, owner="first")
    renew(session, claimed, bytes_done=3)
    renew(session, claimed, bytes_done=1)
    assert session.get_one(Job, claimed.job_id).bytes_done == 3


def test_a_claim_returns_the_checkpoint_of_the_last_renewal(
    session: Session, event: Envelope
) -> None:
    first = claimed_by(session, event, owner="first", lease=OVER)
    assert first.checkpoint is None
    written = Checkpoint(3, state=b"state")
    renew(session, first, bytes_done=3, checkpoint=written)
    leases.release(session, first)
    session.commit()
    second = claimed_by(session, event, owner="second")
    assert second.checkpoint == written

    renew(session, second)
    leases.release(session, second)
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
    )
    session.commit()

    assert admitted.checkpoint is None
    job = session.get_one(Job, claimed.job_id)
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
    assert not leases.got_further(session, job_id=claimed.job_id)
    renew(session, claimed, bytes_done=3)
    assert leases.got_further(session, job_id=claimed.job_id)
    session.execute(update(Job).values(lease_until=datetime.now(UTC) - OVER))
    session.commit()
    again = claimed_by(session, event, owner="second")
    assert again.bytes_done == 3
    assert not leases.got_further(session, job_id=claimed.job_id)


def test_every_step_notices_a_cancellation(session: Session, event: Envelope) -> None:
    claimed = claimed_by(session, event, owner="first")
    session.execute(update(Job).values(status=JobStatus.CANCELLED))
    session.commit()
    with pytest.raises(StepCancelled):
        renew(session, claimed)
    with pytest.raises(StepCancelled):
        record_stored(session, claimed, event)
    session.rollback()
    assert claim(session, event, owner="second") is Settled.CANCELLED


def test_a_stored_upload_cannot_be_claimed_again(session: Session, event: Envelope) -> None:
    claimed = claimed_by(session, event, owner="first")
    record_stored(session, claimed, event)
    assert claim(session, event, owner="second") is Settled.STORED
    with pytest.raises(LeaseLost):
        record_stored(session, claimed, event)


def test_an_unknown_upload_cannot_be_claimed(session: Session) -> None:
    with pytest.raises(UnknownUpload):
        leases.claim(
            session,
            job_id=JobId(uuid4()),
            upload_id=UploadId(uuid4()),
            owner="first",
            lease=LEASE,
        )


def record_failed(session: Session, event: Envelope) -> Settled:
    assert isinstance(event.data, UploadFinalized)
    try:
        return record.record_failed(
            session,
            event.data,
            tenant_id=event.tenantid,
            error=UnknownUpload(event.data.upload_id),
            now=datetime.now(UTC),
            traceparent=None,
        )
    finally:
        session.commit()


def test_a_failure_is_recorded_once(session: Session, event: Envelope) -> None:
    assert [record_failed(session, event) for _ in range(2)] == [Settled.FAILED] * 2
    assert session.scalar(select(func.count()).select_from(OutboxMessage)) == 1


def test_a_leased_upload_cannot_be_recorded_as_failed(session: Session, event: Envelope) -> None:
    first = claimed_by(session, event, owner="first")
    with pytest.raises(LeaseHeld):
        record_failed(session, event)
    record_stored(session, first, event)
    assert record_failed(session, event) is Settled.STORED
