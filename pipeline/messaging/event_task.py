"""A Celery task that is started by an event, and what becomes of its failures.

Four ends, no fifth: done (acknowledged), later (the same bytes wait in a retry
tier, then return to this queue alone), given up (the failure is on record, the
client is told, acknowledged), dead-lettered (a fault of ours that an operator
must see).

Celery's own `retry` is not used: it would republish to the topic exchange and
tell every other subscriber again.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar, Final, NoReturn

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

from pipeline import db
from pipeline.messaging.consumer import DELIVERY_HEADER, ReceivedEvent
from schemas import topology
from schemas.errors import DomainError, ErrorCode
from schemas.events.envelope import CONTENT_TYPE, Envelope
from schemas.runtime.logging import TRACEPARENT_HEADER

log = structlog.stdlib.get_logger(__name__)

TIER_PATIENCE: Final = timedelta(minutes=10)
"""How long an event is held while its tier cannot be reached: requeued it would come back
at once, and the broker would count each return towards its delivery limit."""

FIRST_TIER: Final = topology.RETRY_TIERS[0]


class RetryLater(Exception):
    """The event is fine and so are we, but it is not its time; it does not count as a try.

    Attributes:
        backoff: each wait is longer than the one before, because it may
            need an operator.
        made_progress: this delivery got further than those before it, so the
            workers that died with the event did not die of it.
    """

    backoff: bool = False
    made_progress: bool = False


class CrashesExcused(RetryLater):
    """The workers that died with the event had got further; the count of crashes begins anew.

    It has to be a new message for that: the broker counts the deliveries of this
    one, up to a limit that no task is asked about.
    """

    made_progress = True

    def __init__(self, crashes: int) -> None:
        super().__init__(f"{crashes} crashes excused: the event got further meanwhile")


class WorkerKeepsDying(DomainError):
    """The event was redelivered after crash upon crash of the worker that had it."""

    code = ErrorCode.ATTEMPTS_EXHAUSTED

    def __init__(self, crashes: int) -> None:
        super().__init__(f"the worker died {crashes} times while it had this event")


class UnexpectedFailure(DomainError):
    """A fault of ours; its message is in the log, not in front of the client."""

    code = ErrorCode.INTERNAL
    retryable = True

    def __init__(self, attempts: int) -> None:
        super().__init__(f"an internal error, {attempts} times in a row")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How this event came to be delivered this time."""

    attempt: int
    crashes: int
    waits: int
    """That were longer each time, up to the longest."""
    traceparent: str | None

    @classmethod
    def of(cls, request: Any) -> "Delivery":  # noqa: ANN401  # Celery's request context has no public type
        header = request.get(DELIVERY_HEADER) or {}
        return cls(
            attempt=header.get("attempt", 0),
            crashes=header.get("crashes", 0),
            waits=header.get("waits", 0),
            traceparent=header.get("traceparent"),
        )


def tier_after(times: int) -> topology.RetryTier:
    """Return where an event waits that was tried, or waited, so many times before."""
    return topology.RETRY_TIERS[min(times, len(topology.RETRY_TIERS) - 1)]


