from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import Ignore

from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from pipeline.messaging.event_task import (
    Delivery,
    EventTask,
    RetryLater,
    WorkerKeepsDying,
    tier_after,
)
from schemas import topology
from schemas.errors import DomainError, ErrorCode
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled
from schemas.ids import EventId, TenantId, UploadId
from schemas.topology import (
    ATTEMPT_HEADER,
    CRASH_LIMIT,
    CRASHES_HEADER,
    RETRY_TIERS,
    WAITS_HEADER,
    RetryTier,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


ATTEMPTS = 2


class OperatorAway(RetryLater):
    backoff = True


class StoreDown(DomainError):
    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True


class Rehearsal(EventTask):
    """A task that notes what becomes of its event."""

    name = "tests.rehearsal"
    home_queue = topology.UPLOADS
    typing = False

    def __init__(self, *, gets_on: bool = False, fails_with: Exception | None = None) -> None:
        self.gets_on = gets_on
        self.fails_with = fails_with
        self.handled: list[Delivery] = []
        self.given_up: list[DomainError] = []
        self.published: list[Mapping[str, object]] = []

    def handle(self, event: Envelope, delivery: Delivery) -> None:  # noqa: ARG002  # not of interest
        self.handled.append(delivery)
        if self.fails_with is not None:
            raise self.fails_with

    def give_up(self, event: Envelope, error: DomainError, delivery: Delivery) -> None:  # noqa: ARG002  # not of interest
        self.given_up.append(error)

    def got_further(self, event: Envelope) -> bool:  # noqa: ARG002  # not of interest
        return self.gets_on

    def _publish(
        self,
        event: ReceivedEvent,  # noqa: ARG002  # not of interest
        *,
        headers: dict[str, object],
        tier: RetryTier,
    ) -> None:
        self.published.append({**headers, "tier": tier})


def deliver(task: Rehearsal, **header: int) -> None:
    event = Envelope(
        id=EventId(uuid4()),
        source="/waybill/tests",
        subject="",
        time=datetime.now(UTC),
        tenantid=TenantId(uuid4()),
        data=UploadCancelled(upload_id=UploadId(uuid4()), filename="scan.pdf"),
    )
    app = Celery("tests", set_as_current=False)
    app.conf["waybill_task_attempts"] = ATTEMPTS
    app.register_task(task)
    task.push_request(**{DELIVERY_HEADER: header})
    try:
        task.run(ReceivedEvent(envelope=event, body=envelope.encode(event)))
    finally:
        task.pop_request()


@pytest.mark.parametrize("crashes", [1, CRASH_LIMIT - 1, CRASH_LIMIT, 2 * CRASH_LIMIT])
def test_crashes_of_workers_that_got_further_are_forgotten(crashes: int) -> None:
    task = Rehearsal(gets_on=True)

    with pytest.raises(Ignore):
        deliver(task, crashes=crashes)

    (again,) = task.published
    assert again[CRASHES_HEADER] == 0
    assert again["tier"] == topology.RETRY_TIERS[0]
    assert not task.handled
    assert not task.given_up


def test_an_event_without_a_crash_is_handled_at_once() -> None:
    task = Rehearsal(gets_on=True)
    deliver(task, crashes=0)
    assert len(task.handled) == 1


@pytest.mark.parametrize("crashes", range(2 * CRASH_LIMIT))
def test_crashes_without_progress_count_up_to_a_limit(crashes: int) -> None:
    task = Rehearsal(gets_on=False)

    deliver(task, crashes=crashes)

    is_deadly = crashes >= CRASH_LIMIT
    assert len(task.handled) == (not is_deadly)
    assert [type(error) for error in task.given_up] == [WorkerKeepsDying] * is_deadly


@pytest.mark.parametrize(
    ("attempt", "delay"),
    [
        (0, timedelta(seconds=5)),
        (1, timedelta(seconds=30)),
        (2, timedelta(minutes=5)),
        (3, timedelta(minutes=5)),
        (9_999, timedelta(minutes=5)),
    ],
)
def test_an_event_waits_longer_after_each_try(attempt: int, delay: timedelta) -> None:
    assert tier_after(attempt).delay == delay


@pytest.mark.parametrize(("waits", "then"), [(0, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("attempt", [0, 1])
def test_what_waits_for_an_operator_waits_longer_each_time_and_uses_up_no_try(
    waits: int, then: int, attempt: int
) -> None:
    task = Rehearsal(fails_with=OperatorAway())

    with pytest.raises(Ignore):
        deliver(task, waits=waits, attempt=attempt)

    (again,) = task.published
    assert again["tier"] == RETRY_TIERS[waits]
    assert (again[WAITS_HEADER], again[ATTEMPT_HEADER]) == (then, attempt)


def test_an_event_that_waited_for_an_operator_has_all_its_tries() -> None:
    task = Rehearsal(fails_with=StoreDown("down"))

    with pytest.raises(Ignore):
        deliver(task, waits=2, attempt=0)

    (again,) = task.published
    assert (again["tier"], again[ATTEMPT_HEADER]) == (RETRY_TIERS[0], 1)
    assert not task.given_up


def test_a_first_delivery_has_no_history() -> None:
    assert Delivery.of({}) == Delivery(attempt=0, crashes=0, waits=0, traceparent=None)


def test_a_delivery_carries_what_the_consumer_took_off_the_wire() -> None:
    header = {"attempt": 2, "crashes": 1, "waits": 1, "traceparent": "00-ab-cd-01"}
    assert Delivery.of({DELIVERY_HEADER: header}) == Delivery(
        attempt=2, crashes=1, waits=1, traceparent="00-ab-cd-01"
    )
