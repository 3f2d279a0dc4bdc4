"""The base of Celery tasks that an event starts, and its handling of failures.

The delivery of a message ends in one of four ways: done (acknowledged); later (the same bytes
wait in a retry tier, then return to this queue only); given up (the failure is
recorded, the client is notified, the message is acknowledged); dead-lettered (an
internal error that an operator must see).

Celery's own `retry` is not used: it would publish to the topic exchange, and
every other subscriber would receive the event again.
"""

import logging
from abc import abstractmethod
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar, Final, NoReturn, TypeVar

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError
from tenacity import (
    Retrying,
    retry_if_not_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from schemas import topology
from schemas.errors import DomainError, ErrorCode
from schemas.events.envelope import CONTENT_TYPE, Envelope
from schemas.runtime import amqp, postgres
from schemas.runtime.lasting_problem import LastingProblem
from schemas.runtime.tracing import TRACEPARENT_HEADER

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

TIER_TIMEOUT: Final = timedelta(minutes=10)
"""How long the worker keeps an event whose retry tier is unreachable. A requeued event would
return at once, and the broker would count each return towards the delivery limit."""

FIRST_TIER: Final = topology.RETRY_TIERS[0]

operator_needed: Final = LastingProblem()
"""The store refuses every request of this process, or staging is not mounted."""


class RetryLater(Exception):
    """The event cannot be applied yet; the wait does not count as an attempt.

    Attributes:
        backoff: each wait is longer than the last, because an operator may
            have to act.
        made_progress: this delivery got further than earlier deliveries, so the event did not cause
            the crashes so far.
        attempts_restart: this delivery did its part of long work without an error, so the attempts
            that failed before it no longer count.
    """

    backoff: bool = False
    made_progress: bool = False
    attempts_restart: bool = False


class CrashesExcused(RetryLater):
    """The crashed deliveries made progress, so the crash count restarts at zero.

    The event is published as a new message: the broker counts the deliveries of the old message and
    enforces the delivery limit.
    """

    made_progress = True

    def __init__(self, crashes: int) -> None:
        super().__init__(f"{crashes} crashes excused: the event made progress")


class WorkerKeepsDying(DomainError):
    """Worker after worker crashed while it handled the event."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED

    def __init__(self, crashes: int) -> None:
        super().__init__(f"the worker died {crashes} times while it handled this event")


class UnexpectedFailure(DomainError):
    """An internal error; its message goes to the log, not to the client."""

    code = ErrorCode.INTERNAL
    retryable = True

    def __init__(self, attempts: int) -> None:
        super().__init__(f"an internal error, {attempts} times in a row")


@dataclass(frozen=True, kw_only=True)
class MessageDelivery:
    """The history of a message, read from its headers.

    Attributes:
        attempt: attempts before this one.
        crashes: crashes in a row without progress.
        waits: long waits so far, capped at the number of tiers; selects the
            next tier. Not counted as an attempt.
    """

    attempt: int
    crashes: int
    waits: int
    traceparent: str | None

    @classmethod
    def of(cls, request: Any) -> "MessageDelivery":  # noqa: ANN401  # Celery's request context has no public type
        header = request.get(DELIVERY_HEADER) or {}
        return cls(
            attempt=header.get("attempt", 0),
            crashes=header.get("crashes", 0),
            waits=header.get("waits", 0),
            traceparent=header.get("traceparent"),
        )


def data_of(event: Envelope, kind: type[T]) -> T:
    """Return the data of an event whose kind the task routes guarantee."""
    if not isinstance(event.data, kind):
        raise TypeError(f"{event.type} was routed to a task for {kind.__name__}")
    return event.data


def tier_after(times: int) -> topology.RetryTier:
    """Return the retry tier after so many earlier attempts or waits."""
    return topology.RETRY_TIERS[min(times, len(topology.RETRY_TIERS) - 1)]


class EventTask(Task[..., None]):
    """Base of every task; a subclass applies the event, and records that it was given up."""

    abstract = True
    home_queue: ClassVar[str]

    @abstractmethod
    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:
        """Apply the event. Raise `RetryLater` for a redelivery that is not counted as an attempt."""

    @abstractmethod
    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:
        """Record the failure and emit the event that announces it."""

    def got_further(self, event: Envelope) -> bool:  # noqa: ARG002  # for subclasses
        """Return whether the last delivery, which ended in a crash, made progress.

        Called only after a crash. Only crashes in a row without progress count
        towards `CRASH_LIMIT`: a long transfer may survive many restarts.
        """
        return False

    def postponed(self, event: Envelope, *, delay: timedelta, attempts: int) -> None:
        """Record that the event returns after `delay`; called before it is published to a tier."""

    def run(self, event: ReceivedEvent) -> None:
        delivery = MessageDelivery.of(self.request)
        envelope = event.envelope
        with structlog.contextvars.bound_contextvars(
            task=self.name,
            event_id=str(envelope.id),
            upload_id=str(envelope.upload_id) if envelope.upload_id else None,
            job_id=str(envelope.job_id) if envelope.job_id else None,
            attempt=delivery.attempt,
        ):
            self._handle(event, delivery)

    def _handle(self, event: ReceivedEvent, delivery: MessageDelivery) -> None:
        try:
            self._handle_below_crash_limit(event, delivery)
        except RetryLater as reason:
            self._wait(
                event,
                replace(
                    delivery,
                    crashes=0 if reason.made_progress else delivery.crashes,
                    attempt=0 if reason.attempts_restart else delivery.attempt,
                ),
                backoff=reason.backoff,
                reason=reason,
            )
        except DomainError as error:
            if error.needs_operator:
                level = logging.ERROR if operator_needed.met() else logging.WARNING
                log.log(level, "task.needs_operator", code=error.code, detail=str(error))
                self._wait(event, delivery, backoff=True, reason=error)
            if error.retryable and not self._is_last(delivery):
                log.warning("task.will_retry", code=error.code, detail=str(error))
                self._retry(event, delivery, reason=error)
            self._give_up(event, error, delivery)
        except (Ignore, Reject):
            raise
        # A MemoryError that leaves a task ends the whole worker, and then every next worker that
        # receives the message.
        except (Exception, MemoryError) as error:
            if postgres.is_outage(error):
                # The event did not cause the outage, so the delivery does not count as an attempt.
                log.warning("task.database_unreachable", reason=type(error).__name__)
                self._wait(event, delivery, backoff=False, reason=error)
            log.exception("task.failed")
            if not self._is_last(delivery):
                self._retry(event, delivery, reason=error)
            self._give_up(event, UnexpectedFailure(delivery.attempt + 1), delivery)
            raise Reject(type(error).__name__, requeue=False) from error

    def _handle_below_crash_limit(self, event: ReceivedEvent, delivery: MessageDelivery) -> None:
        if delivery.crashes and self.got_further(event.envelope):
            raise CrashesExcused(delivery.crashes)
        if delivery.crashes >= topology.CRASH_LIMIT:
            self._give_up(event, WorkerKeepsDying(delivery.crashes), delivery)
        else:
            self.handle(event.envelope, delivery)
            operator_needed.solved()

    def _is_last(self, delivery: MessageDelivery) -> bool:
        attempts: int = self.app.conf["waybill_task_attempts"]
        return delivery.attempt + 1 >= attempts

    def _give_up(self, event: ReceivedEvent, error: DomainError, delivery: MessageDelivery) -> None:
        level = logging.INFO if error.caused_by_client else logging.ERROR
        log.log(level, "task.given_up", code=error.code, detail=str(error))
        try:
            self.give_up(event.envelope, error, delivery)
        except RetryLater as reason:
            self._wait(event, delivery, backoff=reason.backoff, reason=reason)
        except DBAPIError as failure:
            if postgres.is_outage(failure):
                self._wait(event, delivery, backoff=False, reason=failure)
            raise

    def _wait(
        self,
        event: ReceivedEvent,
        delivery: MessageDelivery,
        *,
        backoff: bool,
        reason: BaseException,
    ) -> NoReturn:
        """Redeliver the event later without counting an attempt."""
        if not backoff:
            self._later(event, delivery, tier=FIRST_TIER, reason=reason)
        # A hundred thousand events that wait for an operator must not return every few seconds.
        self._later(
            event,
            replace(delivery, waits=min(delivery.waits + 1, len(topology.RETRY_TIERS) - 1)),
            tier=tier_after(delivery.waits),
            reason=reason,
        )

    def _retry(
        self, event: ReceivedEvent, delivery: MessageDelivery, *, reason: BaseException
    ) -> NoReturn:
        """Redeliver the event later and count this attempt."""
        self._later(
            event,
            replace(delivery, attempt=delivery.attempt + 1),
            tier=tier_after(delivery.attempt),
            reason=reason,
        )

    def _later(
        self,
        event: ReceivedEvent,
        delivery: MessageDelivery,
        *,
        tier: topology.RetryTier,
        reason: BaseException,
    ) -> NoReturn:
        """Publish the event's bytes to a retry tier, then acknowledge this delivery.

        Raises:
            Ignore: the event waits in the tier; Celery acknowledges.
            Reject: the tier could not be reached; the broker redelivers, up to
                the queue's delivery limit.
        """
        headers: dict[str, object] = {
            topology.ATTEMPT_HEADER: delivery.attempt,
            topology.CRASHES_HEADER: delivery.crashes,
            topology.WAITS_HEADER: delivery.waits,
        }
        if delivery.traceparent:
            headers[TRACEPARENT_HEADER] = delivery.traceparent
        self.postponed(event.envelope, delay=tier.delay, attempts=delivery.attempt)
        try:
            for publishing in self._publish_retries():
                with publishing:
                    self._publish(event, headers=headers, tier=tier)
        except Exception as error:
            log.exception("task.retry_not_published", tier=tier.name)
            raise Reject(type(error).__name__, requeue=True) from error
        log.info("task.waits", tier=tier.name, reason=str(reason)[:200])
        raise Ignore from reason

    @staticmethod
    def _publish_retries() -> Retrying:
        return Retrying(
            retry=retry_if_not_exception_type(SoftTimeLimitExceeded),
            stop=stop_after_delay(TIER_TIMEOUT.total_seconds()),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            before_sleep=lambda state: log.warning(
                "task.tier_unreachable", attempt=state.attempt_number
            ),
            reraise=True,
        )

    def _publish(
        self, event: ReceivedEvent, *, headers: dict[str, object], tier: topology.RetryTier
    ) -> None:
        timeout: float = self.app.conf["waybill_publish_timeout"].total_seconds()
        with self.app.producer_pool.acquire(block=True, timeout=timeout) as producer:
            producer.publish(
                event.body,
                exchange=tier.name,
                routing_key=self.home_queue,
                content_type=CONTENT_TYPE,
                content_encoding="utf-8",
                delivery_mode=2,
                mandatory=True,
                message_id=str(event.envelope.id),
                type=event.envelope.type,
                app_id=amqp.APP_ID,
                headers=headers,
                confirm_timeout=timeout,
            )
