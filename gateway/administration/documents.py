"""Scans the file of a document again, for the operator's command."""

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.administration import audit
from gateway.document_changes.reprocess import order_rescan
from schemas.ids import DocumentId, JobId


async def rescan(session: AsyncSession, *, document_id: DocumentId, actor: str) -> JobId:
    """Add the job of a malware scan, and write the act to the audit log.

    Raises:
        DocumentNotFound: there is no such document.
        DocumentBusy: a job that reads it is open.
    """
    job_id = await order_rescan(session, document_id=document_id)
    audit.record(
        session,
        actor=actor,
        action="document.rescan_ordered",
        target=f"document/{document_id}",
        detail={"job_id": str(job_id)},
    )
    return job_id
