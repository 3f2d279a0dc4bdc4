"""The image of a page or figure: where it is stored, or the job that makes it.

A request for an image that nobody asked for before creates the job, its step and their event in one
transaction. The document is locked meanwhile, so that two requests at once create one job.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import uuid4

import structlog
from sqlalchemy import and_, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.db import SessionStatements, transaction_time
from gateway.documents import queries
from gateway.documents.errors import (
    DocumentNotFound,
    DocumentNotReady,
    FigureNotFound,
    ImageNotFound,
    PageNotFound,
    check_is_served,
)
from gateway.jobs.queries import snapshot_of
from gateway.settings import EVENT_SOURCE
from schemas import object_keys
from schemas.api.jobs import JobError, JobView
from schemas.errors import DomainError, ErrorCode
from schemas.events.documents import RenderRequested
from schemas.ids import DocumentId, JobId, RevisionId, TenantId
from schemas.lifecycle import (
    ACTIVE_STEPS,
    READABLE_DOCUMENTS,
    SETTLED_JOBS,
    DocumentStatus,
    JobKind,
    JobStatus,
    Priority,
)
from schemas.object_keys import ObjectKey
from schemas.policy import media_types
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.documents import Document, Figure, FigureImage, PageImage, Revision
from schemas.tables.events import emit
from schemas.tables.jobs import Job

log = structlog.stdlib.get_logger(__name__)

RENDERING_ERRORS: Final = (
    ErrorCode.DOCUMENT_CORRUPT,
    ErrorCode.DOCUMENT_ENCRYPTED,
    ErrorCode.DOCUMENT_LIMIT,
    ErrorCode.DOCUMENT_TIMEOUT,
    ErrorCode.DOCUMENT_OUT_OF_MEMORY,
    ErrorCode.DOCUMENT_CRASHED,
)
"""Why a page cannot be rendered, with a status of their own."""

LASTING_ERRORS: Final = frozenset(
    {*RENDERING_ERRORS, ErrorCode.NOT_FOUND, ErrorCode.ATTEMPTS_EXHAUSTED}
)
"""Errors of a job after which another job would fail too; the others are faults of the system."""


class RenderingFailed(DomainError):
    """The page cannot be rendered; the job that tried says why."""

    def __init__(self, error: JobError) -> None:
        is_crash = error.code == ErrorCode.ATTEMPTS_EXHAUSTED  # its workers died
        self.code = ErrorCode.DOCUMENT_CRASHED if is_crash else ErrorCode(error.code)
        super().__init__(error.detail)


class TooManyImages(DomainError):
    """The document has as many images as are made of one document."""

    code = ErrorCode.DOCUMENT_LIMIT

    def __init__(self, document_id: DocumentId, *, limit: int) -> None:
        super().__init__(
            f"document {document_id} has {limit} images of pages and figures; no more are made"
        )


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image in the object store.

    Attributes:
        key: its key.
        filename: of the document.
    """

    key: ObjectKey
    filename: str


async def page_image(
    context: Context,
    *,
    tenant_id: TenantId,
    document_id: DocumentId,
    number: int,
    traceparent: str | None,
) -> StoredImage | JobView:
    """Return the image of a page, or the job that makes it, which the first request creates.

    An image whose job failed without a fault of the document gets a new job.

    Raises:
        DocumentNotFound: the tenant has no such document.
        PageNotFound, ImageNotFound: there is no such page, or pages of its format have no image.
        FileWithheld: the malware scan has not passed the file.
        DocumentNotReady: the document could not be read.
        RenderingFailed: the page cannot be rendered.
        TooManyImages: too many pages of the document have images.
        TooManyWaiting, SystemBusy: too many steps wait.
    """
    look = partial(_wanted, tenant_id=tenant_id, document_id=document_id, number=number)
    return await _image(context, look, tenant_id=tenant_id, traceparent=traceparent)


async def figure_image(
    context: Context,
    *,
    tenant_id: TenantId,
    document_id: DocumentId,
    number: int,
    traceparent: str | None,
) -> StoredImage | JobView:
    """Return the image of a figure, or the job that makes it; as `page_image`.

    Raises:
        DocumentNotFound: the tenant has no such document.
        FigureNotFound: there is no such figure.
        DocumentNotReady: the document could not be read.
        FileWithheld: the malware scan has not passed the file.
        RenderingFailed: the page of the figure cannot be rendered.
        TooManyImages: too many pages and figures of the document have images.
        TooManyWaiting, SystemBusy: too many steps wait.
    """
    look = partial(_wanted_figure, tenant_id=tenant_id, document_id=document_id, number=number)
    return await _image(context, look, tenant_id=tenant_id, traceparent=traceparent)


