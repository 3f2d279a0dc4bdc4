"""Partitions of events: added ahead, dropped when nothing needs them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Uuid, column, select, table, text, update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance import partitions
from pipeline.maintenance.partitions import WEEK, week_of
from schemas.ids import DeliveryId, EventId, JobId, TenantId, WebhookId, uuid7
from schemas.lifecycle import DeliveryStatus, StepStatus
from schemas.tables.deliveries import Attempt, Delivery
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.webhooks import Webhook
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import ample_budget, count, transferring


def names(context: Context, table: str = "events") -> list[str]:
    """Return the partitions of a table, without the default one."""
    with Session(context.engine) as session:
        return list(
            session.scalars(
                partitions._PARTITIONS,  # noqa: SLF001  # what the sweep reads
                {"parent": table},
            )
        )


TABLES = {"events": "id", "deliveries": "id", "attempts": "delivery_id"}


def ids_in(context: Context, partition: str) -> list[EventId]:
    with Session(context.engine) as session:
        return list(session.scalars(select(column("id", Uuid)).select_from(table(partition))))


def monday(weeks_ago: int) -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=today.weekday()) - weeks_ago * WEEK


def add_old_partition(context: Context, *, weeks_ago: int) -> str:
    with context.transaction() as session:
        for table_name, key in TABLES.items():
            session.execute(
                text("SELECT waybill_add_partition(:table, :key, :monday)"),
                {"table": table_name, "key": key, "monday": monday(weeks_ago)},
            )
    return f"events_{monday(weeks_ago):%Y%m%d}"


def add_old_event(context: Context, *, weeks_ago: int, job_id: JobId | None = None) -> EventRecord:
    at = monday(weeks_ago) + timedelta(days=3)
    event = EventRecord(
        id=EventId(uuid7(at)),
        tenant_id=TenantId(uuid4()),
        type="upload.stored",
        subject="",
        job_id=job_id,
        body=b"{}",
        created_at=at,
    )
    with context.transaction() as session:
        session.add(event)
    return event


def test_partitions_are_added_for_the_weeks_ahead(context: Context) -> None:
    with context.transaction() as session:
        for table_name in TABLES:
            for name in names(context, table_name):
                session.execute(text(f"DROP TABLE {name}"))
    added = partitions.sweep(context, ample_budget()).added
    assert added == len(TABLES) * (1 + partitions.WEEKS_AHEAD)
    for table_name in TABLES:
        assert week_of(names(context, table_name)[0]) == monday(0)
    assert partitions.sweep(context, ample_budget()).added == 0


def test_an_event_goes_to_the_partition_of_its_week(context: Context) -> None:
    partition = add_old_partition(context, weeks_ago=3)
    event = add_old_event(context, weeks_ago=3)
    assert ids_in(context, partition) == [event.id]


def test_events_of_the_default_partition_move_to_a_partition_that_is_added_late(
    context: Context,
) -> None:
    event = add_old_event(context, weeks_ago=3)
    assert ids_in(context, "events_default") == [event.id]
    partition = add_old_partition(context, weeks_ago=3)
    assert ids_in(context, partition) == [event.id]
    assert ids_in(context, "events_default") == []


def test_a_partition_is_dropped_when_its_last_day_is_older_than_the_retention_time(
    context: Context,
) -> None:
    old, young = (add_old_partition(context, weeks_ago=weeks) for weeks in (6, 4))
    add_old_event(context, weeks_ago=6)
    swept = partitions.sweep(context, ample_budget())
    assert (swept.dropped, swept.dropped_deliveries, swept.kept) == (1, 1, 0)
    assert old not in names(context)
    assert young in names(context)


def test_a_partition_that_other_statements_read_is_kept_until_the_next_sweep(
    context: Context,
) -> None:
    partition = add_old_partition(context, weeks_ago=6)
    with Session(context.engine) as reading:
        reading.execute(select(EventRecord.id)).all()
        swept = partitions.sweep(context, ample_budget())
        assert (swept.dropped, swept.kept) == (0, 1)
    assert partitions.sweep(context, ample_budget()).dropped == 1
    assert partition not in names(context)


@pytest.mark.parametrize("need", ["open job", "unpublished", "pending delivery", "waiting step"])
def test_a_partition_with_an_event_that_is_still_needed_is_never_dropped(
    context: Context, need: str
) -> None:
    partition = add_old_partition(context, weeks_ago=6)
    of_open_job, _ = transferring(context)
    event = add_old_event(
        context, weeks_ago=6, job_id=of_open_job.job_id if need == "open job" else None
    )
    with context.transaction() as session:
        if need == "unpublished":
            session.add(OutboxMessage(event_id=event.id))
        elif need == "pending delivery":
            session.add(delivery_of(event, add_endpoint(session)))
        elif need == "waiting step":
            session.execute(update(Step).values(event_id=event.id, status=StepStatus.WAITING))

    assert partitions.sweep(context, ample_budget()).dropped == 0

    assert partition in names(context)
    assert count(context, EventRecord) >= 1


def add_endpoint(session: Session, *, paused_at: datetime | None = None) -> Webhook:
    webhook = Webhook(
        id=WebhookId(uuid4()),
        tenant_id=add_tenant(session),
        url="https://a/",
        paused_at=paused_at,
    )
    session.add(webhook)
    session.flush()
    return webhook


def delivery_of(
    event: EventRecord,
    webhook: Webhook,
    *,
    status: DeliveryStatus = DeliveryStatus.PENDING,
) -> Delivery:
    """Return a delivery of an event, of the same age."""
    first_half = event.id.int >> 64 << 64
    return Delivery(
        id=DeliveryId(UUID(int=first_half | uuid4().int & (1 << 64) - 1)),
        tenant_id=webhook.tenant_id,
        webhook_id=webhook.id,
        event_id=event.id,
        event_type=event.type,
        status=status,
        created_at=event.created_at,
        next_attempt_at=event.created_at if status is DeliveryStatus.PENDING else None,
        settled_at=None if status is DeliveryStatus.PENDING else event.created_at,
    )


def attempt_of(delivery: Delivery) -> Attempt:
    return Attempt(
        delivery_id=delivery.id,
        number=1,
        started_at=delivery.created_at,
        duration_us=1000,
        outcome="delivered",
    )


def test_the_deliveries_of_a_week_are_dropped_with_their_attempts(context: Context) -> None:
    add_old_partition(context, weeks_ago=6)
    old, young = add_old_event(context, weeks_ago=6), add_old_event(context, weeks_ago=0)
    with context.transaction() as session:
        webhook = add_endpoint(session)
        for event in (old, young):
            delivery = delivery_of(event, webhook, status=DeliveryStatus.DELIVERED)
            session.add(delivery)
            session.add(attempt_of(delivery))
    assert partitions.sweep(context, ample_budget()).dropped_deliveries == 1
    week = f"{monday(6):%Y%m%d}"
    assert f"deliveries_{week}" not in names(context, "deliveries")
    assert f"attempts_{week}" not in names(context, "attempts")
    assert (count(context, Delivery), count(context, Attempt)) == (1, 1)


def test_a_week_with_a_pending_delivery_keeps_deliveries_and_events(context: Context) -> None:
    add_old_partition(context, weeks_ago=6)
    event = add_old_event(context, weeks_ago=6)
    with context.transaction() as session:
        session.add(delivery_of(event, add_endpoint(session)))
    swept = partitions.sweep(context, ample_budget())
    assert (swept.dropped, swept.dropped_deliveries, swept.kept) == (0, 0, 2)
    assert (count(context, Delivery), count(context, EventRecord)) == (1, 1)


def test_old_deliveries_of_a_paused_endpoint_expire(context: Context) -> None:
    now = datetime.now(UTC)
    old, young = add_old_event(context, weeks_ago=6), add_old_event(context, weeks_ago=0)
    with context.transaction() as session:
        paused = add_endpoint(session, paused_at=now)
        session.add_all(delivery_of(event, paused) for event in (old, young))
        session.add(delivery_of(old, add_endpoint(session)))
    assert partitions.sweep(context, ample_budget()).expired == 1
    with context.transaction() as session:
        rows = session.execute(
            select(Delivery.webhook_id, Delivery.event_id, Delivery.reason).where(
                Delivery.status == DeliveryStatus.DISCARDED
            )
        ).all()
        assert [tuple(row) for row in rows] == [(paused.id, old.id, "expired")]


def test_old_deliveries_of_the_default_partition_are_deleted_once_they_are_settled(
    context: Context,
) -> None:
    event = add_old_event(context, weeks_ago=6)
    with context.transaction() as session:
        webhook = add_endpoint(session)
        settled = delivery_of(event, webhook, status=DeliveryStatus.EXHAUSTED)
        pending = delivery_of(event, webhook)
        for delivery in (settled, pending):
            session.add(delivery)
            session.add(attempt_of(delivery))
    swept = partitions.sweep(context, ample_budget())
    assert (swept.deleted_deliveries, swept.deleted) == (1, 0)
    assert ids_in(context, "deliveries_default") == [pending.id]
    assert count(context, Attempt) == 1


def test_old_events_of_the_default_partition_are_deleted_unless_they_are_needed(
    context: Context,
) -> None:
    of_open_job, _ = transferring(context)
    add_old_event(context, weeks_ago=6)
    needed = add_old_event(context, weeks_ago=6, job_id=of_open_job.job_id)
    assert partitions.sweep(context, ample_budget()).deleted == 1
    assert ids_in(context, "events_default") == [needed.id]
