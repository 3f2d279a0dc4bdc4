"""What the product asks of its database: calls of the API, looks of its loops, and sweeps.

The benchmark `scale` measures them, and `tests/integration/postgres/test_plans.py` checks the plan
of each of their statements. Each look prepares what it needs, so that it does the same work
whatever the number of rows.
"""

import json
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString, cast
from uuid import UUID, uuid4

from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, sessionmaker

from dev.bench.wire import Content
from dev.seed.load import TENANTS
from gateway.administration import dead_letters
from gateway.db import SessionStatements
from gateway.http import paging
from gateway.http.paging import CreatedPosition
from gateway.jobs import queries as job_queries
from notifier import positions, relay
from notifier.delivery.statements import arrays, intake, loading, ownership
from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.work import ReceivedEvent
from pipeline.batch import record as batch_record
from pipeline.batch.cleanup_task import cancel_waiting
from pipeline.batch.start import start_lines
from pipeline.bulk.walk import Checkpoint as ActionCheckpoint
from pipeline.bulk.walk import Walk
from pipeline.context import Context
from pipeline.enrich.annotations import Entity
from pipeline.export import statement
from pipeline.export.statement import Query
from pipeline.index import fill
from pipeline.ingest import passage_rows, passwords, record, writer
from pipeline.ingest.applied_event import EventContext
from pipeline.ingest.extractors.extractor import DocumentMetadata, Structure
from pipeline.ingest.frames import DocumentRead, PageReading
from pipeline.ingest.outcome import Next
from pipeline.ingest.record import EndOfReading
from pipeline.maintenance import (
    batches,
    documents,
    endpoints,
    expiry,
    exports,
    jobs,
    partitions,
    passages,
    retention,
    revisions,
    tenants,
    watchdog,
)
from pipeline.maintenance.exclusive import Budget
from pipeline.replay.walk import Checkpoint, walk
from pipeline.scan import record as scan_record
from pipeline.scan.errors import MalwareFound
from pipeline.steps import lease
from pipeline.steps.lease import ClaimedStep
from pipeline.transfer.checks import StagingCorrupt
from schemas import object_keys
from schemas.api.exports import ExportFilter
from schemas.events import envelope
from schemas.events.endpoints import ReplayRequested
from schemas.events.envelope import Envelope
from schemas.events.jobs import JobActionRequested
from schemas.events.uploads import StoredEvent, UploadFailed
from schemas.ids import (
    BatchId,
    DeliveryId,
    DocumentId,
    EventId,
    ExportId,
    JobId,
    RevisionId,
    TenantId,
    UploadId,
    WebhookId,
    uuid7,
)
from schemas.lifecycle import (
    FAILED_DELIVERIES,
    BatchLineState,
    BatchStatus,
    DeadLetterState,
    DeliveryStatus,
    DocumentStatus,
    ExportFormat,
    ExportKind,
    JobAction,
    JobKind,
    JobStatus,
    ScanState,
    StepStatus,
    UploadStatus,
)
from schemas.runtime.embedding import chosen, models
from schemas.settings import EmbeddingSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.batches import Batch, BatchLine
from schemas.tables.deliveries import Delivery, DeliveryQueue
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.events import EventRecord
from schemas.tables.export_kinds import KINDS
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook

if TYPE_CHECKING:
    import psycopg

BATCH: Final = 50
"""Rows of a batch: of the outbox, of deliveries, of a page."""

FEW: Final = 5
"""Documents that a sweep deletes, each in transactions of its own."""

FIRST_ROWS: Final = 10
"""Rows of an export: the time until they come must not grow with the history."""

MINUTE: Final = timedelta(minutes=1)

VERSION: Final = "bench"
"""`pipeline_version` of the readings."""

LINES: Final = 5
"""Lines of a batch that a look reads: the limit of the plans is one for a few rows with triggers."""

WAITING_BATCH: Final = BatchId(UUID(int=0xBA7C4))

