"""What the sweeps delete because it is old: their queries, which a dry run counts.

Each query returns the key of a row, and as `at` the time from which the retention counts. A row that
another row still needs is not among them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, Uuid, and_, func, inspect, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from schemas.ids import (
    BatchId,
    DocumentId,
    ExportId,
    JobId,
    RevisionId,
    TenantId,
    UploadId,
    WebhookId,
)
from schemas.lifecycle import (
    ACTIVE_STEPS,
    SETTLED_JOBS,
    BatchStatus,
    DeliveryStatus,
    RevisionState,
    UploadStatus,
)
from schemas.settings import SweepSettings
from schemas.tables.batches import Batch
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.deliveries import Delivery
from schemas.tables.documents import Document, Revision
from schemas.tables.events import EventRecord
from schemas.tables.exports import Export
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.inbox import InboxMessage
from schemas.tables.jobs import IS_OPEN, READS_AGAIN, Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import NEVER_FINALIZED, Upload
from schemas.tables.webhooks import Webhook

LAST_EVENT_GRACE: Final = timedelta(days=7)
"""A relay that is down for less time than this still brings the last event of an upload to its callback."""

LOG_GRACE: Final = timedelta(days=8)
"""Deliveries are deleted with the partition of their week, so up to a week after their retention."""

WITHOUT_OBJECT: Final = (UploadStatus.FAILED, UploadStatus.CANCELLED, UploadStatus.EXPIRED)
"""Uploads that ended and have no document. The row of a stored upload lives as long as its document."""

# The offset makes PostgreSQL probe the index of pending deliveries for each endpoint that it finds.
# Without it, a join could read every pending delivery.
_HAS_PENDING: Final = (
    select(Delivery.id)
    .where(Delivery.webhook_id == Webhook.id, Delivery.status == DeliveryStatus.PENDING)
    .correlate(Webhook)
    .offset(0)
    .exists()
)


def rows(
    time: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None],
    *,
    kept_for: timedelta,
) -> Select[*tuple[Any, ...]]:
    """Return the query of the rows whose `time` is longer ago; a row without it is kept."""
    key = inspect(time.class_).primary_key
    return select(*key, time.label("at")).where(time < func.now() - kept_for)


def jobs(*, kept_for: timedelta) -> Select[JobId, UploadId | None, datetime | None]:
    """Return the query of ended jobs, with their uploads.

    A job is kept as long as its export, and until its cleanup has ended.
    """
    return select(Job.id, Job.upload_id, Job.finished_at.label("at")).where(
        Job.finished_at < func.now() - kept_for,
        Job.status.in_(SETTLED_JOBS),
        ~select(Export.id).where(Export.job_id == Job.id).correlate(Job).exists(),
        ~select(Step.job_id)
        .where(Step.job_id == Job.id, Step.status.in_(ACTIVE_STEPS))
        .correlate(Job)
        .exists(),
    )


def uploads(*, kept_for: timedelta) -> Select[UploadId, datetime]:
    """Return the query of ended uploads that were never finalized; the others end with their job."""
    return select(Upload.id, Upload.expires_at.label("at")).where(
        Upload.expires_at < func.now() - kept_for,
        NEVER_FINALIZED,
        # The job of a document that was deleted is kept for its own time.
        ~select(Job.id).where(Job.upload_id == Upload.id).correlate(Upload).exists(),
    )


def documents() -> Select[DocumentId, UploadId, TenantId, datetime]:
    """Return the query of the documents that are older than their tenant keeps documents.

    A document that a job reads is kept until the job ends.
    """
    # Two conditions, each with an index of jobs: one with OR would compare every open job.
    is_read = select(Job.id).where(Job.id == Document.job_id, IS_OPEN)
    is_read_again = select(Job.id).where(Job.document_id == Document.id, READS_AGAIN, IS_OPEN)
    return (
        select(Document.id, Document.upload_id, Document.tenant_id, Document.created_at.label("at"))
        .join(Tenant, Tenant.id == Document.tenant_id)
        .where(
            Document.created_at < func.now() - Tenant.document_retention,
            ~is_read.correlate(Document).exists(),
            ~is_read_again.correlate(Document).exists(),
        )
    )


def exports() -> Select[ExportId, TenantId, datetime]:
    """Return the query of exports that expired or were deleted; their files are deleted first."""
    return (
        select(Export.id, Export.tenant_id, Export.expires_at.label("at"))
        .join(Job, Job.id == Export.job_id)
        .where(Export.expires_at < func.now(), Job.status.in_(SETTLED_JOBS))
    )


def batches() -> Select[BatchId, datetime]:
    """Return the query of ended batches that expired, and of those whose request broke off."""
    return select(Batch.id, Batch.expires_at.label("at")).where(
        Batch.expires_at < func.now(),
        # A cancelled batch has not ended before its lines.
        or_(Batch.finished_at.is_not(None), Batch.status == BatchStatus.RECEIVING),
    )


def revisions(*, grace: timedelta) -> Select[RevisionId, UploadId, datetime]:
    """Return the query of revisions that no client has seen for `grace`, with their uploads.

    A client may still read the pages of a revision that was replaced a moment ago.
    """
    before = func.now() - grace
    return (
        select(Revision.id, Document.upload_id, Revision.created_at.label("at"))
        .join(Document, Document.id == Revision.document_id)
        # The job may be deleted; it had ended then.
        .outerjoin(Job, Job.id == Revision.job_id)
        .where(
            Revision.state != RevisionState.PUBLISHED,
            Revision.id.is_distinct_from(Document.revision_id),
            or_(Job.id.is_(None), Job.status.in_(SETTLED_JOBS)),
            or_(
                and_(
                    Revision.state == RevisionState.WRITING,
                    or_(Job.id.is_(None), Job.finished_at < before),
                ),
                and_(Revision.state == RevisionState.SUPERSEDED, Document.ingested_at < before),
            ),
        )
    )


def callbacks() -> Select[WebhookId, datetime | None]:
    """Return the query of callbacks whose upload was cancelled, failed or expired."""
    return select(Webhook.id, Webhook.upload_ended_at.label("at")).where(
        Webhook.upload_ended_at < func.now() - LAST_EVENT_GRACE,
        Webhook.deleted_at.is_(None),
        ~_HAS_PENDING,
    )


def endpoints(*, deliveries_kept_for: timedelta) -> Select[WebhookId, datetime | None]:
    """Return the query of deleted endpoints whose deliveries are no longer kept."""
    return select(Webhook.id, Webhook.deleted_at.label("at")).where(
        Webhook.deleted_at < func.now() - deliveries_kept_for - LOG_GRACE, ~_HAS_PENDING
    )


def events(*, kept_for: timedelta) -> Select[*tuple[Any, ...]]:
    """Return the query of the events of the weeks that are dropped, unless something needs a week."""
    return select(EventRecord.id, EventRecord.created_at.label("at")).where(
        EventRecord.id < _first_id_kept(kept_for)
    )


def deliveries(*, kept_for: timedelta) -> Select[*tuple[Any, ...]]:
    """Return the query of the deliveries of the weeks that are dropped, with their attempts."""
    return select(Delivery.id, Delivery.created_at.label("at")).where(
        Delivery.id < _first_id_kept(kept_for)
    )


def _first_id_kept(kept_for: timedelta) -> Any:  # noqa: ANN401  # an SQL expression
    """Return the first id of the week that has the first row to keep: weeks are dropped as a whole."""
    return func.waybill_first_uuid7(
        func.date_trunc("week", func.now() - kept_for, "UTC"), type_=Uuid()
    )


@dataclass(frozen=True, kw_only=True)
class Area:
    """Rows of one kind that the next sweep deletes.

    Attributes:
        name: such as `jobs`.
        kept_for: the time after which a row is deleted; empty if it differs from row to row.
        due: the query of the rows.
    """

    name: str
    kept_for: str
    due: Select[*tuple[Any, ...]]


def areas(settings: SweepSettings) -> Sequence[Area]:
    """Return every area, with the retentions of the settings."""

    def area(name: str, due: Select[*tuple[Any, ...]], *settings_of: str, suffix: str = "") -> Area:
        kept_for = " ".join(
            f"{each.upper()}={as_setting(getattr(settings, each))}" for each in settings_of
        )
        return Area(name=name, kept_for=kept_for + suffix, due=due)

    return (
        area("jobs", jobs(kept_for=settings.job_retention), "job_retention"),
        area("uploads", uploads(kept_for=settings.job_retention), "job_retention"),
        area("documents", documents(), suffix="waybill tenants retention"),
        area("revisions", revisions(grace=settings.sweep_grace), "sweep_grace"),
        area("exports", exports(), suffix="EXPORT_TTL"),
        area("batches", batches(), suffix="BATCH_RETENTION"),
        area("events", events(kept_for=settings.event_retention), "event_retention"),
        area("deliveries", deliveries(kept_for=settings.delivery_retention), "delivery_retention"),
        area("callbacks", callbacks(), suffix=as_setting(LAST_EVENT_GRACE)),
        area(
            "endpoints",
            endpoints(deliveries_kept_for=settings.delivery_retention),
            "delivery_retention",
            suffix=f" + {as_setting(LOG_GRACE)}",
        ),
        area(
            "outbox",
            rows(OutboxMessage.published_at, kept_for=settings.outbox_retention),
            "outbox_retention",
        ),
        area(
            "inbox",
            rows(InboxMessage.processed_at, kept_for=settings.inbox_retention),
            "inbox_retention",
        ),
        area(
            "idempotency",
            rows(IdempotentRequest.created_at, kept_for=settings.idempotency_retention),
            "idempotency_retention",
        ),
        area(
            "dead_letters",
            rows(DeadLetter.settled_at, kept_for=settings.dead_letter_retention),
            "dead_letter_retention",
        ),
    )


def as_setting(duration: timedelta) -> str:
    """Return a duration as settings are written, such as `7d`."""
    seconds = duration.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:g}s"
