from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from celery import Celery
from celery.exceptions import Ignore
from structlog.testing import capture_logs

from pipeline.ingest.errors import DocumentEncrypted
from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from pipeline.messaging.event_task import (
    EventTask,
    MessageDelivery,
    RetryLater,
    WorkerKeepsDying,
    tier_after,
)
from pipeline.transfer.sources.reference import ReferenceMissing
from schemas import queues, topology
from schemas.errors import DomainError, ErrorCode, StagingMissing
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled
from schemas.ids import EventId, TenantId, UploadId
from schemas.object_keys import ObjectKey
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


class NeedsOperator(RetryLater):
    backoff = True


class StoreDown(DomainError):
    code = ErrorCode.STORE_UNAVAILABLE
    retryable = True


class RecordingTask(EventTask):
    """Records the calls it gets and the messages it publishes."""

    name = "tests.recording"
    home_queue = queues.UPLOADS
    typing = False

    def __init__(
        self, *, makes_progress: bool = False, fails_with: Exception | None = None
    ) -> None:
        self.makes_progress = makes_progress
        self.fails_with = fails_with
        self.handled: list[MessageDelivery] = []
        self.given_up: list[DomainError] = []
        self.published: list[Mapping[str, object]] = []

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:  # noqa: ARG002
        self.handled.append(delivery)
        if self.fails_with is not None:
            raise self.fails_with

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:  # noqa: ARG002
        self.given_up.append(error)

    def got_further(self, event: Envelope) -> bool:  # noqa: ARG002
        return self.makes_progress

    def _publish(
        self,
        event: ReceivedEvent,  # noqa: ARG002
        *,
        headers: dict[str, object],
        tier: RetryTier,
    ) -> None:
        self.published.append({**headers, "tier": tier})


def deliver(task: RecordingTask, **header: int) -> None:
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
def test_progress_resets_the_crash_count(crashes: int) -> None:
    task = RecordingTask(makes_progress=True)

    with pytest.raises(Ignore):
        deliver(task, crashes=crashes)

    (again,) = task.published
    assert again[CRASHES_HEADER] == 0
    assert again["tier"] == topology.RETRY_TIERS[0]
    assert not task.handled
    assert not task.given_up


def test_an_event_without_crashes_is_handled() -> None:
    task = RecordingTask(makes_progress=True)
    deliver(task, crashes=0)
    assert len(task.handled) == 1


@pytest.mark.parametrize("crashes", range(2 * CRASH_LIMIT))
def test_an_event_is_given_up_after_too_many_crashes_without_progress(crashes: int) -> None:
    task = RecordingTask(makes_progress=False)

    deliver(task, crashes=crashes)

    is_over_the_limit = crashes >= CRASH_LIMIT
    assert len(task.handled) == (not is_over_the_limit)
    assert [type(error) for error in task.given_up] == [WorkerKeepsDying] * is_over_the_limit


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
def test_each_attempt_waits_longer_up_to_the_last_tier(attempt: int, delay: timedelta) -> None:
    assert tier_after(attempt).delay == delay


@pytest.mark.parametrize(("waits", "then"), [(0, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("attempt", [0, 1])
def test_a_wait_with_backoff_grows_and_counts_no_attempt(
    waits: int, then: int, attempt: int
) -> None:
    task = RecordingTask(fails_with=NeedsOperator())

    with pytest.raises(Ignore):
        deliver(task, waits=waits, attempt=attempt)

    (again,) = task.published
    assert again["tier"] == RETRY_TIERS[waits]
    assert (again[WAITS_HEADER], again[ATTEMPT_HEADER]) == (then, attempt)


def test_long_waits_leave_the_attempts_unchanged() -> None:
    task = RecordingTask(fails_with=StoreDown("down"))

    with pytest.raises(Ignore):
        deliver(task, waits=2, attempt=0)

    (again,) = task.published
    assert (again["tier"], again[ATTEMPT_HEADER]) == (RETRY_TIERS[0], 1)
    assert not task.given_up


def test_a_first_delivery_has_zero_counters() -> None:
    assert MessageDelivery.of({}) == MessageDelivery(
        attempt=0, crashes=0, waits=0, traceparent=None
    )


def test_a_delivery_carries_the_counters_of_the_consumer() -> None:
    header = {"attempt": 2, "crashes": 1, "waits": 1, "traceparent": "00-ab-cd-01"}
    assert MessageDelivery.of({DELIVERY_HEADER: header}) == MessageDelivery(
        attempt=2, crashes=1, waits=1, traceparent="00-ab-cd-01"
    )


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (DocumentEncrypted(), "info"),
        (ReferenceMissing(ObjectKey("incoming/scan.pdf")), "info"),
        (StagingMissing("the staged file is gone"), "error"),
    ],
)
def test_only_an_end_without_a_fault_of_the_client_is_logged_as_an_error(
    error: DomainError, level: str
) -> None:
    with capture_logs() as lines:
        deliver(RecordingTask(fails_with=error))

    (line,) = [line for line in lines if line["event"] == "task.given_up"]
    assert line["log_level"] == level
