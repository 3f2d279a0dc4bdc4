"""The base of tasks that work on a step: claim, work, and the ways a step ends."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import ClassVar, Generic, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.messaging.event_task import EventTask, MessageDelivery, RetryLater
from pipeline.steps import lease
from pipeline.steps.call_pool import CallPool
from pipeline.steps.errors import LeaseLost, StepCancelled, UnknownStep
from pipeline.steps.lease import ClaimedStep
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.ids import JobId
from schemas.lifecycle import StepStatus
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)

Loaded = TypeVar("Loaded")
"""What a step needs from the database before its work."""


class StepTask(EventTask, Generic[Loaded]):
    """Works on one step of the job that the event names.

    A step never runs twice at once: a worker works only while it holds the lease. A message for a
    step that has ended is acknowledged.
    """

    abstract = True
    step: ClassVar[StepName]

    @abstractmethod
    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> Loaded:
        """Read what `work` needs, in the transaction of the claim; an error undoes the claim."""

    @abstractmethod
    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: Loaded,
        *,
        event: Envelope,
        delivery: MessageDelivery,
    ) -> None:
        """Do the step and record its end; `pipeline.steps.lease.complete` is part of the record.

        Raises:
            StepCancelled, LeaseLost: stop, and change nothing any more.
        """

    @abstractmethod
    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        """Record the failure with `pipeline.steps.lease.fail`, emit its event, return the final status."""

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        """Clean up after a step that has ended; repeated at every further delivery of its event.

        A worker may die between the end of the step and its cleanup. No client can retry a failed or
        cancelled step meanwhile. Runs in a thread of its own.
        """

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:
        context = current_context()
        with context.transaction() as session:
            claimed = lease.claim(
                session,
                job_id=self._job_of(event),
                name=self.step,
                owner=context.new_lease_owner(),
                settings=context.settings,
            )
            if isinstance(claimed, ClaimedStep):
                loaded = self.load(session, claimed, event=event)
        if isinstance(claimed, StepStatus):
            log.info("step.already_ended", step=self.step, status=claimed)
            self._clean_up(context, event=event, status=claimed)
            return
        try:
            self.work(context, claimed, loaded, event=event, delivery=delivery)
        except StepCancelled:
            log.info("step.cancelled", step=self.step)
            # The lease is released first, even if the cleanup fails: no worker claims a cancelled step.
            self._release_lease(context, claimed)
            self._clean_up(context, event=event, status=StepStatus.CANCELLED)
        except LeaseLost as lost:
            raise RetryLater(str(lost)) from lost
        except Exception:
            self._release_lease(context, claimed)
            raise

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:
        if isinstance(error, UnknownStep):
            return
        context = current_context()
        with context.transaction() as session:
            status = self.record_failed(session, event=event, error=error, delivery=delivery)
        # Also if another delivery ended the step: its worker may have died before its cleanup.
        self._clean_up(context, event=event, status=status)

    def got_further(self, event: Envelope) -> bool:
        with current_context().transaction() as session:
            return lease.got_further(session, job_id=self._job_of(event), name=self.step)

    def postponed(self, event: Envelope, *, delay: timedelta, attempts: int) -> None:
        context = current_context()
        try:
            with context.transaction() as session:
                lease.postpone(
                    session,
                    job_id=self._job_of(event),
                    name=self.step,
                    delay=delay,
                    attempts=attempts,
                    settings=context.settings,
                )
        except SQLAlchemyError as error:
            # Mostly the outage because of which the event waits. Without the record, the watchdog
            # may publish the event a second time, which is harmless.
            log.warning("step.retry_not_recorded", reason=type(error).__name__)
        except UnknownStep:
            log.debug("step.unknown", step=self.step)

    def _clean_up(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        """Call `after_end`; hold the step meanwhile if a client could retry it."""
        if type(self).after_end is StepTask.after_end:
            return
        if status is StepStatus.COMPLETED:
            self.after_end(context, event=event, status=status)
            return
        try:
            with held(context, job_id=self._job_of(event), name=self.step, status=status) as pool:
                if pool is None:
                    log.info("step.retried", step=self.step)
                else:
                    pool.run(partial(self.after_end, context, event=event, status=status))
        except LeaseLost as lost:
            raise RetryLater(str(lost)) from lost

    def _job_of(self, event: Envelope) -> JobId:
        if event.job_id is None:
            raise UnknownStep(None, self.step)
        return event.job_id

    @staticmethod
    def _release_lease(context: Context, claimed: ClaimedStep) -> None:
        with context.transaction() as session:
            lease.release_lease(session, claimed)


@contextmanager
def held(
    context: Context, *, job_id: JobId, name: StepName, status: StepStatus
) -> Iterator[CallPool[None] | None]:
    """Hold a step that has ended, so that no client retries it within the block.

    Yields:
        A pool that runs calls while it renews the lease; None if the step was retried before.

    Raises:
        LeaseHeld: another worker cleans up after the step.
        LeaseLost: the lease expired within the block.
        UnknownStep: there is no such job, or it has no such step.
    """
    duration = context.settings.step_lease
    with context.transaction() as session:
        step = lease.hold(
            session,
            job_id=job_id,
            name=name,
            status=status,
            owner=context.new_lease_owner(),
            lease=duration,
        )
    if step is None:
        yield None
        return

    def renew() -> None:
        with context.transaction() as session:
            lease.renew_hold(session, step, lease=duration)

    try:
        with CallPool[None](heartbeat=renew) as pool:
            yield pool
    finally:
        with context.transaction() as session:
            lease.release_lease(session, step)
