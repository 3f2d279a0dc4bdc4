"""`job.action_requested` → the jobs of a filter are cancelled or retried."""

from typing import ClassVar, Final

import msgspec
import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.bulk.walk import BATCH, Checkpoint, Walk
from pipeline.context import Context, current_context
from pipeline.messaging.event_task import MessageDelivery, data_of
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.jobs import JobActionRequested
from schemas.lifecycle import StepStatus
from schemas.steps import StepName
from schemas.tables.base import table_of
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)

_JOBS: Final = table_of(Job)


class ActOnJobs(StepTask[None]):
    """Cancels or retries jobs; what it has done stays if it is cancelled."""

    name = "tasks.act_on_jobs"
    home_queue: ClassVar[str] = queues.EXPORTS
    step: ClassVar[StepName] = StepName.BULK

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> None:
        """Read nothing: the event says all."""

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: None,  # noqa: ARG002  # the event says all
        *,
        event: Envelope,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> None:
        order = data_of(event, JobActionRequested)
        walk = Walk(order, tenant_id=claimed.tenant_id, settings=context.settings)
        checkpoint = Checkpoint.of(claimed.checkpoint)
        while not walk.is_over(checkpoint):
            checkpoint = _walk_batch(context, claimed, walk, checkpoint)
        with context.transaction() as session:
            lease.complete(
                session,
                claimed,
                done=checkpoint.seen,
                total=checkpoint.seen,
                settings=context.settings,
            )
            session.execute(
                update(_JOBS)
                .where(_JOBS.c.id == claimed.job_id)
                .values(
                    result={
                        "action": order.action,
                        "done": checkpoint.done,
                        "skipped": checkpoint.skipped,
                        "failed": checkpoint.failed,
                    }
                )
            )
        log.info(
            "bulk.completed", action=order.action, done=checkpoint.done, skipped=checkpoint.skipped
        )

    def record_failed(
        self,
        session: Session,
        *,
        event: Envelope,
        error: DomainError,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> StepStatus:
        order = data_of(event, JobActionRequested)
        ended = lease.fail(
            session,
            job_id=order.job_id,
            name=self.step,
            error=error,
            settings=current_context().settings,
        )
        return ended or StepStatus.FAILED


def _walk_batch(
    context: Context, claimed: ClaimedStep, walk: Walk, checkpoint: Checkpoint
) -> Checkpoint:
    """Change the next jobs, one transaction each; return where the next batch begins.

    One transaction for several jobs could be a deadlock: the second would wait for a step whose
    worker waits for the counters that the first has locked.
    """
    with context.transaction() as session:
        found = walk.read(session, checkpoint)
    # Recorded once for each batch: clients that follow the job see every change of it.
    seen = checkpoint.seen
    for position, is_match in found:
        if not is_match:
            checkpoint = msgspec.structs.replace(checkpoint, after=position)
            continue
        with context.transaction() as session:
            checkpoint = walk.act(session, checkpoint, position)
            _record(session, claimed, checkpoint, done=seen, context=context)
    if len(found) < BATCH:
        checkpoint = msgspec.structs.replace(checkpoint, status=checkpoint.status + 1, after=None)
    with context.transaction() as session:
        _record(session, claimed, checkpoint, done=checkpoint.seen, context=context)
    return checkpoint


def _record(
    session: Session, claimed: ClaimedStep, checkpoint: Checkpoint, *, done: int, context: Context
) -> None:
    lease.renew(
        session,
        claimed,
        lease=context.settings.step_lease,
        done=done,
        total=None,
        checkpoint=checkpoint.encoded(),
    )
