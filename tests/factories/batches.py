"""Batches as the gateway receives them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from pipeline.context import database_time
from schemas import object_keys
from schemas.events import envelope
from schemas.events.batches import BatchReceived
from schemas.events.envelope import Envelope
from schemas.ids import BatchId, JobId, TenantId, uuid7
from schemas.lifecycle import BatchEvents, BatchLineState, BatchStatus, JobKind, Priority
from schemas.settings import StepSettings
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.batches import Batch, BatchLine
from schemas.tables.events import EventRecord, emit
from schemas.tables.jobs import Job


def references(tenant_id: TenantId, count: int) -> list[dict[str, Any]]:
    """Return the sources of lines that name objects of a tenant."""
    prefix = object_keys.incoming(tenant_id)
    return [{"object_key": f"{prefix}{number:06}.bin"} for number in range(1, count + 1)]


def receive_batch(
    session: Session,
    tenant_id: TenantId,
    sources: Sequence[dict[str, Any] | None],
    *,
    events: BatchEvents = BatchEvents.EACH,
    metadata: dict[str, str] | None = None,
    settings: StepSettings,
) -> Envelope:
    """Add a batch with its job and released step, as the gateway does; return its event.

    Args:
        session: the session.
        tenant_id: owner of the batch.
        sources: of the lines; None is a rejected line.
        events: which events webhooks receive.
        metadata: of all lines.
        settings: shares of the queues.
    """
    now = database_time(session)
    batch_id, job_id = BatchId(uuid7(now)), JobId(uuid4())
    session.add(
        Job(
            id=job_id,
            tenant_id=tenant_id,
            kind=JobKind.BATCH,
            stage=JobStage.BATCH,
            priority=Priority.BULK,
        )
    )
    session.flush()
    event_id = emit(
        session,
        BatchReceived(batch_id=batch_id, job_id=job_id),
        tenant_id=tenant_id,
        source="/tests",
        now=now,
    )
    session.add(
        Batch(
            id=batch_id,
            tenant_id=tenant_id,
            job_id=job_id,
            event_id=event_id,
            status=BatchStatus.PROCESSING,
            lines=len(sources),
            rejected=sources.count(None),
            events=events,
            client_metadata=metadata or {},
            received_at=now,
            expires_at=now + timedelta(days=1),
        )
    )
    session.flush()
    session.add_all(
        BatchLine(
            batch_id=batch_id,
            line=number,
            state=BatchLineState.REJECTED if source is None else BatchLineState.WAITING,
            source=source,
            error_code="invalid_request" if source is None else None,
        )
        for number, source in enumerate(sources, start=1)
    )
    steps.add_step(
        session,
        StepName.BATCH,
        job_id=job_id,
        tenant_id=tenant_id,
        priority=Priority.BULK,
        event_id=event_id,
        total=len(sources),
    )
    session.flush()
    session.execute(steps.release(tenant_id, StepName.BATCH, settings=settings))
    return envelope.decode(session.get_one(EventRecord, event_id).body)


def batch_of(event: Envelope) -> BatchId:
    batch_id: BatchId = event.data.batch_id  # type: ignore[union-attr]  # an event of a batch
    return batch_id
