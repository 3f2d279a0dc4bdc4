"""`document.index_requested` → the vectors of a document's passages.

The document is found by its words from its publication on. Neither its job nor its event waits for
the vectors, and a failure is shown as the state of its search alone.
"""

from typing import ClassVar

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.index import revision as revisions
from pipeline.messaging.event_task import MessageDelivery, data_of
from pipeline.steps import lease
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from schemas import queues
from schemas.errors import DomainError
from schemas.events.documents import IndexRequested
from schemas.events.envelope import Envelope
from schemas.ids import RevisionId
from schemas.lifecycle import SearchState, StepStatus
from schemas.steps import StepName
from schemas.tables.documents import Revision

log = structlog.stdlib.get_logger(__name__)


class IndexPassages(StepTask[RevisionId | None]):
    """Makes the vectors of the passages that the job has published."""

    name = "tasks.index_passages"
    home_queue: ClassVar[str] = queues.SEARCH_INDEXING
    step: ClassVar[StepName] = StepName.INDEX

    def load(
        self,
        session: Session,
        claimed: ClaimedStep,
        *,
        event: Envelope,  # noqa: ARG002  # the job says which
    ) -> RevisionId | None:
        """Return the revision that the job has published; None if it is deleted."""
        return session.scalar(select(Revision.id).where(Revision.job_id == claimed.job_id))

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: RevisionId | None,
        *,
        event: Envelope,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> None:
        heartbeat = Heartbeat(context, claimed)

        def count(made: int) -> None:
            heartbeat.done += made
            heartbeat.beat()

        state = None
        if loaded is not None:
            state = revisions.index(context, loaded, after_batch=count)
        with context.transaction() as session:
            if loaded is not None:
                revisions.record_state(session, loaded, state)
            lease.complete(
                session,
                heartbeat.claimed,
                done=heartbeat.done,
                total=heartbeat.done,
                settings=context.settings,
            )
        log.info(
            "index.document_indexed",
            document_id=event.subject,
            passages=heartbeat.done,
            search=state,
        )

    def record_failed(
        self,
        session: Session,
        *,
        event: Envelope,
        error: DomainError,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> StepStatus:
        job_id = data_of(event, IndexRequested).job_id
        revision_id = session.scalar(select(Revision.id).where(Revision.job_id == job_id))
        if revision_id is not None:
            revisions.record_state(session, revision_id, SearchState.FAILED)
        ended_before = lease.fail(
            session,
            job_id=job_id,
            name=self.step,
            error=error,
            settings=current_context().settings,
            status=StepStatus.COMPLETED,
        )
        return ended_before or StepStatus.COMPLETED
