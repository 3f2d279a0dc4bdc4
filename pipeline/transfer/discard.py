"""`upload.cancelled` → nothing of the upload is left."""

from typing import ClassVar

import structlog

from pipeline.context import current_context
from pipeline.messaging.event_task import EventTask, MessageDelivery, data_of
from pipeline.transfer import record, residue
from schemas import topology
from schemas.errors import DomainError
from schemas.events.envelope import Envelope
from schemas.events.uploads import UploadCancelled

log = structlog.stdlib.get_logger(__name__)


class CleanUpUpload(EventTask):
    """Removes what was staged and stored of a cancelled upload, whoever had a hand in it.

    A worker in the middle of the transfer notices the cancellation within a
    second and cleans up itself; this comes after it, and in its place where
    there is none, or it died.
    """

    name = "tasks.discard_upload"
    home_queue: ClassVar[str] = topology.UPLOADS

    def handle(self, event: Envelope, delivery: MessageDelivery) -> None:  # noqa: ARG002  # every delivery does the same
        upload_id = data_of(event, UploadCancelled).upload_id
        context = current_context()
        with context.transaction() as session:
            cancelled = record.cancelled(session, upload_id)
        if cancelled is None:
            # An event may be old, or of somebody else's making; an upload that is wanted stays.
            log.warning("transfer.discard_refused", reason="the upload is not cancelled")
            return
        residue.remove_all(
            context,
            tenant_id=cancelled.tenant_id,
            upload_id=upload_id,
            staging=cancelled.staging,
            multipart_id=cancelled.multipart_id,
        )
        log.info("transfer.discarded", staging=cancelled.staging)

    def give_up(self, event: Envelope, error: DomainError, delivery: MessageDelivery) -> None:  # noqa: ARG002  # nobody is waiting for an answer
        log.error(
            "transfer.residue_left",
            upload_id=str(data_of(event, UploadCancelled).upload_id),
            reason=str(error),
        )
