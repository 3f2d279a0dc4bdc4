"""Partitions of events: added ahead, dropped when nothing needs them."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Uuid, column, select, table, text, update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance import partitions
from pipeline.maintenance.partitions import WEEK, week_of
from schemas.ids import DeliveryId, EventId, JobId, TenantId, WebhookId, uuid7
from schemas.lifecycle import StepStatus
from schemas.tables.deliveries import Delivery
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.webhooks import Webhook
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import ample_budget, count, transferring


def names(context: Context) -> list[str]:
    with Session(context.engine) as session:
        return list(session.scalars(partitions._PARTITIONS))  # noqa: SLF001  # what the sweep reads


def ids_in(context: Context, partition: str) -> list[EventId]:
    with Session(context.engine) as session:
        return list(session.scalars(select(column("id", Uuid)).select_from(table(partition))))


def monday(weeks_ago: int) -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=today.weekday()) - weeks_ago * WEEK


def add_old_partition(context: Context, *, weeks_ago: int) -> str:
    with context.transaction() as session:
        session.execute(
            text("SELECT waybill_add_events_partition(:monday)"), {"monday": monday(weeks_ago)}
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
        for name in names(context):
            if name != "events_default":
                session.execute(text(f"DROP TABLE {name}"))
    assert partitions.sweep(context, ample_budget()).added == 1 + partitions.WEEKS_AHEAD
    assert week_of(names(context)[0]) == monday(0)
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
    assert (swept.dropped, swept.kept) == (1, 0)
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
            tenant_id = add_tenant(session)
            webhook = Webhook(
                id=WebhookId(uuid4()), tenant_id=tenant_id, url="https://a/", secret=""
            )
            session.add(webhook)
            session.flush()
            session.add(
                Delivery(
                    id=DeliveryId(uuid4()),
                    tenant_id=tenant_id,
                    webhook_id=webhook.id,
                    event_id=event.id,
                    event_type=event.type,
                )
            )
        elif need == "waiting step":
            session.execute(update(Step).values(event_id=event.id, status=StepStatus.WAITING))

    assert partitions.sweep(context, ample_budget()).kept == 1

    assert partition in names(context)
    assert count(context, EventRecord) >= 1


def test_old_events_of_the_default_partition_are_deleted_unless_they_are_needed(
    context: Context,
) -> None:
    of_open_job, _ = transferring(context)
    add_old_event(context, weeks_ago=6)
    needed = add_old_event(context, weeks_ago=6, job_id=of_open_job.job_id)
    assert partitions.sweep(context, ample_budget()).deleted == 1
    assert ids_in(context, "events_default") == [needed.id]
