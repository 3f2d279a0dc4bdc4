"""Requests that make or end jobs of stored documents: read again, render a page, delete."""

from http import HTTPStatus
from typing import Annotated, Final

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, PathParameter

from gateway.context import ApiRequest
from gateway.document_changes.page_image import (
    RENDERING_ERRORS,
    StoredImage,
    figure_image,
    page_image,
)
from gateway.document_changes.reprocess import reprocess
from gateway.documents import queries
from gateway.documents.routes import PAGE_MAX, WITHHELD, PageNumber, redirect_to
from gateway.http import request_log
from gateway.http.idempotency import IdempotencyKey, KeyedRequest
from gateway.http.prefer import Prefer
from gateway.http.problems import BODY_ERRORS, answers
from gateway.http.security import requires
from gateway.jobs.wait import POLL_AFTER_SECONDS, answer_of
from gateway.uploads import cancel, passwords
from gateway.uploads.routes import BACKLOG_ERRORS, settled_answer
from schemas.api.documents import ReprocessDocument
from schemas.api.jobs import JobView
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.ids import DocumentId
from schemas.runtime.tracing import TRACEPARENT_HEADER, valid_traceparent

WITHOUT_BODY: Final = ReprocessDocument()


IMAGE_ANSWERS: Final = answers(
    ErrorCode.DOCUMENT_NOT_FOUND,
    ErrorCode.NOT_FOUND,
    ErrorCode.DOCUMENT_NOT_READY,
    *WITHHELD,
    *RENDERING_ERRORS,
    *BACKLOG_ERRORS,
) | {
    HTTPStatus.TEMPORARY_REDIRECT: ResponseSpec(
        None,
        generate_examples=False,
        description="`Location` is a URL in the object store",
    )
}

FigureNumber = Annotated[int, PathParameter(ge=1, le=PAGE_MAX, description="the first figure is 1")]


class KeyedReprocess(msgspec.Struct, frozen=True, kw_only=True):
    """What an `Idempotency-Key` is bound to."""

    document_id: DocumentId
    request: ReprocessDocument


@post(
    "/{document_id:uuid}/reprocess",
    summary="Read a document again",
    status_code=HTTPStatus.ACCEPTED,
    responses=answers(
        *BODY_ERRORS,
        ErrorCode.DOCUMENT_NOT_FOUND,
        ErrorCode.DOCUMENT_BUSY,
        ErrorCode.MALWARE_FOUND,
        *BACKLOG_ERRORS,
        ErrorCode.IDEMPOTENCY_KEY_REUSED,
        has_json=True,
    )
    | settled_answer(JobView),
)
async def reprocess_document(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    data: JSONBody[ReprocessDocument] = WITHOUT_BODY,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,  # noqa: ARG001  # for the API description; `answer_of` reads all its lines
) -> Response[JobView]:
    """Read a stored file again, with the current version of the pipeline.

    The document keeps its id, and shows its present revision until the new one is complete. If the
    new reading fails, the present revision stays. If malware scans are set up, the file is scanned
    first; a quarantined one is not read again.
    """
    context = request.context
    keyed = KeyedReprocess(
        document_id=document_id, request=passwords.hashable(data, keys=context.secret_keys)
    )
    job = await reprocess(
        context,
        tenant_id=request.user.tenant_id,
        document_id=document_id,
        request=data,
        keyed=KeyedRequest.of(idempotency_key, operation="reprocess_document", request=keyed),
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )
    request_log.bind(job_id=job.job_id)
    answer = await answer_of(job, request=request)
    return Response(answer.job, status_code=answer.status_code, headers=answer.headers)


@get(
    "/{document_id:uuid}/pages/{number:int}/image",
    summary="Show the image of a page",
    status_code=HTTPStatus.ACCEPTED,
    response_description="the job that makes the image; repeat the request",
    opt=requires(Scope.DOCUMENTS_READ),
    responses=IMAGE_ANSWERS,
)
async def get_page_image(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    number: PageNumber,
) -> Response[JobView]:
    """Redirect to a small picture (PNG) of a page; it is made at the first request for it.

    Until it is made, the answer is 202 with the job that makes it; one job makes the image of a page
    once. Pages of PDFs and images have images, but those of an encrypted document only until its
    reading ends, except the first one.
    """
    image = await page_image(
        request.context,
        tenant_id=request.user.tenant_id,
        document_id=document_id,
        number=number,
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )
    return await _image_answer(request, image, suffix=".png")


@get(
    "/{document_id:uuid}/figures/{number:int}/image",
    summary="Show the image of a figure",
    status_code=HTTPStatus.ACCEPTED,
    response_description="the job that makes the image; repeat the request",
    opt=requires(Scope.DOCUMENTS_READ),
    responses=IMAGE_ANSWERS,
)
async def get_figure_image(
    request: ApiRequest,
    *,
    document_id: FromPath[DocumentId],
    number: FigureNumber,
) -> Response[JobView]:
    """Redirect to a picture (PNG) of a figure, cut out of its page; made at the first request for it.

    Until it is made, the answer is 202 with the job that makes it, as for the image of a page.
    """
    image = await figure_image(
        request.context,
        tenant_id=request.user.tenant_id,
        document_id=document_id,
        number=number,
        traceparent=valid_traceparent(request.headers.get(TRACEPARENT_HEADER)),
    )
    return await _image_answer(request, image, suffix=f"-figure-{number}.png")


@delete(
    "/{document_id:uuid}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete a document",
    responses=answers(ErrorCode.DOCUMENT_NOT_FOUND),
)
async def delete_document(request: ApiRequest, *, document_id: FromPath[DocumentId]) -> None:
    """Delete a document with its file and everything read from it; open jobs are cancelled.

    The same as `DELETE /uploads/{upload_id}?purge=true` of its upload. Its events stay.
    """
    context, tenant_id = request.context, request.user.tenant_id
    async with context.database.transaction() as session:
        document = await queries.document_of(session, tenant_id=tenant_id, document_id=document_id)
    request_log.bind(upload_id=document.upload_id)
    await cancel.cancel_upload(
        context, tenant_id=tenant_id, upload_id=document.upload_id, purge=True
    )


router = Router(
    "/documents",
    route_handlers=[reprocess_document, get_page_image, get_figure_image, delete_document],
    opt=requires(Scope.DOCUMENTS_WRITE),
    tags=["documents"],
)


async def _image_answer(
    request: ApiRequest, image: StoredImage | JobView, *, suffix: str
) -> Response[JobView]:
    """Return the redirect to an image, or 202 with the job that makes it."""
    if isinstance(image, JobView):
        request_log.bind(job_id=image.job_id)
        headers = {"Location": image.status_url, "Retry-After": str(POLL_AFTER_SECONDS)}
        return Response(image, headers=headers)
    return await redirect_to(
        request, image.key, filename=f"{image.filename}{suffix}", content_type="image/png"
    )
