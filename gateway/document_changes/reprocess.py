"""Reading a stored document again: its job, two steps and their event are created in one transaction."""

from collections.abc import Sequence
from uuid import uuid4

import structlog
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.db import SessionStatements, transaction_time
from gateway.documents.errors import DocumentNotFound, FileWithheld
from gateway.http import idempotency
from gateway.jobs.queries import snapshot_of
from gateway.settings import EVENT_SOURCE
from schemas.api.documents import ReprocessDocument
from schemas.api.jobs import JobView
from schemas.errors import DomainError, ErrorCode
from schemas.events.documents import ReprocessRequested
from schemas.ids import DocumentId, JobId, TenantId
from schemas.lifecycle import WITHHELD_FILES, JobKind, Priority, ScanState
from schemas.policy import document_passwords
from schemas.settings import MalwareScanChoiceSettings
from schemas.steps import FIRST_OF_READING, JobStage, StepName
from schemas.tables import steps
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.documents import Document
from schemas.tables.events import emit
from schemas.tables.jobs import IS_OPEN, READS_AGAIN, Job

log = structlog.stdlib.get_logger(__name__)


class DocumentBusy(DomainError):
    """A job that reads the document is open; a second one would only repeat its work."""

    code = ErrorCode.DOCUMENT_BUSY
    retryable = True

    def __init__(self, document_id: DocumentId, *, job_id: JobId) -> None:
        super().__init__(f"document {document_id} is being read by job {job_id}")


async def reprocess(
    context: Context,
    *,
    tenant_id: TenantId,
    document_id: DocumentId,
    request: ReprocessDocument,
    keyed: idempotency.KeyedRequest | None,
    traceparent: str | None,
) -> JobView:
    """Add a job that reads a document again, or return the job of an earlier request with the key.

    Raises:
        DocumentNotFound: the tenant has no such document.
        DocumentBusy: a job that reads it is open.
        FileWithheld: it is quarantined.
        TooManyWaiting, SystemBusy: too many steps wait.
        IdempotencyKeyReused: the key is bound to another request.
    """
    job_id = JobId(uuid4())
    async with context.database.tenant_lock(tenant_id) as session:
        statements = SessionStatements(session)
        bound_to = await idempotency.first_use(
            statements, keyed, tenant_id=tenant_id, resource_id=job_id
        )
        if bound_to == job_id:
            await context.backlog.check(statements, tenant_id=tenant_id)
            document = await _locked(session, tenant_id=tenant_id, document_id=document_id)
            priority = request.priority or Priority.INTERACTIVE
            first = first_steps(document, settings=context.settings)
            await _add_job(
                session,
                document,
                job_id=job_id,
                first=first,
                tables=request.pipeline.tables if request.pipeline else None,
                priority=priority,
                traceparent=traceparent,
            )
            if request.password:
                await _keep_password(
                    session, request.password, document=document, job_id=job_id, context=context
                )
            for name in first:
                await session.execute(steps.release(tenant_id, name, settings=context.settings))
            log.info("document.reprocess_requested", document_id=str(document_id))
        return (await snapshot_of(statements, tenant_id=tenant_id, job_id=JobId(bound_to))).job


async def order_rescan(session: AsyncSession, *, document_id: DocumentId) -> JobId:
    """Add a job that scans a file for malware and then reads it, also if it is quarantined.

    For operators, after a false alarm or with new signatures. The watchdog gives the step to a worker.

    Raises:
        DocumentNotFound: there is no such document.
        DocumentBusy: a job that reads it is open.
    """
    document = await _free(session, document_id, Document.id == document_id)
    job_id = JobId(uuid4())
    await _add_job(
        session,
        document,
        job_id=job_id,
        first=(StepName.SCAN,),
        priority=Priority.INTERACTIVE,
        traceparent=None,
        is_rescan=True,
    )
    return job_id


def first_steps(document: Document, *, settings: MalwareScanChoiceSettings) -> Sequence[StepName]:
    """Return the steps with which a job that reads a document again begins.

    A file that was withheld is scanned also after scans were switched off.
    """
    is_scanned = settings.malware_scan is not None or document.scan_state in WITHHELD_FILES
    return (StepName.SCAN,) if is_scanned else FIRST_OF_READING


async def _locked(
    session: AsyncSession, *, tenant_id: TenantId, document_id: DocumentId
) -> Document:
    """Lock a tenant's document; see `_free`.

    Raises:
        DocumentNotFound: the tenant has no such document.
        DocumentBusy: a job that reads it is open.
        FileWithheld: it is quarantined.
    """
    document = await _free(
        session, document_id, and_(Document.id == document_id, Document.tenant_id == tenant_id)
    )
    if document.scan_state is ScanState.INFECTED:
        raise FileWithheld(document)
    return document


async def _free(
    session: AsyncSession, document_id: DocumentId, condition: ColumnElement[bool]
) -> Document:
    """Lock a document against other requests and against deletion; its readers are not blocked.

    Raises:
        DocumentNotFound: no document meets the condition.
        DocumentBusy: a job that reads it is open.
    """
    document = await session.scalar(
        select(Document).where(condition).with_for_update(key_share=True)
    )
    if document is None:
        raise DocumentNotFound(document_id)
    open_job = await session.scalar(
        select(Job.id).where(
            or_(Job.id == document.job_id, and_(Job.document_id == document_id, READS_AGAIN)),
            IS_OPEN,
        )
    )
    if open_job is not None:
        raise DocumentBusy(document_id, job_id=open_job)
    return document


async def _add_job(
    session: AsyncSession,
    document: Document,
    *,
    job_id: JobId,
    first: Sequence[StepName],
    priority: Priority,
    traceparent: str | None,
    tables: bool | None = None,
    is_rescan: bool = False,
) -> None:
    session.add(
        Job(
            id=job_id,
            tenant_id=document.tenant_id,
            kind=JobKind.REPROCESS,
            document_id=document.id,
            priority=priority,
            stage=JobStage(first[0]),
        )
    )
    await session.flush()
    event_id = emit(
        session,
        ReprocessRequested(
            document_id=document.id,
            upload_id=document.upload_id,
            job_id=job_id,
            filename=document.filename,
            size=document.size,
            sha256=document.sha256,
            content_type=document.content_type,
            object_key=document.object_key,
            is_rescan=is_rescan,
            tables=tables,
        ),
        tenant_id=document.tenant_id,
        source=EVENT_SOURCE,
        now=await transaction_time(session),
        traceparent=traceparent,
    )
    for name in first:
        steps.add_step(
            session,
            name,
            job_id=job_id,
            tenant_id=document.tenant_id,
            priority=priority,
            event_id=event_id,
        )
        # One after the other: the steps of a job are locked in the order of their ordinals.
        await session.flush()


async def _keep_password(
    session: AsyncSession,
    password: str,
    *,
    document: Document,
    job_id: JobId,
    context: Context,
) -> None:
    """Keep the password until the job ends."""
    secret = document_passwords.encrypt(
        password, upload_id=document.upload_id, keys=context.secret_keys
    )
    await session.execute(
        insert(DocumentPassword)
        .values(upload_id=document.upload_id, job_id=job_id, secret=secret)
        .on_conflict_do_update(
            index_elements=[DocumentPassword.upload_id],
            set_={"job_id": job_id, "secret": secret},
        )
    )
