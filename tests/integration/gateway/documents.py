"""Documents as workers record them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import inspect, select, update

from schemas.ids import DocumentId, JobId, RevisionId, UploadId
from schemas.tables.documents import Document, Page, Revision
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import Api, BeginSession

OF_REVISION: Final = frozenset(inspect(Revision).attrs.keys()) - (
    {*inspect(Document).attrs.keys()} - {"language"}
)


async def ingested(
    api: Api,
    transaction: BeginSession,
    *,
    pages: list[str],
    upload: Mapping[str, Any] = MappingProxyType({}),
    **values: Any,  # noqa: ANN401  # any column of the document, or of its revision
) -> str:
    """Upload a file and add the rows that ingesting it writes; return the document's id.

    Args:
        api: the client.
        transaction: of the database.
        pages: texts of the pages.
        upload: fields of the upload.
        values: columns; `is_shown` is whether clients see the revision.
    """
    upload_id, job_id = (UUID(one) for one in await api.finalized(**upload))
    document_id = DocumentId(uuid4())
    revision_id = RevisionId(uuid4())
    is_read = values.get("status", "ingested") in {"ingested", "partial"}
    is_shown = values.pop("is_shown", is_read)
    of_revision = {
        "page_count": len(pages),
        "pages_read": len(pages),
        "outcome": "complete",
        "language": "en",
        "document_metadata": {"Title": "A"},
        **{name: values.pop(name) for name in OF_REVISION & values.keys()},
    }
    async with transaction() as session:
        row = (await session.scalars(select(Upload).where(Upload.id == upload_id))).one()
        session.add(
            Document(
                **{
                    "id": document_id,
                    "tenant_id": row.tenant_id,
                    "upload_id": UploadId(upload_id),
                    "job_id": JobId(job_id),
                    "status": "ingested",
                    "filename": "a.pdf",
                    "content_type": "application/pdf",
                    "size": 7,
                    "sha256": "0" * 64,
                    "object_key": "key",
                    "etag": "etag",
                    "outcome": "complete" if is_read else None,
                    **values,
                }
            )
        )
        await session.flush()
        session.add(
            Revision(
                id=revision_id,
                document_id=document_id,
                tenant_id=row.tenant_id,
                job_id=JobId(job_id),
                number=1,
                pipeline_version="1",
                state="published" if is_read else "writing",
                **of_revision,
            )
        )
        await session.flush()
        session.add_all(
            Page(revision_id=revision_id, number=number, text=text)
            for number, text in enumerate(pages, start=1)
        )
        if is_shown:
            await session.execute(
                update(Document).where(Document.id == document_id).values(revision_id=revision_id)
            )
    return str(document_id)


async def revision_of(transaction: BeginSession, document_id: str) -> RevisionId:
    """Return the revision that a document shows."""
    async with transaction() as session:
        document = await session.get_one(Document, UUID(document_id))
    assert document.revision_id is not None
    return document.revision_id
