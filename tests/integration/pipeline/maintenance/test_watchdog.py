"""Steps that no worker has and that no message will start are released again."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from pipeline.context import Context
from pipeline.maintenance import watchdog
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from schemas import queues, topology
from schemas.events.envelope import Envelope
from schemas.lifecycle import DeadLetterState, JobStatus, StepStatus
from schemas.steps import StepName
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step, TenantSteps
from tests.integration.pipeline.maintenance.leftovers import (
    ample_budget,
    change_transfer,
    transferring,
)
from tests.seen_jobs import seen_job

AGO = func.now() - timedelta(seconds=1)


@pytest.fixture
def event(context: Context) -> Envelope:
    """The event of a queued transfer, whose message no queue has."""
    event, _ = transferring(context)
    return event


def step(context: Context, event: Envelope) -> Step:
    with Session(context.engine) as session:
        return session.get_one(Step, (event.job_id, StepName.TRANSFER))


def published(context: Context) -> list[OutboxMessage]:
    with Session(context.engine) as session:
        return list(session.scalars(select(OutboxMessage).order_by(OutboxMessage.id)))


def relay_all(context: Context) -> None:
    with context.transaction() as session:
        session.execute(update(OutboxMessage).values(published_at=func.now()))


def claim(context: Context, event: Envelope) -> ClaimedStep:
    assert event.job_id is not None
    with context.transaction() as session:
        claimed = lease.claim(
            session,
            job_id=event.job_id,
            name=StepName.TRANSFER,
            owner="worker",
            settings=context.settings,
        )
    assert isinstance(claimed, ClaimedStep)
    return claimed


def test_an_overdue_queued_step_is_published_to_its_queue_again(
    context: Context, event: Envelope
) -> None:
    assert watchdog.sweep(context, ample_budget()).released == 0
    change_transfer(context, event, overdue_at=AGO)

    assert watchdog.sweep(context, ample_budget()).released == 1

    (message,) = published(context)
    assert (message.event_id, message.queue) == (event.id, "uploads")
    assert step(context, event).releases == 2
    assert watchdog.sweep(context, ample_budget()).released == 0, "it is not overdue any more"


def test_a_step_whose_event_the_relay_has_not_published_is_not_released_again(
    context: Context, event: Envelope
) -> None:
    change_transfer(context, event, overdue_at=AGO)
    watchdog.sweep(context, ample_budget())
    change_transfer(context, event, overdue_at=AGO)
    assert watchdog.sweep(context, ample_budget()).released == 0
    relay_all(context)
    change_transfer(context, event, overdue_at=AGO)
    assert watchdog.sweep(context, ample_budget()).released == 1


def test_a_running_step_is_left_to_its_worker_while_the_lease_is_live(
    context: Context, event: Envelope
) -> None:
    claim(context, event)
    change_transfer(context, event, overdue_at=AGO)
    assert watchdog.sweep(context, ample_budget()).released == 0
    assert step(context, event).status == StepStatus.RUNNING


def test_a_running_step_with_an_expired_lease_is_queued_again(
    context: Context, event: Envelope
) -> None:
    claim(context, event)
    change_transfer(context, event, overdue_at=AGO, lease_until=AGO)

    assert watchdog.sweep(context, ample_budget()).released == 1

    assert step(context, event).status == StepStatus.QUEUED
    with Session(context.engine) as session:
        assert seen_job(session, event.job_id).status == JobStatus.PROCESSING
        assert session.scalar(select(func.sum(TenantSteps.in_broker))) == 1
    assert claim(context, event).owner == "worker"


def test_each_release_doubles_the_time_to_the_next_up_to_an_hour(
    context: Context, event: Envelope
) -> None:
    waits = []
    for _ in range(6):
        change_transfer(context, event, overdue_at=AGO)
        relay_all(context)
        watchdog.sweep(context, ample_budget())
        with Session(context.engine) as session:
            wait = session.scalar(select(Step.overdue_at - func.now()))
        assert wait is not None
        waits.append(round(wait / timedelta(minutes=1)))
    assert waits == [10, 20, 40, 60, 60, 60]


def test_many_releases_of_a_step_are_an_error_in_the_log(context: Context, event: Envelope) -> None:
    change_transfer(context, event, overdue_at=AGO, releases=context.settings.step_alarm_after)
    with capture_logs() as lines:
        assert watchdog.sweep(context, ample_budget()).alarms == 1
    (line,) = (line for line in lines if line["event"] == "watchdog.step_released")
    assert line["log_level"] == "error"
    assert line["job_id"] == str(event.job_id)


def test_a_step_that_waits_although_its_tenant_has_room_is_released(
    context: Context, event: Envelope
) -> None:
    change_transfer(context, event, status=StepStatus.WAITING)
    watchdog.sweep(context, ample_budget())
    assert step(context, event).status == StepStatus.QUEUED
    assert [message.queue for message in published(context)] == ["uploads"]


def test_a_release_does_not_wait_for_a_transaction_that_ends_a_step(
    context: Context, event: Envelope
) -> None:
    """The transaction that completes a transfer locks the counters of two names one after the other.

    If the watchdog locked them too, in the order of its steps, both would be in a deadlock.
    """
    claim(context, event)
    change_transfer(context, event, overdue_at=AGO, lease_until=AGO)
    with Session(context.engine) as ending:
        ending.execute(select(TenantSteps).with_for_update())
        with context.transaction() as session:
            session.execute(text("SET LOCAL lock_timeout = '2s'"))
            _, released = watchdog.release_overdue(session, settings=context.settings)
    assert len(released) == 1
    with Session(context.engine) as session:
        assert session.scalar(select(func.sum(TenantSteps.in_broker))) == 1


def add_dead_letter(context: Context, event: Envelope, *, queue: str) -> None:
    with context.transaction() as session:
        session.add(
            DeadLetter(
                queue=queue,
                fingerprint=bytes(32),
                event_id=event.id,
                body=b"{}",
                headers={},
                reason="delivery_limit",
                deaths=1,
            )
        )


@pytest.mark.parametrize("queue", [queues.NOTIFY, queues.METADATA_EXTRACTION])
def test_a_dead_letter_of_another_queue_does_not_hold_a_step_of_the_same_event(
    queue: str, context: Context, event: Envelope
) -> None:
    """One event starts several steps: the dead letter of one must not keep the others waiting."""
    add_dead_letter(context, event, queue=queue)
    change_transfer(context, event, overdue_at=AGO)
    assert watchdog.sweep(context, ample_budget()).released == 1


@pytest.mark.parametrize("queue", [queues.UPLOADS, topology.UNROUTED.name])
def test_a_step_whose_event_is_a_waiting_dead_letter_is_left_to_the_operator(
    queue: str, context: Context, event: Envelope
) -> None:
    add_dead_letter(context, event, queue=queue)
    change_transfer(context, event, overdue_at=AGO)
    assert watchdog.sweep(context, ample_budget()).released == 0

    with context.transaction() as session:
        session.execute(update(DeadLetter).values(state=DeadLetterState.DROPPED))
    change_transfer(context, event, overdue_at=AGO)
    assert watchdog.sweep(context, ample_budget()).released == 1
