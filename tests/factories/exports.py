"""Documents to export, and exports as the gateway requests them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import msgspec
from sqlalchemy import text
from sqlalchemy.orm import Session

from pipeline.context import database_time
from pipeline.ingest.extractors.layout import TableFound
from schemas.api.exports import ExportFilter
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.events.exports import ExportRequested
from schemas.ids import DocumentId, ExportId, JobId, RevisionId, TenantId, UploadId
from schemas.lifecycle import (
    DocumentStatus,
    ExportFormat,
    ExportKind,
    JobKind,
    Priority,
    RevisionState,
    StepStatus,
    UploadStatus,
)
from schemas.outcomes import Outcome
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.documents import Document, Entity, Page, Revision
from schemas.tables.events import EventRecord, emit
from schemas.tables.export_kinds import KINDS
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload
from tests.factories.tables import table_row

FORMULAS = ("=1+1", "+1+1", "-1*1", "@SUM(1)", "\t=1", "\r=1", " \u200b=1", "\ufeff=1", "\uff1d1")
NASTY = "Überweisung \"März\"\n\r\n\t=cmd|' /C calc'!A0,; 🧾.pdf"
"""A name with quotes, line breaks, a formula, separators and an emoji."""

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


def columns_of(kind: ExportKind) -> list[str]:
    return [column.name for column in KINDS[kind].columns]


def add_document(
    session: Session,
    tenant_id: TenantId,
    *,
    filename: str = "a.pdf",
    minute: int = 0,
    metadata: dict[str, str] | None = None,
    sentences: tuple[str, ...] = (),
    entities: tuple[tuple[str, str], ...] = (),
    tables: tuple[TableFound, ...] = (),
    **columns: Any,  # noqa: ANN401  # any column
) -> Document:
    """Add a document that is read, with one page of these sentences, entities and tables."""
    at = START + timedelta(minutes=minute)
    upload_id, job_id = UploadId(uuid4()), JobId(uuid4())
    document_id, revision_id = DocumentId(uuid4()), RevisionId(uuid4())
    session.add(
        Upload(
            id=upload_id,
            tenant_id=tenant_id,
            status=UploadStatus.STORED,
            filename=filename,
            size=3,
            chunk_size=3,
            chunk_count=1,
            expires_at=at,
            client_metadata=metadata or {},
        )
    )
    session.flush()
    session.add(Job(id=job_id, tenant_id=tenant_id, upload_id=upload_id, created_at=at))
    session.flush()
    values: dict[str, Any] = {
        "status": DocumentStatus.INGESTED,
        "outcome": Outcome.COMPLETE,
        "content_type": "application/pdf",
        "sha256": "0" * 64,
        **columns,
    }
    document = Document(
        id=document_id,
        tenant_id=tenant_id,
        upload_id=upload_id,
        job_id=job_id,
        filename=filename,
        size=3,
        object_key=f"originals/{tenant_id}/{upload_id}",
        etag="0",
        created_at=at,
        **values,
    )
    session.add(document)
    session.flush()
    session.add(
        Revision(
            id=revision_id,
            document_id=document_id,
            tenant_id=tenant_id,
            job_id=job_id,
            number=1,
            pipeline_version="test",
            state=RevisionState.PUBLISHED,
            page_count=1,
            language=values.get("language"),
            passages=len(sentences),
            entities=len(entities),
        )
    )
    session.flush()
    document.revision_id = revision_id
    for number, table in enumerate(tables, start=1):
        session.add(table_row(revision_id, table, number=number))
    ends = [len(" ".join(sentences[: n + 1])) for n in range(len(sentences))]
    session.add(
        Page(
            revision_id=revision_id,
            number=1,
            text=" ".join(sentences),
            sentences=[
                bound
                for end, sentence in zip(ends, sentences, strict=True)
                for bound in (end - len(sentence), end)
            ],
        )
    )
    session.flush()
    for ordinal, (label, mention) in enumerate(entities):
        session.add(
            Entity(
                revision_id=revision_id,
                page=1,
                ordinal=ordinal,
                label=label,
                text=mention,
                normal_form=mention.lower(),
                start=0,
                end=len(mention),
            )
        )
    session.flush()
    return document


SENTENCE: Final = "x" * 999
"""Long, so that a large file has few rows."""


def add_pages(session: Session, document: Document, *, pages: int, sentences: int) -> None:
    """Add pages with equal sentences to a document, after its first page."""
    session.execute(
        text(
            """
            INSERT INTO pages (revision_id, number, status, outcome, text, sentences)
            SELECT :revision_id, number, 'read', 'complete', repeat(:sentence || ' ', :sentences),
                   ARRAY(SELECT bound FROM generate_series(0, :sentences - 1) AS n
                         CROSS JOIN LATERAL (VALUES (n * :length), ((n + 1) * :length - 1)) AS bounds (bound))
            FROM generate_series(2, :pages + 1) AS number
            """
        ),
        {
            "revision_id": document.revision_id,
            "pages": pages,
            "sentences": sentences,
            "sentence": SENTENCE,
            "length": len(SENTENCE) + 1,
        },
    )


def add_documents(session: Session, tenant_id: TenantId, *, count: int) -> None:
    """Add documents that were not read, without the triggers and checks of single ones."""
    session.execute(text("SET LOCAL session_replication_role = replica"))
    session.execute(
        text(
            """
            WITH added AS (
                INSERT INTO uploads (id, tenant_id, status, filename, size, chunk_size, chunk_count, staging, metadata, expires_at)
                SELECT gen_random_uuid(), :tenant_id, 'stored', 'Invoice ' || n || '.pdf', 3, 3, 1, 'directory', '{}', now()
                FROM generate_series(1, :count) AS n
                RETURNING id, filename
            )
            INSERT INTO documents (id, tenant_id, upload_id, job_id, status, filename, content_type, size, sha256, object_key, etag, created_at)
            SELECT gen_random_uuid(), :tenant_id, id, gen_random_uuid(), 'reading', filename, 'application/pdf', 3, repeat('0', 64),
                   'originals/' || id, '0', now() - interval '1 hour'
            FROM added
            """
        ),
        {"tenant_id": tenant_id, "count": count},
    )
    session.execute(text("SET LOCAL session_replication_role = origin"))


def request_export(
    session: Session,
    tenant_id: TenantId,
    *,
    kind: ExportKind = ExportKind.DOCUMENTS,
    format: ExportFormat = ExportFormat.CSV,  # noqa: A002  # the name in the API
    filter: ExportFilter | None = None,  # noqa: A002  # the name in the API
    columns: list[str] | None = None,
    bom: bool = False,
    raw: bool = False,
) -> Envelope:
    """Add an export with its job and queued step, as the gateway does; return its event."""
    export_id, job_id = ExportId(uuid4()), JobId(uuid4())
    session.add(Job(id=job_id, tenant_id=tenant_id, kind=JobKind.EXPORT, stage=JobStage.EXPORT))
    session.flush()
    now = database_time(session)
    session.add(
        Export(
            id=export_id,
            tenant_id=tenant_id,
            job_id=job_id,
            kind=kind,
            format=format,
            filter=msgspec.to_builtins(filter or ExportFilter()),
            columns=columns or columns_of(kind),
            bom=bom,
            raw=raw,
            expires_at=now + timedelta(days=7),
        )
    )
    event_id = emit(
        session,
        ExportRequested(export_id=export_id, job_id=job_id),
        tenant_id=tenant_id,
        source="/tests",
        now=now,
    )
    step = steps.add_step(
        session,
        StepName.EXPORT,
        job_id=job_id,
        tenant_id=tenant_id,
        priority=Priority.INTERACTIVE,
        event_id=event_id,
    )
    step.status = StepStatus.QUEUED
    session.flush()
    return envelope.decode(session.get_one(EventRecord, event_id).body)


def export_of(event: Envelope) -> ExportId:
    assert isinstance(event.data, ExportRequested)
    return event.data.export_id