async def _image(
    context: Context,
    look: Callable[[AsyncSession], Awaitable["StoredImage | JobView | Wanted"]],
    *,
    tenant_id: TenantId,
    traceparent: str | None,
) -> StoredImage | JobView:
    async with context.database.transaction() as session:
        wanted = await look(session)
    if not isinstance(wanted, Wanted):
        return wanted
    document_id = wanted.document.id
    async with context.database.tenant_lock(tenant_id) as session:
        await context.backlog.check(SessionStatements(session), tenant_id=tenant_id)
        await _lock(session, tenant_id=tenant_id, document_id=document_id)
        # Another request may have created the job before this one had the lock.
        wanted = await look(session)
        if not isinstance(wanted, Wanted):
            return wanted
        limit = context.settings.page_images_max
        if not wanted.is_repeated and await _images_of(session, document_id) >= limit:
            raise TooManyImages(document_id, limit=limit)
        job_id = await _add_job(session, wanted, traceparent=traceparent)
        await session.execute(steps.release(tenant_id, StepName.RENDER, settings=context.settings))
        log.info(
            "document.render_requested",
            document_id=str(document_id),
            page=wanted.page,
            figure=wanted.figure.number if wanted.figure else None,
        )
        return (
            await snapshot_of(SessionStatements(session), tenant_id=tenant_id, job_id=job_id)
        ).job


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image that no job makes.

    Attributes:
        page: number of the page.
        figure: the figure on the page; None for the whole page.
        is_repeated: whether an earlier job tried to make it.
    """

    document: Document
    revision_id: RevisionId
    page: int
    figure: Figure | None = None
    is_repeated: bool

    @property
    def key(self) -> ObjectKey:
        upload_id = self.document.upload_id
        if self.figure is None:
            return object_keys.page_image(upload_id, self.revision_id, number=self.page)
        return object_keys.figure_image(upload_id, self.revision_id, number=self.figure.number)


async def _wanted(
    session: AsyncSession, *, tenant_id: TenantId, document_id: DocumentId, number: int
) -> StoredImage | JobView | Wanted:
    """Look for the image of a page and for the job that makes it; see `page_image`."""
    document = await queries.document_of(session, tenant_id=tenant_id, document_id=document_id)
    check_is_served(document)
    is_stored_only = document.status is DocumentStatus.STORED
    if is_stored_only or not media_types.may_have_images(document.content_type):
        raise ImageNotFound(document_id, number=number)
    revision = (await queries.revisions_to_show(session, [document])).get(document_id)
    if revision is not None and number == 1 and revision.has_thumbnail:
        key = object_keys.thumbnail(document.upload_id, revision.id)
        return StoredImage(key=key, filename=document.filename)
    reading = await _unfinished_reading(session, document, revision, number=number)
    if reading is not None:
        return reading
    if revision is None or revision.page_count is None:
        raise DocumentNotReady(document)
    if number > revision.page_count:
        raise PageNotFound(document_id, number=number)
    image = (
        await session.execute(
            select(PageImage.job_id, Job.status)
            .outerjoin(Job, Job.id == PageImage.job_id)
            .where(PageImage.revision_id == revision.id, PageImage.page == number)
        )
    ).one_or_none()
    if image is None and document.status not in {*READABLE_DOCUMENTS, DocumentStatus.READING}:
        # The sweep deletes the revision of a failed reading, perhaps at this moment.
        raise DocumentNotReady(document)
    wanted = Wanted(
        document=document, revision_id=revision.id, page=number, is_repeated=image is not None
    )
    return await _made_or_wanted(session, wanted, image)


async def _wanted_figure(
    session: AsyncSession, *, tenant_id: TenantId, document_id: DocumentId, number: int
) -> StoredImage | JobView | Wanted:
    """Look for the image of a figure and for the job that makes it; see `figure_image`."""
    document, revision = await queries.readable_document_of(
        session, tenant_id=tenant_id, document_id=document_id
    )
    check_is_served(document)
    found = (
        await session.execute(
            select(Figure, FigureImage.revision_id.label("asked"), FigureImage.job_id, Job.status)
            .outerjoin(
                FigureImage,
                and_(
                    FigureImage.revision_id == Figure.revision_id,
                    FigureImage.number == Figure.number,
                ),
            )
            .outerjoin(Job, Job.id == FigureImage.job_id)
            .where(Figure.revision_id == revision.id, Figure.number == number)
        )
    ).one_or_none()
    if found is None:
        raise FigureNotFound(document_id, number=number)
    wanted = Wanted(
        document=document,
        revision_id=revision.id,
        page=found.Figure.page,
        figure=found.Figure,
        is_repeated=found.asked is not None,
    )
    return await _made_or_wanted(session, wanted, found if wanted.is_repeated else None)


async def _made_or_wanted(
    session: AsyncSession,
    wanted: Wanted,
    image: Any,  # noqa: ANN401  # a row with `job_id` and `status`; both are None once the job is deleted
) -> StoredImage | JobView | Wanted:
    """Return the image if it is made, the job while it is open, or `wanted` if another job can succeed.

    Raises:
        RenderingFailed: no job can make the image.
    """
    if image is None:
        return wanted
    if image.status in {None, JobStatus.COMPLETED}:
        return StoredImage(key=wanted.key, filename=wanted.document.filename)
    return _open_or_failed(await _job(session, wanted.document, image.job_id)) or wanted


def _open_or_failed(job: JobView) -> JobView | None:
    """Return the job of an image while it is open; None if another job can succeed.

    Raises:
        RenderingFailed: no job can make the image.
    """
    if job.status not in SETTLED_JOBS:
        return job
    if job.error is not None and job.error.code in LASTING_ERRORS:
        raise RenderingFailed(job.error)
    return None


async def _unfinished_reading(
    session: AsyncSession, document: Document, revision: Revision | None, *, number: int
) -> JobView | None:
    """Return the job of the first reading, if the image or the number of pages comes from it."""
    if document.status is not DocumentStatus.READING:
        return None
    if revision is None:
        return await _job(session, document, document.job_id)
    if revision.page_count is not None and (number > 1 or revision.document_metadata is not None):
        return None
    job = await _job(session, document, revision.job_id)
    is_described = not any(
        step.name is StepName.METADATA and step.status in ACTIVE_STEPS for step in job.steps
    )
    return None if is_described and revision.page_count is not None else job


async def _job(session: AsyncSession, document: Document, job_id: JobId) -> JobView:
    found = await snapshot_of(
        SessionStatements(session), tenant_id=document.tenant_id, job_id=job_id
    )
    return found.job


async def _lock(session: AsyncSession, *, tenant_id: TenantId, document_id: DocumentId) -> None:
    """Lock a document against other requests and against deletion; its readers are not blocked.

    Raises:
        DocumentNotFound: the tenant has no such document.
    """
    locked = await session.scalar(
        select(Document.id)
        .where(Document.id == document_id, Document.tenant_id == tenant_id)
        .with_for_update(key_share=True)
    )
    if locked is None:
        raise DocumentNotFound(document_id)


async def _images_of(session: AsyncSession, document_id: DocumentId) -> int:
    """Return the number of images of a document, over all its revisions."""
    counts = [
        select(func.count())
        .select_from(image)
        .join(Revision, Revision.id == image.revision_id)
        .where(Revision.document_id == document_id)
        .scalar_subquery()
        for image in (PageImage, FigureImage)
    ]
    return await session.scalar(select(counts[0] + counts[1])) or 0


async def _add_job(session: AsyncSession, wanted: Wanted, *, traceparent: str | None) -> JobId:
    document, figure = wanted.document, wanted.figure
    job_id = JobId(uuid4())
    session.add(
        Job(
            id=job_id,
            tenant_id=document.tenant_id,
            kind=JobKind.RENDER,
            document_id=document.id,
            stage=JobStage.RENDER,
        )
    )
    await session.flush()
    row: dict[str, Any] = {"revision_id": wanted.revision_id}
    row |= {"page": wanted.page} if figure is None else {"number": figure.number}
    await session.execute(
        insert(PageImage if figure is None else FigureImage)
        .values(row | {"job_id": job_id})
        .on_conflict_do_update(index_elements=list(row), set_={"job_id": job_id})
    )
    event_id = emit(
        session,
        RenderRequested(
            document_id=document.id,
            upload_id=document.upload_id,
            job_id=job_id,
            filename=document.filename,
            size=document.size,
            sha256=document.sha256,
            content_type=document.content_type,
            object_key=document.object_key,
            page=wanted.page,
            image_key=wanted.key,
            figure=None if figure is None else figure.number,
            box=None if figure is None else (figure.left, figure.top, figure.right, figure.bottom),
        ),
        tenant_id=document.tenant_id,
        source=EVENT_SOURCE,
        now=await transaction_time(session),
        traceparent=traceparent,
    )
    steps.add_step(
        session,
        StepName.RENDER,
        job_id=job_id,
        tenant_id=document.tenant_id,
        priority=Priority.INTERACTIVE,
        event_id=event_id,
    )
    await session.flush()
    return job_id
