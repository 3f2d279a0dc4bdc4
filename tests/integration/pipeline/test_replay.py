"""Replays: the walk on a database, and the task in a real worker."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import create_engine, func, select, text, update
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from pipeline.replay import walk as walking
from pipeline.replay.errors import EndpointDeleted, EndpointOff
from pipeline.replay.walk import Checkpoint, walk
from schemas import queues
from schemas.events import envelope
from schemas.events.endpoints import EndpointDisabled, Ping, ReplayRequested
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled
from schemas.ids import BatchId, DeliveryId, JobId, TenantId, UploadId, WebhookId
from schemas.lifecycle import (
    FAILED_DELIVERIES,
    SETTLED_DELIVERIES,
    SETTLED_JOBS,
    BatchEvents,
    BatchStatus,
    DeliveryStatus,
    JobKind,
    JobStatus,
    Priority,
    StepStatus,
)
from schemas.settings import DatabaseSettings
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.batches import Batch
from schemas.tables.deliveries import Delivery, DeliveryQueue
from schemas.tables.events import NO_FEED, EventRecord, emit
from schemas.tables.inbox import InboxMessage
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook
from tests.eventually import eventually
from tests.factories.deliveries import a_delivery, an_endpoint, an_event_row, an_inbox_row
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.workbench import Workbench, workbench

START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
END = START + timedelta(minutes=50)
RATE = 50.0


class Log:
    """An endpoint of a tenant, and the rows of its log."""

    def __init__(self, session: Session, **columns: Any) -> None:  # noqa: ANN401  # any column
        self.session = session
        self.tenant_id: TenantId = add_tenant(session)
        webhook = an_endpoint(self.tenant_id, **columns)
        session.add(webhook)
        session.flush()
        self.webhook_id: WebhookId = webhook.id

    def event(self, *, minute: float = 0, is_applied: bool = True, **columns: Any) -> EventRecord:  # noqa: ANN401  # any column
        """Add an event without a delivery."""
        event = an_event_row(self.tenant_id, at=START + timedelta(minutes=minute), **columns)
        self.session.add(event)
        if is_applied:
            self.session.add(an_inbox_row(event, deliveries=0))
        self.session.flush()
        return event

    def delivery(
        self,
        status: DeliveryStatus = DeliveryStatus.EXHAUSTED,
        *,
        minute: float = 0,
        **columns: Any,  # noqa: ANN401  # any column
    ) -> Delivery:
        event = an_event_row(self.tenant_id, at=START + timedelta(minutes=minute))
        delivery = a_delivery(event, self.webhook_id, status, **columns)
        self.session.add_all([event, an_inbox_row(event, deliveries=1), delivery])
        self.session.flush()
        return delivery

    def order(self, **fields: Any) -> ReplayRequested:  # noqa: ANN401  # any field
        return ReplayRequested(
            **{
                "endpoint_id": self.webhook_id,
                "job_id": JobId(uuid4()),
                "since": START,
                "until": END,
                "statuses": tuple(FAILED_DELIVERIES),
                **fields,
            }
        )

    def replay(self, order: ReplayRequested) -> Checkpoint:
        """Walk to the end of the range."""
        checkpoint = Checkpoint.of(None, order=order)
        while not checkpoint.is_over:
            checkpoint = self.batch(checkpoint, order)
        return checkpoint

    def batch(self, checkpoint: Checkpoint, order: ReplayRequested) -> Checkpoint:
        walked = walk(self.session, checkpoint, order, tenant_id=self.tenant_id, rate=RATE)
        self.session.expire_all()
        # As the step stores it.
        return Checkpoint.of(walked.encoded(), order=order)

    def pending(self) -> Sequence[Delivery]:
        """Return the pending deliveries, first due first."""
        return self.session.scalars(
            select(Delivery)
            .where(
                Delivery.webhook_id == self.webhook_id, Delivery.status == DeliveryStatus.PENDING
            )
            .order_by(Delivery.next_attempt_at)
        ).all()

    def change(self, **columns: Any) -> None:  # noqa: ANN401  # any column
        self.session.execute(update(Webhook).where(Webhook.id == self.webhook_id).values(**columns))


def an_upload(tenant_id: TenantId, **columns: Any) -> Upload:  # noqa: ANN401  # any column
    return Upload(
        id=UploadId(uuid4()),
        tenant_id=tenant_id,
        filename="a.pdf",
        size=1,
        chunk_size=1,
        chunk_count=1,
        expires_at=END,
        **columns,
    )


@pytest.fixture
def session(database: DatabaseSettings) -> Iterator[Session]:
    engine = create_engine(database.database_url.get_secret_value())
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def log(session: Session) -> Log:
    return Log(session)


def test_failed_deliveries_of_the_range_become_due_in_their_order(log: Log) -> None:
    wanted = [
        log.delivery(DeliveryStatus.EXHAUSTED, minute=2),
        log.delivery(DeliveryStatus.DISCARDED, minute=1),
        log.delivery(DeliveryStatus.EXHAUSTED, minute=0),
    ]
    log.delivery(DeliveryStatus.DELIVERED, minute=1)
    log.delivery(minute=-1)
    log.delivery(minute=50)

    ended = log.replay(log.order())

    assert (ended.repeated, ended.added) == (3, 0)
    pending = log.pending()
    assert [each.id for each in pending] == [each.id for each in reversed(wanted)]
    assert {(each.reason, each.settled_at, each.attempts_made) for each in pending} == {
        (None, None, 1)
    }


def test_deliveries_are_chosen_by_status_and_type(log: Log) -> None:
    for status in DeliveryStatus:
        log.delivery(status)

    delivered = log.replay(log.order(statuses=(DeliveryStatus.DELIVERED,)))
    others = log.replay(
        log.order(statuses=tuple(SETTLED_DELIVERIES), event_types=("upload.stored", "document.*"))
    )
    every = log.replay(log.order(statuses=tuple(SETTLED_DELIVERIES), event_types=("upload.*",)))

    assert [each.repeated for each in (delivered, others, every)] == [1, 0, 2]


def test_the_rate_holds_over_the_batches(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "BATCH", 4)
    for minute in range(10):
        log.delivery(minute=minute)

    assert log.replay(log.order()).repeated == 10

    times = [each.next_attempt_at for each in log.pending()]
    spaces = {later - earlier for earlier, later in pairwise(times) if later and earlier}
    assert spaces == {timedelta(seconds=1 / RATE)}


def test_the_queue_becomes_due(log: Log) -> None:
    log.session.execute(update(DeliveryQueue).values(due_at=None))
    log.delivery()

    log.replay(log.order())

    assert log.session.scalar(select(DeliveryQueue.due_at <= func.now())) is True


def test_a_second_replay_adds_nothing(log: Log) -> None:
    log.delivery()
    log.event()
    order = log.order(include_undelivered=True)
    first = log.replay(order)
    times = [each.next_attempt_at for each in log.pending()]

    second = log.replay(order)

    assert (first.repeated, first.added) == (1, 1)
    assert (second.repeated, second.added) == (0, 0)
    assert [each.next_attempt_at for each in log.pending()] == times


def test_a_batch_continues_from_its_checkpoint(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "BATCH", 2)
    for minute in range(3):
        log.delivery(minute=minute)
    order = log.order()

    first = log.batch(Checkpoint.of(None, order=order), order)
    assert (first.repeated, first.is_over) == (2, False)
    assert first.seconds_since(START) == 60
    second = log.batch(first, order)

    assert (second.repeated, second.is_over) == (3, True)


def test_an_event_without_a_delivery_gets_one(log: Log) -> None:
    missing = log.event(minute=1)
    repeated = log.delivery(minute=2)
    other = Log(log.session)
    other.event(minute=1)

    ended = log.replay(log.order(include_undelivered=True))

    assert (ended.repeated, ended.added) == (1, 1)
    first, second = log.pending()
    assert (first.event_id, first.attempts_made) == (missing.id, 0)
    assert (first.event_type, first.upload_id) == (missing.type, missing.upload_id)
    assert second.id == repeated.id
    counted = log.session.scalar(
        select(InboxMessage.deliveries).where(InboxMessage.event_id == missing.id)
    )
    assert counted == 1


def test_only_events_that_the_endpoint_would_receive_get_a_delivery(session: Session) -> None:
    log = Log(session, event_types=["upload.*"], metadata_filter={"kind": "invoice"})
    upload = an_upload(log.tenant_id, client_metadata={"kind": "invoice", "year": "2026"})
    session.add(upload)
    wanted = log.event(data=UploadCancelled(upload_id=upload.id, filename="a.pdf"))
    log.event()  # of an upload without the metadata
    log.event(
        data=EndpointDisabled(
            endpoint_id=WebhookId(uuid4()),
            url="x",
            reason="gone",
            disabled_at=START,
            deliveries_kept=0,
        )
    )

    log.replay(log.order(include_undelivered=True))

    assert [each.event_id for each in log.pending()] == [wanted.id]


def test_a_document_of_a_batch_without_such_events_gets_no_delivery(session: Session) -> None:
    log = Log(session)
    batch_id, job_id = BatchId(uuid4()), JobId(uuid4())
    session.add(
        Batch(
            id=batch_id,
            tenant_id=log.tenant_id,
            status=BatchStatus.COMPLETED,
            events=BatchEvents.BATCH,
            expires_at=END,
        )
    )
    session.add(Job(id=job_id, tenant_id=log.tenant_id, batch_id=batch_id))
    log.event(data=UploadCancelled(upload_id=UploadId(uuid4()), job_id=job_id, filename="a.pdf"))

    assert log.replay(log.order(include_undelivered=True)).added == 0


def test_a_callback_gets_only_the_events_of_its_upload(session: Session) -> None:
    log = Log(session)
    upload = an_upload(log.tenant_id)
    session.add(upload)
    session.flush()
    log.change(upload_id=upload.id)
    wanted = log.event(data=UploadCancelled(upload_id=upload.id, filename="a.pdf"))
    log.event()
    log.event(
        data=EndpointDisabled(
            endpoint_id=WebhookId(uuid4()),
            url="x",
            reason="gone",
            disabled_at=START,
            deliveries_kept=0,
        )
    )

    log.replay(log.order(include_undelivered=True))

    assert [each.event_id for each in log.pending()] == [wanted.id]


def test_an_event_for_nobody_else_or_not_applied_yet_gets_no_delivery(log: Log) -> None:
    log.event(is_applied=False)
    log.event(data=Ping(endpoint_id=WebhookId(uuid4())), position=NO_FEED)
    log.event(
        data=EndpointDisabled(
            endpoint_id=log.webhook_id, url="x", reason="gone", disabled_at=START, deliveries_kept=0
        )
    )

    assert log.replay(log.order(include_undelivered=True)).added == 0


def test_a_ping_is_not_repeated(log: Log) -> None:
    ping = log.event(data=Ping(endpoint_id=log.webhook_id), position=NO_FEED)
    log.session.add(a_delivery(ping, log.webhook_id, DeliveryStatus.EXHAUSTED))
    log.session.flush()

    for include_undelivered in (False, True):
        order = log.order(include_undelivered=include_undelivered)
        assert log.replay(order).repeated == 0


def test_an_ordered_endpoint_gets_its_events_in_order(session: Session) -> None:
    log = Log(session, ordered=True)
    log.delivery(ordered=False)

    log.replay(log.order())

    (repeated,) = log.pending()
    assert repeated.ordered


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param({"deleted_at": func.now()}, EndpointDeleted, id="deleted"),
        pytest.param({"disabled_at": func.now()}, EndpointOff, id="disabled"),
    ],
)
def test_a_replay_ends_with_its_endpoint(
    log: Log, columns: dict[str, Any], expected: type[Exception]
) -> None:
    log.delivery()
    log.change(**columns)
    order = log.order()

    with pytest.raises(expected):
        log.batch(Checkpoint.of(None, order=order), order)

    assert log.pending() == []


# The task in a worker


class Replays:
    """Replays that a real worker does."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench

    @contextmanager
    def log(self) -> Iterator[Log]:
        with Session(self.bench.engine, expire_on_commit=False) as session:
            log = Log(session)
            yield log
            session.commit()

    def requested(self, log: Log) -> Envelope:
        """Add a job as the gateway does; return its event without publishing it."""
        session, order = log.session, log.order()
        session.add(
            Job(
                id=order.job_id,
                tenant_id=log.tenant_id,
                kind=JobKind.REPLAY,
                webhook_id=log.webhook_id,
                stage=JobStage.REPLAY,
            )
        )
        session.flush()
        event_id = emit(
            session, order, tenant_id=log.tenant_id, source="/tests", now=datetime.now(UTC)
        )
        step = steps.add_step(
            session,
            StepName.REPLAY,
            job_id=order.job_id,
            tenant_id=log.tenant_id,
            priority=Priority.INTERACTIVE,
            event_id=event_id,
            total=int((order.until - order.since).total_seconds()),
        )
        step.status = StepStatus.QUEUED
        session.flush()
        return envelope.decode(session.get_one(EventRecord, event_id).body)

    def publish(self, event: Envelope) -> None:
        self.bench.bus.publish_to(queues.EXPORTS, event)

    def settled(self, event: Envelope) -> Job:
        """Return the job once it has ended."""

        def job() -> Job:
            with Session(self.bench.engine) as session:
                return session.get_one(Job, event.job_id)

        return eventually(job, until=lambda found: found.status in SETTLED_JOBS)

    @contextmanager
    def in_second_batch(self, event: Envelope, deliveries: Sequence[Delivery]) -> Iterator[None]:
        """Publish an event; in the block its worker waits in the middle of the second batch."""
        with Session(self.bench.engine) as session, session.begin():
            session.get_one(Delivery, deliveries[walking.BATCH + 2].id, with_for_update=True)
            self.publish(event)
            eventually(self._waits_for_a_row, until=bool)
            yield

    def _waits_for_a_row(self) -> bool:
        waiting = text(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock')"
        )
        with self.bench.engine.connect() as connection:
            return bool(connection.scalar(waiting))

    def due_times(self, log: Log) -> dict[DeliveryId, datetime | None]:
        """Return when each pending delivery is due."""
        with Session(self.bench.engine) as session:
            rows = session.execute(
                select(Delivery.id, Delivery.next_attempt_at).where(
                    Delivery.webhook_id == log.webhook_id,
                    Delivery.status == DeliveryStatus.PENDING,
                )
            )
            return {row.id: row.next_attempt_at for row in rows}

    def pending(self, log: Log) -> int:
        return len(self.due_times(log))


