"""Documents as workers record them."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select

from schemas.ids import DocumentId, JobId, UploadId
from schemas.tables.documents import Document, Page
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import Api, BeginSession


async def ingested(
    api: Api,
    transaction: BeginSession,
    *,
    pages: list[str],
    **values: Any,  # noqa: ANN401  # any column
) -> str:
    """Upload a file and add the rows that ingesting it writes; return the document's id."""
    upload_id, job_id = (UUID(one) for one in await api.finalized())
    document_id = DocumentId(uuid4())
    async with transaction() as session:
        upload = (await session.scalars(select(Upload).where(Upload.id == upload_id))).one()
        session.add(
            Document(
                **{
                    "id": document_id,
                    "tenant_id": upload.tenant_id,
                    "upload_id": UploadId(upload_id),
                    "job_id": JobId(job_id),
                    "status": "ingested",
                    "filename": "a.pdf",
                    "content_type": "application/pdf",
                    "size": 7,
                    "sha256": "0" * 64,
                    "object_key": "key",
                    "etag": "etag",
                    "page_count": len(pages),
                    "language": "en",
                    "pdf_metadata": {"Title": "A"},
                    **values,
                }
            )
        )
        await session.flush()
        session.add_all(
            Page(document_id=document_id, number=number, text=text)
            for number, text in enumerate(pages, start=1)
        )
    return str(document_id)
