"""`batch.cancel_requested` → no line of the batch waits or is at work → `batch.cancelled`."""

from typing import ClassVar, Final

import structlog
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from pipeline.batch import record
from pipeline.batch.record import SOURCE, NotOver
from pipeline.context import Context, current_context, database_time
from pipeline.messaging.event_task import MessageDelivery, RetryLater, data_of
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.batches import BatchCancelRequested
from schemas.events.envelope import Envelope
from schemas.ids import BatchId, JobId
from schemas.lifecycle import BatchLineState, StepStatus
from schemas.runtime.jobs.cancel import cancel_job
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables.batches import BatchLine
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)

PIECE: Final = 5_000
"""Waiting lines that one transaction cancels: a tenth of a second."""

_CANCEL_WAITING: Final = text(
    """
    WITH piece AS (
        SELECT line FROM batch_lines
        WHERE batch_id = :batch_id AND state = 'waiting' ORDER BY line LIMIT :at_most FOR UPDATE
    ), cancelled AS (
        UPDATE batch_lines SET state = 'cancelled'
        WHERE batch_id = :batch_id AND line = ANY (ARRAY(SELECT line FROM piece))
        RETURNING line
    )
    SELECT count(*) FROM cancelled
    """
)


class LinesAtWork(RetryLater):
    """Jobs of the batch have not ended yet."""

    made_progress = True
    attempts_restart = True


class EndedMeanwhile(Exception):
    """The job ended before it was cancelled; the transaction must roll back."""


class CleanUpBatch(StepTask[None]):
    """Cancels the lines of a cancelled batch."""

    name = "tasks.clean_up_batch"
    home_queue: ClassVar[str] = queues.UPLOADS
    step: ClassVar[StepName] = StepName.CLEANUP

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> None:
        """Read nothing: the event says all."""

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: None,  # noqa: ARG002  # the event says all
        *,
        event: Envelope,
        delivery: MessageDelivery,
    ) -> None:
        batch_id = data_of(event, BatchCancelRequested).batch_id
        while _cancel_piece(context, claimed, batch_id=batch_id):
            pass
        _cancel_started(context, claimed, batch_id=batch_id)
        try:
            with context.transaction() as session:
                counts = record.complete_cancel(
                    session,
                    claimed,
                    batch_id=batch_id,
                    settings=context.settings,
                    retention=context.settings.batch_retention,
                    now=database_time(session),
                    traceparent=delivery.traceparent,
                )
        except NotOver as error:
            raise LinesAtWork("jobs of the batch have not ended") from error
        log.info("batch.cancelled", batch_id=str(batch_id), cancelled=counts.cancelled)

    def record_failed(
        self,
        session: Session,
        *,
        event: Envelope,
        error: DomainError,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> StepStatus:
        requested = data_of(event, BatchCancelRequested)
        log.error("batch.cleanup_given_up", batch_id=str(requested.batch_id), reason=str(error))
        ended_before = lease.fail(
            session,
            job_id=requested.job_id,
            name=self.step,
            error=error,
            settings=current_context().settings,
        )
        return ended_before or StepStatus.FAILED


def cancel_waiting(session: Session, batch_id: BatchId, *, at_most: int) -> int:
    """Cancel the first waiting lines of a batch; return how many."""
    cancelled: int = session.scalars(
        _CANCEL_WAITING, {"batch_id": batch_id, "at_most": at_most}
    ).one()
    return cancelled


def _cancel_piece(context: Context, claimed: ClaimedStep, *, batch_id: BatchId) -> bool:
    """Cancel a piece of the waiting lines; False if no line waits."""
    with context.transaction() as session:
        cancelled = cancel_waiting(session, batch_id, at_most=PIECE)
        _renew(session, claimed, context=context)
        record.count_cancelled(session, batch_id, cancelled=cancelled)
    return bool(cancelled)


def _cancel_started(context: Context, claimed: ClaimedStep, *, batch_id: BatchId) -> None:
    """Cancel the jobs of the batch that have not ended; what they stored is deleted."""
    with context.transaction() as session:
        job_ids = session.scalars(
            select(Job.id)
            .join(BatchLine, BatchLine.job_id == Job.id)
            .where(BatchLine.batch_id == batch_id, BatchLine.state == BatchLineState.STARTED)
        ).all()
    for job_id in job_ids:
        with context.transaction() as session:
            _renew(session, claimed, context=context)
        try:
            with context.transaction() as session:
                _cancel_job(session, job_id, settings=context.settings)
        except EndedMeanwhile:
            log.debug("batch.job_ended", job_id=str(job_id))


def _cancel_job(session: Session, job_id: JobId, *, settings: StepSettings) -> None:
    job = session.get_one(Job, job_id)
    if not cancel_job(session, job, source=SOURCE, settings=settings):
        raise EndedMeanwhile


def _renew(session: Session, claimed: ClaimedStep, *, context: Context) -> None:
    lease.renew(
        session, claimed, lease=context.settings.step_lease, done=0, total=None, checkpoint=None
    )
