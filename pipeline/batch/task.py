"""`batch.received` → jobs for the lines of a batch, in short turns → `batch.completed`.

A turn starts lines while fewer than `BATCH_OPEN_MAX` of the batch are at work, for `TURN_MAX` at
most: the worker also reads documents. Then the event waits in a retry tier, as long as the batch has
not ended. The trigger on `jobs` publishes the event besides when half of the started lines have
ended, or all; such an extra message has its turn and is acknowledged, because the message in the tier
returns.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, ClassVar, Final, Self

import msgspec
import structlog
from sqlalchemy.orm import Session

from pipeline.batch import record
from pipeline.batch.record import BatchFacts, Counts, NotOver, TurnOver
from pipeline.batch.start import GROUP, start_lines
from pipeline.context import Context, current_context, database_time
from pipeline.messaging.event_task import (
    FIRST_TIER,
    MessageDelivery,
    RetryLater,
    data_of,
    tier_after,
)
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.batches import BatchReceived
from schemas.events.envelope import Envelope
from schemas.lifecycle import BatchStatus, StepStatus
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)

TURN_MAX: Final = timedelta(seconds=2)
"""Longest turn; then the batch goes to the end of the queue, behind what waits there."""


class NextTurn(RetryLater):
    """The batch has not ended; the next turn comes after the first tier."""

    made_progress = True
    # A batch may take days: errors that passed must not add up to its failure.
    attempts_restart = True


class Paused(NextTurn):
    """The batch is paused, for hours perhaps."""

    backoff = True


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the next turn begins.

    Attributes:
        after: the last line that had its turn.
        next_at: when the message in the retry tier returns; None if there is none.
    """

    after: int = 0
    next_at: datetime | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self:
        return cls() if stored is None else msgspec.convert(stored, cls)

    def encoded(self) -> dict[str, Any]:
        encoded: dict[str, Any] = msgspec.to_builtins(self)
        return encoded


class RunBatch(StepTask[BatchFacts]):
    """Turns the lines of a batch into jobs."""

    name = "tasks.run_batch"
    home_queue: ClassVar[str] = queues.BATCH_PROCESSING
    step: ClassVar[StepName] = StepName.BATCH

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> BatchFacts:  # noqa: ARG002  # the event says which
        batch_id = data_of(event, BatchReceived).batch_id
        record.restart_if_failed(session, batch_id)
        return record.facts_of(session, batch_id)

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: BatchFacts,
        *,
        event: Envelope,  # noqa: ARG002  # read by `load`
        delivery: MessageDelivery,
    ) -> None:
        turn = Turn(context, claimed, loaded)
        turn.start_lines()
        if turn.is_over and _complete(context, claimed, loaded, delivery=delivery):
            return
        if turn.is_paused and turn.give_place():
            return
        wait = turn.record_end(delivery)
        if wait is not None:
            raise wait
        # Another message of this event returns from the tier, and has the next turn.
        with context.transaction() as session:
            lease.release_lease(session, claimed)
            lease.postpone(
                session,
                job_id=claimed.job_id,
                name=claimed.name,
                delay=FIRST_TIER.delay,
                attempts=delivery.attempt,
                settings=context.settings,
            )

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        received, settings = data_of(event, BatchReceived), current_context().settings
        return record.fail(
            session,
            batch_id=received.batch_id,
            job_id=received.job_id,
            tenant_id=event.tenantid,
            error=error,
            settings=settings,
            retention=settings.batch_retention,
            now=database_time(session),
            traceparent=delivery.traceparent,
        )