class EventTask(Task[..., None]):
    """Base of every task; a subclass says what to do and how to record that it was given up."""

    abstract = True
    home_queue: ClassVar[str]

    @abstractmethod
    def handle(self, event: Envelope, delivery: Delivery) -> None:
        """Apply the event. Raise `RetryLater` to have it again without counting a try."""

    @abstractmethod
    def give_up(self, event: Envelope, error: DomainError, delivery: Delivery) -> None:
        """Put the failure on record, with the event that tells it."""

    def got_further(self, event: Envelope) -> bool:  # noqa: ARG002  # what a subclass decides by
        """Whether the delivery before this one, which ended in a crash, got further than those before it.

        Asked only after a crash. A worker that is killed again and again with an event
        that gets on each time has not died of the event; only crashes in a row
        without progress count towards `CRASH_LIMIT`.
        """
        return False

    def run(self, event: ReceivedEvent) -> None:
        delivery = Delivery.of(self.request)
        envelope = event.envelope
        job_id = envelope.data.job_id
        with structlog.contextvars.bound_contextvars(
            task=self.name,
            event_id=str(envelope.id),
            upload_id=str(envelope.data.upload_id),
            job_id=str(job_id) if job_id else None,
            attempt=delivery.attempt,
        ):
            self._handle(event, delivery)

    def _handle(self, event: ReceivedEvent, delivery: Delivery) -> None:
        try:
            self._handle_unless_deadly(event, delivery)
        except RetryLater as reason:
            crashes = 0 if reason.made_progress else delivery.crashes
            self._wait(
                event,
                replace(delivery, crashes=crashes),
                backoff=reason.backoff,
                reason=reason,
            )
        except DomainError as error:
            if error.needs_operator:
                log.error(  # noqa: TRY400  # the detail says it all
                    "task.needs_operator", code=error.code, detail=str(error)
                )
                self._wait(event, delivery, backoff=True, reason=error)
            if error.retryable and not self._is_last(delivery):
                log.warning("task.will_retry", code=error.code, detail=str(error))
                self._try_later(event, delivery, reason=error)
            self._give_up(event, error, delivery)
        except (Ignore, Reject):
            raise
        # A MemoryError that leaves a task ends the whole worker, and the next
        # one that gets the message, so it is caught like every other fault.
        except (Exception, MemoryError) as error:
            if db.is_unreachable(error):
                # An outage is not the event's fault: however long it lasts, no try is used up.
                log.warning("task.database_unreachable", reason=type(error).__name__)
                self._wait(event, delivery, backoff=False, reason=error)
            log.exception("task.failed")
            if not self._is_last(delivery):
                self._try_later(event, delivery, reason=error)
            self._give_up(event, UnexpectedFailure(delivery.attempt + 1), delivery)
            raise Reject(type(error).__name__, requeue=False) from error

    def _handle_unless_deadly(self, event: ReceivedEvent, delivery: Delivery) -> None:
        if delivery.crashes and self.got_further(event.envelope):
            raise CrashesExcused(delivery.crashes)
        if delivery.crashes >= topology.CRASH_LIMIT:
            self._give_up(event, WorkerKeepsDying(delivery.crashes), delivery)
        else:
            self.handle(event.envelope, delivery)

    def _is_last(self, delivery: Delivery) -> bool:
        attempts: int = self.app.conf["waybill_task_attempts"]
        return delivery.attempt + 1 >= attempts

    def _give_up(self, event: ReceivedEvent, error: DomainError, delivery: Delivery) -> None:
        log.error("task.given_up", code=error.code, detail=str(error))
        try:
            self.give_up(event.envelope, error, delivery)
        except RetryLater as reason:
            self._wait(event, delivery, backoff=reason.backoff, reason=reason)
        except DBAPIError as failure:
            if db.is_unreachable(failure):
                self._wait(event, delivery, backoff=False, reason=failure)
            raise

    def _wait(
        self,
        event: ReceivedEvent,
        delivery: Delivery,
        *,
        backoff: bool,
        reason: BaseException,
    ) -> NoReturn:
        """Have the event again without a try used up."""
        if not backoff:
            self._later(event, delivery, tier=FIRST_TIER, reason=reason)
        # A hundred thousand events that wait for an operator must not come round every
        # few seconds. Counted apart from the tries, of which none is used up.
        self._later(
            event,
            replace(delivery, waits=min(delivery.waits + 1, len(topology.RETRY_TIERS) - 1)),
            tier=tier_after(delivery.waits),
            reason=reason,
        )

    def _try_later(
        self, event: ReceivedEvent, delivery: Delivery, *, reason: BaseException
    ) -> NoReturn:
        """Have the event again after a try that counts."""
        self._later(
            event,
            replace(delivery, attempt=delivery.attempt + 1),
            tier=tier_after(delivery.attempt),
            reason=reason,
        )

    def _later(
        self,
        event: ReceivedEvent,
        delivery: Delivery,
        *,
        tier: topology.RetryTier,
        reason: BaseException,
    ) -> NoReturn:
        """Put the event's own bytes into a retry tier, then acknowledge this delivery.

        Raises:
            Ignore: it waits; Celery acknowledges.
            Reject: it could not be put there; the broker delivers it again, at
                most as often as the queue's delivery limit allows.
        """
        headers: dict[str, object] = {
            topology.ATTEMPT_HEADER: delivery.attempt,
            topology.CRASHES_HEADER: delivery.crashes,
            topology.WAITS_HEADER: delivery.waits,
        }
        if delivery.traceparent:
            headers[TRACEPARENT_HEADER] = delivery.traceparent
        try:
            for publishing in self._publishing_policy():
                with publishing:
                    self._publish(event, headers=headers, tier=tier)
        except Exception as error:
            log.exception("task.retry_not_published", tier=tier.name)
            raise Reject(type(error).__name__, requeue=True) from error
        log.info("task.waits", tier=tier.name, reason=str(reason)[:200])
        raise Ignore from reason

    @staticmethod
    def _publishing_policy() -> Retrying:
        return Retrying(
            retry=retry_if_not_exception_type(SoftTimeLimitExceeded),
            stop=stop_after_delay(TIER_PATIENCE.total_seconds()),
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
                app_id="waybill",
                headers=headers,
                confirm_timeout=timeout,
            )
