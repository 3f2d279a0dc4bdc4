"""`export.requested` → the rows of a query in one file in the bucket → `export.completed`.

A worker that dies leaves no file on its disk: the spool file has no name. The next attempt deletes
what the store has of earlier attempts, and starts from the first row.
"""

from typing import ClassVar
from uuid import uuid4

import structlog
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context, database_time
from pipeline.export import record, send
from pipeline.export.record import StoredFile
from pipeline.export.spool import Spooled, spool
from pipeline.export.statement import Query
from pipeline.messaging.event_task import MessageDelivery, RetryLater, data_of
from pipeline.steps import lease
from pipeline.steps.call_pool import CallPool
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from pipeline.storage.scratch import Scratch, ScratchFile
from schemas import object_keys, queues
from schemas.errors import DomainError, StoreFailed
from schemas.events.envelope import Envelope
from schemas.events.exports import ExportRequested
from schemas.lifecycle import StepStatus
from schemas.policy import media_types
from schemas.steps import StepName

log = structlog.stdlib.get_logger(__name__)


class CleanupIncomplete(RetryLater):
    """The store failed to delete something; the event is delivered again."""

    backoff = True


class ExportRows(StepTask[Query]):
    """Makes the file of an export."""

    name = "tasks.export_rows"
    home_queue: ClassVar[str] = queues.EXPORTS
    step: ClassVar[StepName] = StepName.EXPORT

    def load(self, session: Session, claimed: ClaimedStep, *, event: Envelope) -> Query:  # noqa: ARG002  # the event says which
        return record.query_of(session, data_of(event, ExportRequested).export_id)

    def work(
        self,
        context: Context,
        claimed: ClaimedStep,
        loaded: Query,
        *,
        event: Envelope,  # noqa: ARG002  # read by `load`
        delivery: MessageDelivery,
    ) -> None:
        if not claimed.is_first:
            _start_again(context, claimed, loaded)
        heartbeat = Heartbeat(context, claimed)
        scratch = Scratch(context.settings.work_dir)
        try:
            file = scratch.new()
            spooled = _spool(context, loaded, to=file, heartbeat=heartbeat)
            stored = _store(context, loaded, file, spooled=spooled, heartbeat=heartbeat)
        finally:
            scratch.close()
        with context.transaction() as session:
            record.complete(
                session,
                claimed,
                export_id=loaded.export_id,
                file=stored,
                settings=context.settings,
                traceparent=delivery.traceparent,
            )
        log.info(
            "export.completed",
            export_id=str(loaded.export_id),
            kind=loaded.kind,
            rows=spooled.rows,
            size_bytes=spooled.size_bytes,
        )

    def record_failed(
        self, session: Session, *, event: Envelope, error: DomainError, delivery: MessageDelivery
    ) -> StepStatus:
        return record.fail(
            session,
            data_of(event, ExportRequested),
            tenant_id=event.tenantid,
            error=error,
            settings=current_context().settings,
            now=database_time(session),
            traceparent=delivery.traceparent,
        )

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:  # noqa: ARG002  # the row has the file that stays
        """Delete what attempts left in the store, except the file of a completed export.

        Raises:
            CleanupIncomplete: the store fails; the event is delivered again.
        """
        export_id = data_of(event, ExportRequested).export_id
        with context.transaction() as session:
            key = record.key_of(session, export_id)
        try:
            send.clean_up(
                object_keys.of_export(event.tenantid, export_id), storage=context.storage, keep=key
            )
        except StoreFailed as error:
            raise CleanupIncomplete(str(error)) from error


def _start_again(context: Context, claimed: ClaimedStep, query: Query) -> None:
    """Delete what earlier attempts left, and count the rows from zero again."""
    with context.transaction() as session:
        lease.restart(
            session, claimed, lease=context.settings.step_lease, total=None, checkpoint=None
        )
    with CallPool[None](heartbeat=Heartbeat(context, claimed).renew) as pool:
        prefix = object_keys.of_export(query.tenant_id, query.export_id)
        pool.run(lambda: send.clean_up(prefix, storage=context.storage))


def _spool(context: Context, query: Query, *, to: ScratchFile, heartbeat: Heartbeat) -> Spooled:
    def on_rows(rows: int) -> None:
        heartbeat.done = max(0, rows)
        heartbeat.beat()

    return spool(context.engine, query, to=to, settings=context.settings, on_rows=on_rows)


def _store(
    context: Context,
    query: Query,
    file: ScratchFile,
    *,
    spooled: Spooled,
    heartbeat: Heartbeat,
) -> StoredFile:
    # Renewed before the first request: a worker that was suspended stores nothing.
    heartbeat.renew()
    key = object_keys.export_file(query.tenant_id, query.export_id, attempt=uuid4())
    send.send(
        file.slice(),
        to=key,
        content_type=media_types.EXPORTED[query.format],
        storage=context.storage,
        settings=context.settings,
        heartbeat=heartbeat.renew,
    )
    return StoredFile(key=key, spooled=spooled)