class Turn:
    """One turn of a batch."""

    def __init__(self, context: Context, claimed: ClaimedStep, batch: BatchFacts) -> None:
        self._context = context
        self._claimed = claimed
        self._batch = batch
        self._counts: Counts = batch.counts
        self._checkpoint = Checkpoint.of(claimed.checkpoint)
        self._is_cut_short = False

    @property
    def is_over(self) -> bool:
        """Whether every line has ended."""
        return self._counts.waiting == 0 and self._counts.started == 0

    @property
    def is_paused(self) -> bool:
        return self._batch.status is BatchStatus.PAUSED

    def start_lines(self) -> None:
        """Start lines in groups, as long as the batch has room and the turn has time.

        Raises:
            StepCancelled, LeaseLost: see `lease.renew`.
        """
        if self._batch.status is not BatchStatus.PROCESSING:
            return
        ends_at = monotonic() + TURN_MAX.total_seconds()
        while room := room_of(self._counts, open_max=self._context.settings.batch_open_max):
            if monotonic() >= ends_at:
                self._is_cut_short = True
                return
            try:
                self._start_group(at_most=min(room, GROUP))
            except TurnOver:
                return

    def _start_group(self, *, at_most: int) -> None:
        context, claimed = self._context, self._claimed
        with context.transaction() as session:
            group = start_lines(
                session,
                self._batch,
                after=self._checkpoint.after,
                at_most=at_most,
                settings=context.settings,
            )
            if not group.lines:
                raise WaitingLinesLost(self._batch)
            checkpoint = msgspec.structs.replace(self._checkpoint, after=group.last)
            # In the transaction of the group: a worker that lost its lease starts nothing.
            self._renew(session, checkpoint)
            counts = record.count_started(
                session, self._batch.id, started=group.started, failed=group.failed
            )
        self._checkpoint, self._counts = checkpoint, counts
        log.info(
            "batch.lines_started",
            batch_id=str(self._batch.id),
            job_id=str(claimed.job_id),
            started=group.started,
            failed=group.failed,
        )

    def give_place(self) -> bool:
        """Let another batch of the tenant have turns; False if none waits for them.

        Raises:
            StepCancelled, LeaseLost: see `lease.renew`.
        """
        context = self._context
        with context.transaction() as session:
            return lease.give_place(
                session,
                self._claimed,
                # The next message is the one that the release publishes.
                checkpoint=msgspec.structs.replace(self._checkpoint, next_at=None).encoded(),
                settings=context.settings,
            )

    def record_end(self, delivery: MessageDelivery) -> NextTurn | None:
        """Record when the next turn comes; return how its message waits.

        Returns:
            None if another message waits in the tier already.

        Raises:
            StepCancelled, LeaseLost: see `lease.renew`.
        """
        with self._context.transaction() as session:
            now = database_time(session)
            next_at = self._checkpoint.next_at
            is_extra = next_at is not None and now < next_at
            if not is_extra:
                tier = tier_after(delivery.waits) if self.is_paused else FIRST_TIER
                next_at = now + tier.delay
            self._renew(session, msgspec.structs.replace(self._checkpoint, next_at=next_at))
            if self._is_cut_short:
                record.wake(session, self._batch.event_id)
        if is_extra:
            return None
        return (Paused if self.is_paused else NextTurn)("the batch has not ended")

    def _renew(self, session: Session, checkpoint: Checkpoint) -> None:
        lease.renew(
            session,
            self._claimed,
            lease=self._context.settings.step_lease,
            done=self._counts.ended,
            total=self._counts.lines,
            checkpoint=checkpoint.encoded(),
        )


class WaitingLinesLost(RuntimeError):
    """The counters of a batch have waiting lines after the checkpoint that its lines do not have."""

    def __init__(self, batch: BatchFacts) -> None:
        super().__init__(f"batch {batch.id} counts {batch.counts}")


def room_of(counts: Counts, *, open_max: int) -> int:
    """Return how many further lines of a batch may become jobs now."""
    return max(0, min(counts.waiting, open_max - counts.started))


def _complete(
    context: Context, claimed: ClaimedStep, batch: BatchFacts, *, delivery: MessageDelivery
) -> bool:
    """Complete the batch; False if a line has not ended after all."""
    try:
        with context.transaction() as session:
            counts = record.complete(
                session,
                claimed,
                batch_id=batch.id,
                settings=context.settings,
                retention=context.settings.batch_retention,
                now=database_time(session),
                traceparent=delivery.traceparent,
            )
    except NotOver:
        return False
    log.info("batch.completed", batch_id=str(batch.id), lines=counts.lines, failed=counts.failed)
    return True
