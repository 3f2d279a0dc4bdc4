"""Facts that the notifier never received are published again."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from pipeline.context import Context
from pipeline.maintenance import lost_facts
from schemas import queues
from schemas.ids import EventId, uuid7
from schemas.tables.events import EventRecord
from schemas.tables.inbox import NOTIFIER, CheckedEvents, InboxMessage
from schemas.tables.outbox import OutboxMessage
from schemas.tables.tenant_deletions import TenantDeletion
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import ample_budget

LATELY = timedelta(hours=1)


@pytest.fixture(autouse=True)
def nothing_checked(context: Context) -> None:
    with context.transaction() as session:
        session.execute(
            update(CheckedEvents).values(up_to=uuid7(datetime.now(UTC) - timedelta(days=1)))
        )


def add_fact(
    context: Context,
    *,
    ago: timedelta = LATELY,
    type_: str = "upload.stored",
    is_applied: bool = False,
) -> EventId:
    """Add an event that the relay has published."""
    at = datetime.now(UTC) - ago
    event_id = EventId(uuid7(at))
    with context.transaction() as session:
        session.add(
            EventRecord(
                id=event_id, tenant_id=add_tenant(session), type=type_, subject="", body=b"{}"
            )
        )
        session.add(OutboxMessage(event_id=event_id, published_at=at))
        if is_applied:
            session.add(InboxMessage(consumer=NOTIFIER, event_id=event_id))
    return event_id


def sweep(context: Context, *, is_queue_empty: bool = True) -> int:
    return lost_facts.sweep(context, ample_budget(), is_queue_empty=lambda: is_queue_empty)


def published_again(context: Context) -> list[EventId]:
    with Session(context.engine) as session:
        return list(
            session.scalars(
                select(OutboxMessage.event_id)
                .where(OutboxMessage.queue == queues.NOTIFY, OutboxMessage.published_at.is_(None))
                .order_by(OutboxMessage.event_id)
            )
        )


def relay_all(context: Context) -> None:
    with context.transaction() as session:
        session.execute(update(OutboxMessage).values(published_at=func.now()))


def test_a_fact_that_is_missing_in_the_inbox_is_published_to_notify(context: Context) -> None:
    add_fact(context, is_applied=True)
    lost = add_fact(context)
    assert sweep(context) == 1
    assert published_again(context) == [lost]


def test_a_fact_of_a_deleted_tenant_is_not_published_again(context: Context) -> None:
    event_id = add_fact(context)
    with context.transaction() as session:
        tenant_id = session.execute(
            select(EventRecord.tenant_id).where(EventRecord.id == event_id)
        ).scalar_one()
        session.add(TenantDeletion(tenant_id=tenant_id, name="deleted", requested_by="tests"))
    assert sweep(context) == 0
    assert published_again(context) == []


def test_a_fact_is_left_alone_while_messages_wait_in_the_queue(context: Context) -> None:
    add_fact(context)
    assert sweep(context, is_queue_empty=False) == 0


def test_a_recent_fact_and_an_event_that_only_starts_a_step_are_left_alone(
    context: Context,
) -> None:
    add_fact(context, ago=timedelta(0))
    add_fact(context, type_="upload.finalized")
    assert sweep(context) == 0


def test_a_fact_that_the_relay_has_not_published_is_not_added_twice(context: Context) -> None:
    lost = add_fact(context)
    assert [sweep(context), sweep(context)] == [1, 0]
    assert published_again(context) == [lost]


def test_a_fact_that_is_lost_again_is_published_again_and_then_given_up(context: Context) -> None:
    lost = add_fact(context)
    later = add_fact(context, ago=LATELY / 2)
    for _ in range(lost_facts.TIMES_MAX):
        assert sweep(context) == 2
        relay_all(context)
    with capture_logs() as lines:
        assert sweep(context) == 0
    assert [line["event_id"] for line in lines if line["event"] == "watchdog.fact_given_up"] == [
        str(lost),
        str(later),
    ]
    assert sweep(context) == 0, "checked once and for all"


def test_an_applied_fact_is_not_looked_at_again(context: Context) -> None:
    first = add_fact(context, is_applied=True)
    sweep(context)
    with Session(context.engine) as session:
        assert session.scalar(select(CheckedEvents.up_to)) == first


def test_more_facts_than_one_batch_are_all_checked(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_facts, "BATCH", 2)
    for minutes in range(5, 0, -1):
        add_fact(context, ago=LATELY + timedelta(minutes=minutes), is_applied=True)
    lost = add_fact(context)
    assert sweep(context) == 1
    assert published_again(context) == [lost]


def test_a_fact_that_the_inbox_may_have_forgotten_is_not_published_again(context: Context) -> None:
    with context.transaction() as session:
        session.execute(
            update(CheckedEvents).values(up_to=uuid7(datetime.now(UTC) - timedelta(days=60)))
        )
    remembered = context.settings.inbox_retention
    add_fact(context, ago=remembered + timedelta(minutes=1))
    lost = add_fact(context, ago=remembered - timedelta(minutes=1))
    assert sweep(context) == 1
    assert published_again(context) == [lost]