@pytest.fixture(scope="module")
def exports(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    settings = {"STEP_LEASE": "3s", "TASK_ATTEMPTS": "2"}
    with infrastructure.scoped("exports", settings=settings, template=migrated_template) as own:
        own.start_services("exports")
        yield own


@pytest.fixture
def replays(exports: Stack) -> Iterator[Replays]:
    with workbench(exports) as bench:
        yield Replays(bench)


def test_a_worker_replays_once_however_often_the_event_arrives(replays: Replays) -> None:
    with replays.log() as log:
        for minute in range(3):
            log.delivery(minute=minute)
        event = replays.requested(log)
    replays.publish(event)
    replays.publish(event)

    job = replays.settled(event)

    assert job.status is JobStatus.COMPLETED
    assert job.result == {"repeated": 3, "added": 0}
    assert replays.pending(log) == 3
    step = replays.bench.step(event, StepName.REPLAY)
    assert (step.done, step.total) == (3000, 3000)


def test_a_replay_continues_after_the_death_of_its_worker(replays: Replays) -> None:
    with replays.log() as log:
        deliveries = [log.delivery(minute=n / 10) for n in range(walking.BATCH + 5)]
        event = replays.requested(log)
    with replays.in_second_batch(event, deliveries):
        before = replays.due_times(log)
        workers = psutil.Process(replays.bench.system.processes["exports"].pid).children()
        assert workers
        for worker in workers:
            worker.kill()

    job = replays.settled(event)

    assert job.status is JobStatus.COMPLETED
    assert job.result == {"repeated": len(deliveries), "added": 0}
    after = replays.due_times(log)
    assert len(set(after.values())) == len(deliveries)
    assert len(before) == walking.BATCH
    assert before.items() <= after.items()


def test_a_replay_that_is_cancelled_keeps_only_its_whole_batches(replays: Replays) -> None:
    with replays.log() as log:
        deliveries = [log.delivery(minute=n / 10) for n in range(walking.BATCH + 5)]
        event = replays.requested(log)
        assert event.job_id is not None
    with (
        replays.in_second_batch(event, deliveries),
        Session(replays.bench.engine) as session,
        session.begin(),
    ):
        session.execute(steps.cancel(event.job_id))

    # The worker gives its lease back when it notices.
    step = eventually(
        lambda: replays.bench.step(event, StepName.REPLAY),
        until=lambda found: found.lease_owner is None,
    )
    assert step.status is StepStatus.CANCELLED
    assert replays.pending(log) == walking.BATCH


def test_a_replay_of_a_deleted_endpoint_fails_with_its_reason(replays: Replays) -> None:
    with replays.log() as log:
        log.delivery()
        event = replays.requested(log)
        log.change(deleted_at=func.now())
    replays.publish(event)

    job = replays.settled(event)

    assert job.status is JobStatus.FAILED
    assert replays.bench.step(event, StepName.REPLAY).error_code == "webhook_not_found"
    assert replays.pending(log) == 0


def test_a_cancelled_replay_changes_nothing(replays: Replays) -> None:
    with replays.log() as log:
        log.delivery()
        event = replays.requested(log)
        assert event.job_id is not None
        log.session.execute(steps.cancel(event.job_id))
    replays.publish(event)

    with replays.log() as other:
        last = replays.requested(other)
    replays.publish(last)
    assert replays.settled(last).status is JobStatus.COMPLETED

    assert replays.settled(event).status is JobStatus.CANCELLED
    assert replays.pending(log) == 0
