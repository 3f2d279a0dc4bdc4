"""`webhook.replay_requested` → deliveries of an endpoint that are due again."""

from typing import ClassVar, Final

import structlog
from sqlalchemy import update
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.messaging.event_task import MessageDelivery, data_of
from pipeline.replay.walk import Checkpoint, walk
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.endpoints import ReplayRequested
from schemas.events.envelope import Envelope
from schemas.ids import JobId
from schemas.lifecycle import StepStatus
from schemas.steps import StepName
from schemas.tables.base import table_of
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)

_JOBS: Final = table_of(Job)


class ReplayDeliveries(StepTask[None]):
    """Makes deliveries of an endpoint due again; the deliverers send them."""

    name = "tasks.replay_deliveries"
    home_queue: ClassVar[str] = queues.EXPORTS
    step: ClassVar[StepName] = StepName.REPLAY

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
        order = data_of(event, ReplayRequested)
        checkpoint = Checkpoint.of(claimed.checkpoint, order=order)
        while not checkpoint.is_over:
            # The lease is renewed in the transaction of the batch: a worker that lost it changes
            # nothing, and a batch is never repeated.
            with context.transaction() as session:
                checkpoint = walk(
                    session,
                    checkpoint,
                    order,
                    tenant_id=claimed.tenant_id,
                    rate=context.settings.webhook_replay_rate,
                )
                lease.renew(
                    session,
                    claimed,
                    lease=context.settings.step_lease,
                    done=min(checkpoint.seconds_since(order.since), claimed.total or 0),
                    total=claimed.total,
                    checkpoint=checkpoint.encoded(),
                )
        with context.transaction() as session:
            lease.complete(
                session,
                claimed,
                done=claimed.total or 0,
                total=claimed.total,
                settings=context.settings,
            )
            _record_result(session, claimed.job_id, checkpoint)
        log.info(
            "replay.completed",
            webhook_id=str(order.endpoint_id),
            repeated=checkpoint.repeated,
            added=checkpoint.added,
        )

    def record_failed(
        self,
        session: Session,
        *,
        event: Envelope,
        error: DomainError,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> StepStatus:
        order = data_of(event, ReplayRequested)
        ended = lease.fail(
            session,
            job_id=order.job_id,
            name=self.step,
            error=error,
            settings=current_context().settings,
        )
        return ended or StepStatus.FAILED


def _record_result(session: Session, job_id: JobId, checkpoint: Checkpoint) -> None:
    result = {"repeated": checkpoint.repeated, "added": checkpoint.added}
    session.execute(update(_JOBS).where(_JOBS.c.id == job_id).values(result=result))
