"""The sweep that deletes rows after their retention time."""

from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import select

from pipeline.context import Context
from pipeline.maintenance import retention
from schemas.ids import EventId
from schemas.lifecycle import DeadLetterState
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.inbox import InboxMessage
from schemas.tables.outbox import OutboxMessage
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import (
    LONG_AGO,
    ample_budget,
    count,
)


def test_rows_are_deleted_after_their_retention_time(context: Context) -> None:
    with context.transaction() as session:
        tenant_id = add_tenant(session)
        for at in (LONG_AGO, datetime.now(UTC)):
            session.add(InboxMessage(consumer="c", event_id=EventId(uuid4()), processed_at=at))
            session.add(
                IdempotentRequest(
                    tenant_id=tenant_id,
                    key=str(at),
                    operation="create",
                    request_hash=bytes(32),
                    resource_id=uuid4(),
                    created_at=at,
                )
            )
        for published_at in (LONG_AGO, datetime.now(UTC), None):
            session.add(
                OutboxMessage(
                    event_id=EventId(uuid4()),
                    created_at=LONG_AGO,
                    published_at=published_at,
                )
            )
    assert retention.sweep(context, ample_budget()) == retention.Summary(
        outbox=1, inbox=1, idempotency=1, dead_letters=0
    )
    assert (count(context, OutboxMessage), count(context, InboxMessage)) == (2, 1)
    assert count(context, IdempotentRequest) == 1


def test_settled_dead_letters_are_deleted_and_waiting_ones_kept(context: Context) -> None:
    with context.transaction() as session:
        for settled_at in (LONG_AGO, datetime.now(UTC), None):
            session.add(
                DeadLetter(
                    queue="uploads",
                    fingerprint=uuid4().bytes,
                    body=b"{}",
                    headers={},
                    reason="rejected",
                    deaths=1,
                    received_at=LONG_AGO,
                    state=DeadLetterState.WAITING
                    if settled_at is None
                    else DeadLetterState.DROPPED,
                    settled_at=settled_at,
                )
            )
    assert retention.sweep(context, ample_budget()).dead_letters == 1
    with context.transaction() as session:
        assert set(session.scalars(select(DeadLetter.state))) == {
            DeadLetterState.WAITING,
            DeadLetterState.DROPPED,
        }


def test_more_rows_than_one_batch_are_all_deleted(context: Context) -> None:
    with context.transaction() as session:
        session.add_all(
            InboxMessage(consumer="c", event_id=EventId(uuid4()), processed_at=LONG_AGO)
            for _ in range(retention.BATCH + 1)
        )
    assert retention.sweep(context, ample_budget()).inbox == retention.BATCH + 1