_SENTENCE: Final = "The consignment note names the port of loading, and the carrier signs it. "
PAGES: Final = tuple(
    PageReading(
        number=number,
        text=_SENTENCE * 30,
        engine="pdfium",
        language="en",
        language_confidence=0.99,
        width_points=595,
        height_points=842,
        sentences=tuple(
            (start, start + len(_SENTENCE) - 1)
            for start in range(0, 30 * len(_SENTENCE), len(_SENTENCE))
        ),
        entities=tuple(
            Entity(
                label="DATE",
                text="3 May 2024",
                normal="2024-05-03",
                start=10 * ordinal,
                end=10 * ordinal + 10,
            )
            for ordinal in range(4)
        ),
    )
    for number in range(1, 6)
)
"""The pages of a reading."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Rows of the tenant that owns the most jobs of a seeded database.

    Attributes:
        job_id: a completed job; `upload_id` is its upload.
        batch_of_jobs: a batch whose lines are jobs.
        middle: position of a job in the middle of the tenant's history.
        document_id: an ingested document with pages.
        queued: job of a queued transfer.
        reading: the document of a queued ingest.
        callback: an upload with a callback.
        delivery_id: the newest delivery of the endpoint; `event_id` is its event.
        batch_id: the newest batch.
    """

    tenant: str
    tenant_id: TenantId
    webhook_id: WebhookId
    job_id: JobId
    upload_id: UploadId
    batch_of_jobs: BatchId
    middle: CreatedPosition
    document_id: DocumentId
    queued: JobId
    reading: StoredEvent
    callback: UploadId
    delivery_id: DeliveryId
    event_id: EventId
    batch_id: BatchId

    @classmethod
    def of(cls, connection: Connection) -> "Facts":
        tenant = connection.execute(
            select(Tenant.id, Tenant.name).where(TENANTS).order_by(Tenant.name).limit(1)
        ).one()
        newest = (
            select(Job.id, Job.upload_id, Job.batch_id, Job.created_at)
            .where(Job.tenant_id == tenant.id)
            .order_by(Job.created_at.desc(), Job.id.desc())
        )
        count = connection.scalar(select(func.count()).where(Job.tenant_id == tenant.id)) or 0
        middle = connection.execute(newest.offset(count // 2).limit(1)).one()
        completed = connection.execute(
            newest.where(Job.status == JobStatus.COMPLETED, Job.kind == JobKind.UPLOAD).limit(1)
        ).one()
        webhooks = select(Webhook.id, Webhook.upload_id).where(
            Webhook.tenant_id == tenant.id,
            Webhook.deleted_at.is_(None),
            Webhook.disabled_at.is_(None),
        )
        webhook_id = connection.scalars(webhooks.where(Webhook.upload_id.is_(None))).one()
        delivery = connection.execute(
            select(Delivery.id, Delivery.event_id)
            .where(Delivery.webhook_id == webhook_id)
            .order_by(Delivery.id.desc())
            .limit(1)
        ).one()
        return cls(
            tenant=tenant.name,
            tenant_id=tenant.id,
            webhook_id=webhook_id,
            delivery_id=delivery.id,
            event_id=delivery.event_id,
            job_id=completed.id,
            upload_id=completed.upload_id,
            batch_of_jobs=connection.execute(newest.where(Job.batch_id.is_not(None)).limit(1))
            .one()
            .batch_id,
            middle=CreatedPosition(created_at=middle.created_at, id=middle.id),
            document_id=connection.scalars(
                select(Document.id)
                .join(Page, (Page.revision_id == Document.revision_id) & (Page.number == 1))
                .where(Document.tenant_id == tenant.id, Document.status == DocumentStatus.INGESTED)
                .order_by(Document.created_at.desc())
                .limit(1)
            ).one(),
            queued=connection.scalars(
                select(Step.job_id)
                .where(
                    Step.tenant_id == tenant.id,
                    Step.name == StepName.TRANSFER,
                    Step.status == StepStatus.QUEUED,
                )
                .order_by(Step.ticket)
                .limit(1)
            ).one(),
            reading=_document_to_read(connection, tenant.id),
            callback=connection.scalars(
                select(Upload.id)
                .join(Webhook, Webhook.upload_id == Upload.id)
                .where(Upload.tenant_id == tenant.id)
                .order_by(Upload.created_at.desc())
                .limit(1)
            ).one(),
            batch_id=connection.scalars(
                select(Batch.id)
                .where(Batch.tenant_id == tenant.id)
                .order_by(Batch.created_at.desc())
                .limit(1)
            ).one(),
        )


def _document_to_read(connection: Connection, tenant_id: TenantId) -> StoredEvent:
    row = connection.execute(
        select(Document.__table__)
        .join(Step, Step.job_id == Document.job_id)
        .where(
            Document.tenant_id == tenant_id,
            Step.name == StepName.INGEST,
            Step.status == StepStatus.QUEUED,
        )
        .order_by(Step.ticket)
        .limit(1)
    ).one()
    return StoredEvent(
        upload_id=row.upload_id,
        job_id=row.job_id,
        document_id=row.id,
        filename=row.filename,
        size=row.size,
        sha256=row.sha256,
        content_type=row.content_type,
        object_key=row.object_key,
        will_be_read=True,
    )


# Calls of the API


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request to the gateway; `path` is below the prefix of the API."""

    name: str
    method: str = "GET"
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def reads(facts: Facts) -> list[Call]:
    """Return the calls that change nothing."""
    middle = paging.encode(facts.middle)
    return [
        Call(name="GET /jobs", path="/jobs"),
        Call(name="GET /jobs, middle page", path=f"/jobs?cursor={middle}"),
        *(
            # So few that the smaller database has as many.
            Call(name=f"GET /jobs?{query}", path=f"/jobs?{query}&limit=10")
            for query in (
                *(f"status={status}" for status in JobStatus),
                "kind=upload",
                "kind=export",
                "kind=replay",
                "stage=ingest",
                "stage=done",
                "priority=interactive",
                "priority=bulk",
                "metadata=customer:customer-0",
                "metadata=no:such",
                "created_after=2000-01-01T00:00:00Z",
                "created_before=2000-01-01T00:00:00Z",
                "sort=created_at",
                "kind=upload&status=failed&priority=bulk&metadata=customer:customer-0",
                "status=completed&metadata=customer:customer-0&metadata=no:such",
            )
        ),
        Call(name="GET /jobs?batch_id=", path=f"/jobs?batch_id={facts.batch_of_jobs}&limit=10"),
        Call(name="GET /jobs/{id}", path=f"/jobs/{facts.job_id}"),
        Call(name="GET /jobs/{id}, waiting", path=f"/jobs/{facts.queued}"),
        Call(name="GET /uploads/{id}", path=f"/uploads/{facts.upload_id}"),
        Call(name="GET /uploads/{id}/status", path=f"/uploads/{facts.upload_id}/status"),
        Call(name="GET /documents", path="/documents"),
        Call(name="GET /documents, middle page", path=f"/documents?cursor={middle}"),
        *(
            Call(name=f"GET /documents?{query}", path=f"/documents?{query}&limit=10")
            for query in (
                "status=ingested",
                "status=failed",
                "outcome=complete",
                "language=de",
                "content_type=application/pdf",
                f"sha256={'0' * 64}",
                "filename_prefix=a",
                "created_after=2000-01-01T00:00:00Z",
                "created_before=2000-01-01T00:00:00Z",
                "metadata=no:such",
                "status=ingested&language=de&metadata=no:such",
                "filename_prefix=a&outcome=corrupt",
            )
        ),
        Call(name="GET /documents/{id}", path=f"/documents/{facts.document_id}"),
        Call(name="GET /documents/{id}/text", path=f"/documents/{facts.document_id}/text"),
        Call(name="GET /documents/{id}/pages/1", path=f"/documents/{facts.document_id}/pages/1"),
        Call(
            name="GET /documents/{id}/entities",
            path=f"/documents/{facts.document_id}/entities?label=ORG",
        ),
        *(
            Call(
                name=f"GET /documents/{{id}}/{rest}", path=f"/documents/{facts.document_id}/{rest}"
            )
            for rest in ("tables", "tables/1", "figures")
        ),
        Call(name="GET /documents/{id}/passages", path=f"/documents/{facts.document_id}/passages"),
        Call(name="GET /exports", path="/exports"),
        Call(name="GET /batches", path="/batches"),
        *(
            Call(name=f"GET /batches/{{id}}{rest}", path=f"/batches/{facts.batch_id}{rest}")
            for rest in ("", "/items", "/items?state=completed", "/items?state=failed", "/report")
        ),
        Call(name="GET /webhooks", path="/webhooks"),
        Call(name="GET /webhooks/{id}", path=f"/webhooks/{facts.webhook_id}"),
        Call(
            name="GET /webhooks/{id}/deliveries",
            path=f"/webhooks/{facts.webhook_id}/deliveries",
        ),
        *(
            Call(
                name=f"GET /webhooks/{{id}}/deliveries?{query}",
                path=f"/webhooks/{facts.webhook_id}/deliveries?{query}&limit=10",
            )
            for query in (
                *(f"status={status}" for status in DeliveryStatus),
                f"event_type={UploadFailed.TYPE}",
                "since=2000-01-01T00:00:00Z",
                "until=2999-01-01T00:00:00Z",
                "status=discarded&event_type=no.such",
            )
        ),
        Call(
            name="GET /webhooks/{id}/deliveries?event_id=",
            path=f"/webhooks/{facts.webhook_id}/deliveries?event_id={facts.event_id}",
        ),
        Call(name="GET /deliveries/{id}", path=f"/deliveries/{facts.delivery_id}"),
        Call(name="GET /events/{id}", path=f"/events/{facts.event_id}"),
        Call(name="GET /events/{id}/deliveries", path=f"/events/{facts.event_id}/deliveries"),
        Call(name="GET /events", path="/events"),
        Call(name="GET /events?types=", path=f"/events?types={UploadFailed.TYPE}&limit=10"),
        Call(name="GET /events?after=latest", path="/events?after=latest"),
    ]


CONTENT: Final = Content.of(b"note")


def upload() -> Generator[Call, Mapping[str, Any], None]:
    """Yield the calls of an upload, which ends cancelled; send each call's answer back."""
    file = {"filename": "note.bin", "size": len(CONTENT.data)}
    created = yield _post("/uploads", file)
    upload_id = created["upload_id"]
    yield Call(
        name="PUT /uploads/{id}/chunks/0",
        method="PUT",
        path=f"/uploads/{upload_id}/chunks/0",
        body=CONTENT.data,
        headers={"Content-Digest": CONTENT.digest, "Content-Type": "application/octet-stream"},
    )
    yield _post("/upload", {"upload_id": upload_id})
    yield Call(name="DELETE /uploads/{id}", method="DELETE", path=f"/uploads/{upload_id}")


def _post(path: str, document: Mapping[str, Any]) -> Call:
    return Call(
        name=f"POST {path}",
        method="POST",
        path=path,
        body=json.dumps(document).encode(),
        headers={"Content-Type": "application/json"},
    )


# Looks of the notifier and of operators


def _nothing(_: Connection, __: Facts) -> None:
    """Prepare nothing."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A look of a loop or of an operator, in a transaction that is rolled back."""

    name: str
    prepare: Callable[[Connection, Facts], None] = _nothing
    look: Callable[[AsyncConnection, Facts], Awaitable[object]]


def _fill_outbox(connection: Connection, facts: Facts) -> None:
    newest = (
        select(EventRecord.id)
        .where(EventRecord.tenant_id == facts.tenant_id)
        .order_by(EventRecord.position.desc())
        .limit(BATCH)
    )
    connection.execute(insert(OutboxMessage).from_select(["event_id"], newest))


async def _relay(connection: AsyncConnection, _: Facts) -> None:
    rows = await relay.take(connection, limit=BATCH)
    if len(rows) != BATCH:
        raise RuntimeError(f"{len(rows)} rows to publish")
    await relay.record(connection, relay.Batch.of(rows, [None] * BATCH))


async def _relay_nothing(connection: AsyncConnection, _: Facts) -> None:
    await relay.take(connection, limit=BATCH)


def _add_events(connection: Connection, facts: Facts) -> None:
    connection.execute(
        insert(EventRecord),
        [
            {
                "id": EventId(uuid7(datetime.now(UTC))),
                "tenant_id": facts.tenant_id,
                "type": UploadFailed.TYPE,
                "subject": str(facts.upload_id),
                "body": b"",
            }
            for _ in range(BATCH)
        ],
    )


def _add_due_deliveries(connection: Connection, facts: Facts) -> None:
    receiver = WebhookId(uuid4())
    connection.execute(
        insert(Webhook).values(
            id=receiver,
            tenant_id=facts.tenant_id,
            url="https://due.invalid/hook",
        )
    )
    newest = connection.execute(
        select(EventRecord.id, EventRecord.type)
        .where(EventRecord.tenant_id == facts.tenant_id)
        .order_by(EventRecord.position.desc())
        .limit(BATCH)
    ).all()
    connection.execute(
        insert(Delivery),
        [
            {
                "id": connection.scalar(select(func.waybill_delivery_id(event.id, receiver))),
                "tenant_id": facts.tenant_id,
                "webhook_id": receiver,
                "event_id": event.id,
                "event_type": event.type,
                "next_attempt_at": datetime.now(UTC) - MINUTE,
            }
            for event in newest
        ],
    )
    connection.execute(
        update(DeliveryQueue)
        .where(DeliveryQueue.webhook_id == receiver)
        .values(due_at=datetime.now(UTC) - MINUTE)
    )


async def _assign_positions(connection: AsyncConnection, _: Facts) -> None:
    if not await positions.assign(connection):
        raise RuntimeError("no event got a position")


async def _assign_nothing(connection: AsyncConnection, _: Facts) -> None:
    await positions.assign(connection)


class _InTransaction(DedicatedConnection):
    """Runs the statements of the delivery in a transaction of SQLAlchemy, which is rolled back."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._transaction = connection

    async def rows(
        self, statement: LiteralString, values: Mapping[str, Any]
    ) -> Sequence[tuple[Any, ...]]:
        raw = await self._transaction.get_raw_connection()
        arrays.register(cast("psycopg.AsyncConnection[Any]", raw.driver_connection))
        result = await self._transaction.exec_driver_sql(statement, dict(values))
        return [tuple(row) for row in result] if result.returns_rows else ()


async def _claim_due(connection: AsyncConnection, _: Facts) -> None:
    own, owner = _InTransaction(connection), uuid4()
    await ownership.register(own, owner=owner, name="bench")
    taken = await ownership.take(own, owner=owner, limit=BATCH)
    known: dict[WebhookId, tuple[DeliveryId, ...]] = {queue.webhook_id: () for queue in taken}
    loaded = await loading.load(own, known, owner=owner, limit=BATCH)
    if not loaded.due:
        raise RuntimeError("no delivery is due")


async def _claim_nothing(connection: AsyncConnection, _: Facts) -> None:
    own, owner = _InTransaction(connection), uuid4()
    await ownership.register(own, owner=owner, name="bench")
    await ownership.take(own, owner=owner, limit=BATCH)


async def _fan_out(connection: AsyncConnection, facts: Facts) -> None:
    event = Envelope(
        id=EventId(uuid7(datetime.now(UTC))),
        source="/bench",
        subject=str(facts.callback),
        time=datetime.now(UTC),
        tenantid=facts.tenant_id,
        data=UploadFailed(upload_id=facts.callback, filename="a.bin", code="x", detail="x"),
    )
    received = ReceivedEvent(envelope=event, body=envelope.encode(event), traceparent=None)
    own, owner = _InTransaction(connection), uuid4()
    await ownership.register(own, owner=owner, name="bench")
    await intake.record_events(own, [received], owner=owner)


async def _list_dead_letters(connection: AsyncConnection, _: Facts) -> None:
    async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
        for queue in (None, "notify"):
            await dead_letters.listed(session, state=DeadLetterState.DROPPED, queue=queue, limit=10)


async def _read_changed_jobs(connection: AsyncConnection, facts: Facts) -> None:
    async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
        wanted = {facts.job_id, facts.queued}
        found = await job_queries.snapshots_of(SessionStatements(session), wanted)
        if found.keys() != wanted:
            raise RuntimeError("a job was not read")


async def _compare_jobs(connection: AsyncConnection, facts: Facts) -> None:
    async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
        await job_queries.revisions_of(SessionStatements(session), {facts.job_id, facts.queued})


LOOKS: Final = (
    Look(name="relay: publish 50 events", prepare=_fill_outbox, look=_relay),
    Look(name="relay: nothing to publish", look=_relay_nothing),
    Look(name="positions: of 50 events", prepare=_add_events, look=_assign_positions),
    Look(name="positions: nothing to assign", look=_assign_nothing),
    Look(name="deliver: record an event, fan out", look=_fan_out),
    Look(name="deliver: claim due deliveries", prepare=_add_due_deliveries, look=_claim_due),
    Look(name="deliver: nothing is due", look=_claim_nothing),
    Look(name="operator: list dead letters", look=_list_dead_letters),
    Look(name="gateway: read two jobs that changed", look=_read_changed_jobs),
    Look(name="gateway: compare two jobs that clients wait for", look=_compare_jobs),
)


# Steps, readings and sweeps of the pipeline


@dataclass(frozen=True, kw_only=True)
class PipelineLook:
    """A change of a step, or a sweep, in a transaction that is rolled back."""

    name: str
    prepare: Callable[[Connection, Facts], None] = _nothing
    look: Callable[[Context, Facts], object]


def in_transaction(context: Context, connection: Connection) -> Context:
    """Return the context with transactions that all belong to the connection's transaction."""
    sessions = sessionmaker(
        connection, expire_on_commit=False, join_transaction_mode="rollback_only"
    )
    return replace(context, transaction=sessions.begin)


def _claim(context: Context, job_id: JobId, *, name: StepName = StepName.TRANSFER) -> ClaimedStep:
    with context.transaction() as session:
        claimed = lease.claim(
            session, job_id=job_id, name=name, owner="bench", settings=context.settings
        )
    if not isinstance(claimed, ClaimedStep):
        raise TypeError(f"the step has ended: {claimed}")
    return claimed


def _claim_and_renew(context: Context, facts: Facts) -> None:
    claimed = _claim(context, facts.queued)
    with context.transaction() as session:
        lease.renew(session, claimed, lease=MINUTE, done=1, total=2, checkpoint={"part": 1})


def _claim_and_complete(context: Context, facts: Facts) -> None:
    claimed = _claim(context, facts.queued)
    with context.transaction() as session:
        lease.complete(session, claimed, done=2, total=2, settings=context.settings)


def _postpone(context: Context, facts: Facts) -> None:
    with context.transaction() as session:
        lease.postpone(
            session,
            job_id=facts.queued,
            name=StepName.TRANSFER,
            delay=MINUTE,
            attempts=1,
            settings=context.settings,
        )


def _fail(context: Context, facts: Facts) -> None:
    with context.transaction() as session:
        lease.fail(
            session,
            job_id=facts.queued,
            name=StepName.TRANSFER,
            error=StagingCorrupt("a measured failure"),
            settings=context.settings,
        )


def _begin_reading(context: Context, facts: Facts) -> tuple[ClaimedStep, RevisionId]:
    claimed = _claim(context, facts.reading.job_id, name=StepName.INGEST)
    with context.transaction() as session:
        revision_id = record.begin_revision(
            session, facts.reading, tenant_id=facts.tenant_id, pipeline_version=VERSION
        )
        duplicate = record.find_duplicate(
            session, facts.reading, tenant_id=facts.tenant_id, pipeline_version=VERSION
        )
        passwords.password_of(session, facts.reading.upload_id, context.settings.key_ring)
    if duplicate is not None:
        raise RuntimeError("the document has a duplicate")
    return claimed, revision_id


def _write(context: Context, facts: Facts) -> tuple[ClaimedStep, RevisionId]:
    claimed, revision_id = _begin_reading(context, facts)
    with context.transaction() as session:
        record.lock_document(session, facts.reading)
        claimed = writer.write_pages(
            session,
            claimed,
            document=facts.reading,
            revision_id=revision_id,
            pages=PAGES,
            total=len(PAGES),
            budget=passage_rows.budget_of(context.settings),
            settings=context.settings,
        )
    return claimed, revision_id


def _publish(context: Context, facts: Facts) -> None:
    claimed, revision_id = _write(context, facts)
    _end_reading(context, facts, claimed, revision_id, pages=len(PAGES))


def _end_reading(
    context: Context, facts: Facts, claimed: ClaimedStep, revision_id: RevisionId, *, pages: int
) -> None:
    with context.transaction() as session:
        record.lock_document(session, facts.reading, is_changed=True)
        following = record.end_reading(
            session,
            claimed,
            facts.reading,
            revision_id,
            end=EndOfReading(
                page_count=pages, read=DocumentRead(language="en", language_confidence=0.99)
            ),
            is_ocr_available=lambda: False,
            settings=context.settings,
            event_context=EventContext(
                event_id=EventId(uuid7(datetime.now(UTC))),
                tenant_id=facts.tenant_id,
                now=datetime.now(UTC),
                traceparent=None,
            ),
        )
    if following is not Next.PUBLISH:
        raise RuntimeError(f"the revision was not published: {following}")


def _make_duplicate(connection: Connection, facts: Facts) -> None:
    """Give the oldest document with pages the bytes of the document that is read."""
    oldest = (
        select(Document.id, Document.revision_id)
        .join(Page, (Page.revision_id == Document.revision_id) & (Page.number == 1))
        .where(Document.tenant_id == facts.tenant_id, Document.status == DocumentStatus.INGESTED)
        .order_by(Document.created_at)
        .limit(1)
    )
    found = connection.execute(oldest).one()
    connection.execute(
        update(Document).where(Document.id == found.id).values(sha256=facts.reading.sha256)
    )
    connection.execute(
        update(Revision)
        .where(Revision.id == found.revision_id)
        .values(
            pipeline_version=VERSION,
            page_count=select(func.count())
            .where(Page.revision_id == found.revision_id)
            .scalar_subquery(),
        )
    )


def _copy(context: Context, facts: Facts) -> None:
    claimed = _claim(context, facts.reading.job_id, name=StepName.INGEST)
    with context.transaction() as session:
        revision_id = record.begin_revision(
            session, facts.reading, tenant_id=facts.tenant_id, pipeline_version=VERSION
        )
        duplicate = record.find_duplicate(
            session, facts.reading, tenant_id=facts.tenant_id, pipeline_version=VERSION
        )
    if duplicate is None:
        raise RuntimeError("no duplicate was found")
    with context.transaction() as session:
        claimed = writer.copy_pages(
            session,
            claimed,
            document=facts.reading,
            revision_id=revision_id,
            duplicate=duplicate,
            total=duplicate.page_count,
            settings=context.settings,
        )
    _end_reading(context, facts, claimed, revision_id, pages=duplicate.page_count)


def _add_first_step(connection: Connection, facts: Facts, *, name: StepName) -> None:
    with Session(connection, join_transaction_mode="rollback_only") as session:
        ingest = session.get_one(Step, (facts.reading.job_id, StepName.INGEST))
        steps.add_step(
            session,
            name,
            job_id=facts.reading.job_id,
            tenant_id=facts.tenant_id,
            priority=ingest.priority,
            event_id=EventId(uuid7(datetime.now(UTC))),
        )
        session.commit()


def _event_of(facts: Facts) -> Envelope:
    now = datetime.now(UTC)
    return Envelope(
        id=EventId(uuid7(now)),
        source="/bench",
        subject=str(facts.reading.upload_id),
        time=now,
        tenantid=facts.tenant_id,
        data=facts.reading,
    )


def _pass_scan(context: Context, facts: Facts) -> None:
    claimed = _claim(context, facts.reading.job_id, name=StepName.SCAN)
    with context.transaction() as session:
        scan_record.etag_of(session, facts.reading)
        scan_record.waited_longer_than(session, claimed, timedelta(minutes=15))
    with context.transaction() as session:
        scan_record.record_passed(
            session,
            claimed,
            facts.reading,
            state=ScanState.CLEAN,
            will_be_read=False,
            event=_event_of(facts),
            settings=context.settings,
            traceparent=None,
        )


def _find_malware(context: Context, facts: Facts) -> None:
    with context.transaction() as session:
        scan_record.record_failed(
            session,
            facts.reading,
            error=MalwareFound("A.Signature"),
            event=_event_of(facts),
            settings=context.settings,
            traceparent=None,
        )


def _describe(context: Context, facts: Facts) -> None:
    claimed = _claim(context, facts.reading.job_id, name=StepName.METADATA)
    with context.transaction() as session:
        revision_id = record.begin_revision(
            session, facts.reading, tenant_id=facts.tenant_id, pipeline_version=VERSION
        )
    with context.transaction() as session:
        record.record_structure(
            session,
            claimed,
            facts.reading,
            revision_id,
            structure=Structure(metadata=DocumentMetadata(title="A title")),
            page_count=len(PAGES),
            language="en",
            language_confidence=0.99,
            has_thumbnail=True,
            settings=context.settings,
        )


def _make_steps_overdue(connection: Connection, _: Facts) -> None:
    some = (
        select(Step.job_id)
        .where(Step.status == StepStatus.QUEUED, Step.name == StepName.TRANSFER)
        .order_by(Step.job_id)
        .limit(BATCH)
    )
    connection.execute(
        update(Step)
        .where(Step.job_id.in_(some), Step.name == StepName.TRANSFER)
        .values(overdue_at=text("now() - interval '1 minute'"))
    )


def _watch(context: Context, _: Facts) -> int:
    return watchdog.sweep(context, Budget.of(MINUTE)).released


def _make_uploads_overdue(connection: Connection, facts: Facts) -> None:
    connection.execute(
        insert(Upload),
        [
            {
                "id": UploadId(uuid4()),
                "tenant_id": facts.tenant_id,
                "status": UploadStatus.OPEN,
                "filename": "late.bin",
                "size": 1,
                "chunk_size": 1,
                "chunk_count": 1,
                "expires_at": datetime.now(UTC) - MINUTE,
            }
            for _ in range(expiry.BATCH)
        ],
    )


def _expire(context: Context, _: Facts) -> None:
    with context.transaction() as session:
        expiry.expire(session, limit=expiry.BATCH)


def _delete_old_rows(context: Context, _: Facts) -> object:
    return retention.sweep(context, Budget.of(MINUTE))


def _make_jobs_old(connection: Connection, _: Facts) -> None:
    some = select(Job.id).where(Job.finished_at.is_not(None)).order_by(Job.finished_at).limit(BATCH)
    connection.execute(
        update(Job)
        .where(Job.id.in_(some))
        .values(finished_at=Job.finished_at - timedelta(days=365))
    )


def _delete_old_jobs(context: Context, _: Facts) -> object:
    return jobs.sweep(context, Budget.of(MINUTE))


def _make_documents_old(connection: Connection, facts: Facts) -> None:
    """Give the tenant a policy, and make few of its documents older than that."""
    some = (
        select(Document.id)
        .where(Document.tenant_id == facts.tenant_id, Document.status == DocumentStatus.INGESTED)
        .order_by(Document.created_at)
        .limit(FEW)
    )
    connection.execute(
        update(Document)
        .where(Document.id.in_(some))
        .values(created_at=Document.created_at - timedelta(days=365))
    )
    connection.execute(
        update(Tenant)
        .where(Tenant.id == facts.tenant_id)
        .values(document_retention=timedelta(days=90))
    )


def _delete_old_documents(context: Context, _: Facts) -> object:
    return documents.sweep(context, Budget.of(MINUTE))


def _drop_partitions(context: Context, _: Facts) -> object:
    return partitions.sweep(context, Budget.of(MINUTE))


def _find_ended_endpoints(context: Context, _: Facts) -> object:
    return endpoints.sweep(context, Budget.of(MINUTE))


def _first_rows(context: Context, facts: Facts, *, kind: ExportKind) -> None:
    query = Query(
        export_id=ExportId(uuid4()),
        tenant_id=facts.tenant_id,
        kind=kind,
        format=ExportFormat.CSV,
        filter=ExportFilter(),
        columns=[column.name for column in KINDS[kind].columns],
    )
    with context.transaction() as session:
        connection = session.connection()
        for setting in statement.PLANNING:
            connection.exec_driver_sql(setting)
        # COPY has the plan of its query.
        rows = connection.exec_driver_sql(
            f"{statement.select_of(query)} LIMIT {FIRST_ROWS}", statement.values_of(query)
        ).all()
    if len(rows) != FIRST_ROWS:
        raise RuntimeError(f"{len(rows)} rows of {kind}")


def _delete_expired_exports(context: Context, _: Facts) -> object:
    return exports.sweep(context, Budget.of(MINUTE))


def _delete_expired_batches(context: Context, _: Facts) -> object:
    return batches.sweep(context, Budget.of(MINUTE))


def _find_tenants_to_delete(context: Context, _: Facts) -> object:
    return tenants.sweep(context, max_time=MINUTE)


def _find_unseen_revisions(context: Context, _: Facts) -> object:
    return revisions.sweep(context, Budget.of(MINUTE))


def _find_revisions_without_passages(context: Context, _: Facts) -> object:
    return passages.sweep(context, Budget.of(MINUTE))


def _add_filled_model(connection: Connection, _: Facts) -> None:
    """Add the active model, whose vectors are all made."""
    model = chosen.model_of(EmbeddingSettings())
    if model is None:
        raise RuntimeError("there is no default model")
    with Session(connection, join_transaction_mode="rollback_only") as session, session.begin():
        models.first(session, model)[0].filled_at = func.now()


def _find_revisions_without_vectors(context: Context, _: Facts) -> object:
    return fill.sweep(context, is_spent=lambda: False)


def _order(facts: Facts, *, include_undelivered: bool) -> ReplayRequested:
    now = datetime.now(UTC)
    return ReplayRequested(
        endpoint_id=facts.webhook_id,
        job_id=facts.queued,
        since=now - timedelta(days=3650),
        until=now,
        statuses=tuple(FAILED_DELIVERIES),
        include_undelivered=include_undelivered,
    )


def _replay(context: Context, facts: Facts, *, include_undelivered: bool = False) -> None:
    order = _order(facts, include_undelivered=include_undelivered)
    with context.transaction() as session:
        ended = walk(
            session,
            Checkpoint.of(None, order=order),
            order,
            tenant_id=facts.tenant_id,
            rate=context.settings.webhook_replay_rate,
        )
    if not ended.repeated:
        raise RuntimeError("no delivery was repeated")


def _replay_events(context: Context, facts: Facts) -> None:
    _replay(context, facts, include_undelivered=True)


def _act(context: Context, facts: Facts, *, action: JobAction) -> None:
    """Read a batch of jobs for an action, and change the first of them."""
    order = JobActionRequested(
        job_id=JobId(uuid4()),
        action=action,
        filter="{}",
        kinds=tuple(JobKind),
        created_before=datetime.now(UTC),
    )
    jobs_to_change = Walk(order, tenant_id=facts.tenant_id, settings=context.settings)
    checkpoint = ActionCheckpoint()
    with context.transaction() as session:
        found = jobs_to_change.read(session, checkpoint)
    for position, _ in found[:FEW]:
        with context.transaction() as session:
            checkpoint = jobs_to_change.act(session, checkpoint, position)
    if not checkpoint.seen:
        raise RuntimeError("no job was read")


def _add_batch(connection: Connection, facts: Facts) -> None:
    """Add a batch with more waiting lines than a look reads."""
    now = datetime.now(UTC)
    connection.execute(
        insert(Batch),
        {
            "id": WAITING_BATCH,
            "tenant_id": facts.tenant_id,
            "event_id": EventId(uuid7(now)),
            "status": BatchStatus.PROCESSING,
            "lines": 2 * LINES,
            "expires_at": now + timedelta(days=1),
        },
    )
    prefix = object_keys.incoming(facts.tenant_id)
    connection.execute(
        insert(BatchLine),
        [
            {
                "batch_id": WAITING_BATCH,
                "line": line,
                "state": BatchLineState.WAITING,
                "source": {"object_key": f"{prefix}{line}.pdf"},
            }
            for line in range(1, 2 * LINES + 1)
        ],
    )


def _start_lines(context: Context, _: Facts) -> Sequence[JobId]:
    with context.transaction() as session:
        batch = batch_record.facts_of(session, WAITING_BATCH)
        group = start_lines(session, batch, after=0, at_most=LINES, settings=context.settings)
        batch_record.count_started(session, batch.id, started=group.started, failed=group.failed)
        return session.scalars(select(Job.id).where(Job.batch_id == batch.id).limit(1)).all()


def _end_line(context: Context, facts: Facts) -> None:
    (job_id,) = _start_lines(context, facts)
    claimed = _claim(context, job_id)
    with context.transaction() as session:
        lease.complete(session, claimed, done=2, total=2, settings=context.settings)


def _cancel_lines(context: Context, _: Facts) -> None:
    with context.transaction() as session:
        batch_record.count_cancelled(
            session, WAITING_BATCH, cancelled=cancel_waiting(session, WAITING_BATCH, at_most=LINES)
        )


PIPELINE: Final[Sequence[PipelineLook]] = (
    PipelineLook(name="step: claim and heartbeat", look=_claim_and_renew),
    PipelineLook(name="step: claim, complete, release the next", look=_claim_and_complete),
    PipelineLook(name="step: retry later", look=_postpone),
    PipelineLook(name="step: fail, release the next", look=_fail),
    PipelineLook(name="document: claim, begin a revision", look=_begin_reading),
    PipelineLook(name="document: the same, write 5 pages", look=_write),
    PipelineLook(name="document: the same, publish the revision", look=_publish),
    PipelineLook(name="document: copy a duplicate, publish", prepare=_make_duplicate, look=_copy),
    PipelineLook(
        name="document: describe",
        prepare=partial(_add_first_step, name=StepName.METADATA),
        look=_describe,
    ),
    PipelineLook(
        name="document: pass the scan",
        prepare=partial(_add_first_step, name=StepName.SCAN),
        look=_pass_scan,
    ),
    PipelineLook(
        name="document: find malware",
        prepare=partial(_add_first_step, name=StepName.SCAN),
        look=_find_malware,
    ),
    PipelineLook(name="batch: start 5 lines", prepare=_add_batch, look=_start_lines),
    PipelineLook(name="batch: the same, end a job", prepare=_add_batch, look=_end_line),
    PipelineLook(name="batch: cancel 5 waiting lines", prepare=_add_batch, look=_cancel_lines),
    PipelineLook(name="action: cancel 5 jobs", look=partial(_act, action=JobAction.CANCEL)),
    PipelineLook(name="action: retry 5 jobs", look=partial(_act, action=JobAction.RETRY)),
    PipelineLook(name="replay: a batch of failed deliveries", look=_replay),
    PipelineLook(name="replay: a batch of events", look=_replay_events),
    *(
        PipelineLook(name=f"export: the first {kind}", look=partial(_first_rows, kind=kind))
        for kind in ExportKind
    ),
    PipelineLook(name="sweep: no expired export", look=_delete_expired_exports),
    PipelineLook(name="sweep: no expired batch", look=_delete_expired_batches),
    PipelineLook(name="watchdog: 50 overdue steps", prepare=_make_steps_overdue, look=_watch),
    PipelineLook(name="watchdog: nothing is overdue", look=_watch),
    PipelineLook(name="sweep: 20 expired uploads", prepare=_make_uploads_overdue, look=_expire),
    PipelineLook(name="sweep: no expired upload", look=_expire),
    PipelineLook(name="sweep: no tenant to delete", look=_find_tenants_to_delete),
    PipelineLook(name="sweep: no revision that nobody sees", look=_find_unseen_revisions),
    PipelineLook(name="sweep: no revision without passages", look=_find_revisions_without_passages),
    PipelineLook(
        name="sweep: no revision without vectors",
        prepare=_add_filled_model,
        look=_find_revisions_without_vectors,
    ),
    PipelineLook(name="sweep: no ended callback, no old endpoint", look=_find_ended_endpoints),
    PipelineLook(name="sweep: no row past its retention", look=_delete_old_rows),
    PipelineLook(name="sweep: 50 old jobs", prepare=_make_jobs_old, look=_delete_old_jobs),
    PipelineLook(name="sweep: no old job", look=_delete_old_jobs),
    PipelineLook(
        name="sweep: 5 old documents", prepare=_make_documents_old, look=_delete_old_documents
    ),
    PipelineLook(name="sweep: no document of a policy", look=_delete_old_documents),
    PipelineLook(name="sweep: drop old partitions of events", look=_drop_partitions),
)
