"""`document.render_requested` → the image of a page, or of a figure, in the bucket."""

import hashlib
from contextlib import suppress
from threading import Event
from typing import ClassVar

import structlog
from sqlalchemy import Select, exists, select, update
from sqlalchemy.orm import Session

from pipeline.context import Context, current_context
from pipeline.ingest import originals, passwords, readers, record, rendering
from pipeline.ingest.record import DocumentGone, RevisionReplaced
from pipeline.messaging.event_task import MessageDelivery
from pipeline.steps import lease
from pipeline.steps.heartbeat import Heartbeat
from pipeline.steps.lease import ClaimedStep
from pipeline.steps.task import StepTask
from pipeline.storage.errors import ObjectExists
from pipeline.storage.port import Body
from schemas import object_keys, queues
from schemas.errors import DomainError
from schemas.events.documents import RenderRequested
from schemas.events.envelope import Envelope
from schemas.ids import RevisionId
from schemas.lifecycle import WITHHELD_FILES, StepStatus
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables.documents import Document, FigureImage, PageImage, Revision
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)


class RenderPage(StepTask[None]):
    """Renders a page or a figure in the sandbox, as the step `metadata` renders the first page."""

    name = "tasks.render_page"
    home_queue: ClassVar[str] = queues.METADATA_EXTRACTION
    step: ClassVar[StepName] = StepName.RENDER

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
        requested = _request_of(event)
        try:
            self._render(context, claimed, requested)
        except (DocumentGone, RevisionReplaced):
            # What deletes the images may have ended before this or an earlier try stored one.
            _delete_image(context, requested)
            raise

    def _render(self, context: Context, claimed: ClaimedStep, requested: RenderRequested) -> None:
        originals.check_size(requested, size_max=context.settings.pdf_file_max)
        with context.transaction() as session:
            _lock_image(session, requested)
            password = passwords.password_of(
                session, requested.upload_id, context.settings.key_ring
            )
        heartbeat = Heartbeat(context, claimed)
        with originals.downloaded(context, requested, heartbeat=heartbeat.renew) as file:
            png = rendering.render(
                originals.opening_of(requested, file, password=password, settings=context.settings),
                page=requested.page,
                box=requested.box,
                reader=readers.of_this_process(context.settings),
                tenant_id=claimed.tenant_id,
                while_waiting=heartbeat.beat,
            )
        with suppress(ObjectExists):  # from an earlier try
            context.storage.put(
                ObjectKey(requested.image_key),
                body=Body(png, md5=hashlib.md5(png, usedforsecurity=False).digest()),
                content_type="image/png",
                abandoned=Event(),
            )
        with context.transaction() as session:
            _lock_image(session, requested)
            lease.complete(
                session, heartbeat.claimed, done=0, total=None, settings=context.settings
            )
            session.execute(
                update(Job)
                .where(Job.id == requested.job_id)
                .values(
                    result={
                        "document_id": str(requested.document_id),
                        "page": requested.page,
                        "bytes": len(png),
                    }
                    | ({} if requested.figure is None else {"figure": requested.figure})
                )
            )
        log.info(
            "ingest.page_rendered",
            document_id=str(requested.document_id),
            page=requested.page,
            figure=requested.figure,
            size=len(png),
        )

    def record_failed(
        self,
        session: Session,
        *,
        event: Envelope,
        error: DomainError,
        delivery: MessageDelivery,  # noqa: ARG002  # emits no event
    ) -> StepStatus:
        ended_before = lease.fail(
            session,
            job_id=_request_of(event).job_id,
            name=self.step,
            error=error,
            settings=current_context().settings,
        )
        return ended_before or StepStatus.FAILED

    def after_end(self, context: Context, *, event: Envelope, status: StepStatus) -> None:
        if status is StepStatus.CANCELLED:
            # A worker that was killed may have stored the image after the cleanup of the upload.
            _delete_image(context, _request_of(event))


def _request_of(event: Envelope) -> RenderRequested:
    if not isinstance(event.data, RenderRequested):
        raise TypeError(f"{event.type} was routed to a task that renders pages")
    return event.data


def _delete_image(context: Context, requested: RenderRequested) -> None:
    """Delete the image of a job, unless another job makes it: both store it under one key."""
    with context.transaction() as session:
        others = session.scalars(_others(requested)).all()
    key = ObjectKey(requested.image_key)
    if key not in {_key_of(requested, revision_id) for revision_id in others}:
        context.storage.delete(key)


def _others(requested: RenderRequested) -> Select[RevisionId]:
    """Return the query of the revisions for which other jobs make the same image."""
    image: type[PageImage | FigureImage]
    image, number = (
        (PageImage, PageImage.page == requested.page)
        if requested.figure is None
        else (FigureImage, FigureImage.number == requested.figure)
    )
    return (
        select(image.revision_id)
        .join(Revision, Revision.id == image.revision_id)
        .where(
            Revision.document_id == requested.document_id,
            number,
            image.job_id != requested.job_id,
        )
    )


def _key_of(requested: RenderRequested, revision_id: RevisionId) -> ObjectKey:
    if requested.figure is None:
        return object_keys.page_image(requested.upload_id, revision_id, number=requested.page)
    return object_keys.figure_image(requested.upload_id, revision_id, number=requested.figure)


def _lock_image(session: Session, requested: RenderRequested) -> None:
    """Lock the document, if the image of the job is still wanted.

    Raises:
        StepCancelled, DocumentGone: see `record.lock_document`.
        RevisionReplaced: the revision of the image was deleted, or malware was found in the file.
    """
    record.lock_document(session, requested)
    image = PageImage if requested.figure is None else FigureImage
    is_wanted = exists().where(
        image.job_id == requested.job_id,
        Document.id == requested.document_id,
        Document.scan_state.not_in(WITHHELD_FILES),
    )
    if not session.scalar(select(is_wanted)):
        raise RevisionReplaced
