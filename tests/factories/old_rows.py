"""Rows as the earlier version wrote them, on a database at revision 0004.

The bodies of events are written out: a change of the current encoder must not change old data.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

REVISION: Final = "0004"
CHUNK_SIZE: Final = 256 * 1024
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector


@dataclass(frozen=True, kw_only=True)
class OldUpload:
    id: UUID
    tenant_id: UUID
    filename: str
    size: int
    content: bytes
    object_key: str


@dataclass(frozen=True, kw_only=True)
class OldJob:
    id: UUID
    upload: OldUpload
    document_id: UUID


@dataclass(frozen=True, kw_only=True)
class OldEvent:
    """An event with the bytes of its message."""

    id: UUID
    type: str
    tenant_id: UUID
    body: bytes


class OldRows:
    """Adds rows to a database at revision 0004."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.now = datetime.now(UTC).replace(microsecond=0)

    @classmethod
    @contextmanager
    def of(cls, database_url: str) -> Iterator[Self]:
        """Commit the rows at the end of the block."""
        url = urlsplit(database_url)._replace(scheme="postgresql").geturl()
        with psycopg.connect(url) as connection:
            yield cls(connection)

    def ago(self, **duration: float) -> datetime:
        return self.now - timedelta(**duration)

    def insert(self, table: str, **values: object) -> None:
        self.connection.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(map(sql.Placeholder, values)),
            ),
            {
                name: Jsonb(value) if isinstance(value, dict) else value
                for name, value in values.items()
            },
        )

    def add_tenant(self, name: str) -> UUID:
        tenant_id = uuid4()
        self.insert("tenants", id=tenant_id, name=name, quota_bytes=10**12)
        return tenant_id

    def add_upload(
        self,
        tenant_id: UUID,
        content: bytes = b"",
        *,
        status: str = "finalized",
        filename: str = "file.bin",
        **columns: Any,  # noqa: ANN401  # columns of the table
    ) -> OldUpload:
        """Add an upload; the caller stages its bytes. An upload that ended has no chunks."""
        upload_id = uuid4()
        pieces = [
            content[start : start + CHUNK_SIZE] for start in range(0, len(content), CHUNK_SIZE)
        ]
        values: dict[str, object] = {
            "id": upload_id,
            "tenant_id": tenant_id,
            "status": status,
            "filename": filename,
            "size": len(content),
            "chunk_size": CHUNK_SIZE,
            "chunk_count": len(pieces),
            "metadata": {"origin": "archive"},
            "created_at": self.ago(hours=2),
            "expires_at": self.now + timedelta(days=1),
            "finalized_at": None if status == "open" else self.ago(hours=1),
        }
        self.insert("uploads", **values | columns)
        if status in {"open", "finalized"}:
            for index, piece in enumerate(pieces):
                self.insert(
                    "chunks",
                    upload_id=upload_id,
                    index=index,
                    size=len(piece),
                    sha256=hashlib.sha256(piece).digest(),
                )
        return OldUpload(
            id=upload_id,
            tenant_id=tenant_id,
            filename=filename,
            size=len(content),
            content=content,
            object_key=f"originals/{tenant_id}/{upload_id}",
        )

    def add_job(
        self,
        upload: OldUpload,
        *,
        status: str = "queued",
        stage: str = "transfer",
        document: Mapping[str, object] | None = None,
        **columns: Any,  # noqa: ANN401  # columns of the table
    ) -> OldJob:
        """Add a job with its document, if it has stored one."""
        job = OldJob(id=uuid4(), upload=upload, document_id=uuid4())
        values: dict[str, object] = {
            "id": job.id,
            "tenant_id": upload.tenant_id,
            "upload_id": upload.id,
            "status": status,
            "stage": stage,
            "bytes_done": 0,
            "bytes_total": upload.size,
            "pages_done": 0,
            "created_at": self.ago(hours=1),
        }
        self.insert("jobs", **values | columns)
        if document is not None:
            stored: dict[str, object] = {
                "id": job.document_id,
                "tenant_id": upload.tenant_id,
                "upload_id": upload.id,
                "job_id": job.id,
                "status": "stored",
                "filename": upload.filename,
                "content_type": "application/pdf",
                "size": upload.size,
                "sha256": hashlib.sha256(upload.content).hexdigest(),
                "object_key": upload.object_key,
                "etag": hashlib.md5(upload.content, usedforsecurity=False).hexdigest(),
                "truncated": False,
            }
            self.insert("documents", **stored | dict(document))
        return job

    def add_finalized(self, job: OldJob, *, is_reference: bool = False, **row: Any) -> OldEvent:  # noqa: ANN401  # columns of the outbox
        return self.add_event(
            "upload.finalized",
            job.upload,
            job_id=job.id,
            data={"size": None if is_reference else job.upload.size},
            **row,
        )

    def add_stored(self, job: OldJob, *, will_be_read: bool = True, **row: Any) -> OldEvent:  # noqa: ANN401  # columns of the outbox
        return self.add_event(
            "upload.stored",
            job.upload,
            job_id=job.id,
            data={
                "document_id": str(job.document_id),
                "size": job.upload.size,
                "sha256": hashlib.sha256(job.upload.content).hexdigest(),
                "content_type": "application/pdf",
                "object_key": job.upload.object_key,
                "will_be_read": will_be_read,
            },
            **row,
        )

    def add_cancelled(
        self,
        upload: OldUpload,
        *,
        job_id: UUID | None = None,
        **row: Any,  # noqa: ANN401  # columns of the outbox
    ) -> OldEvent:
        return self.add_event("upload.cancelled", upload, job_id=job_id, **row)

    def add_event(
        self,
        event_type: str,
        upload: OldUpload,
        *,
        job_id: UUID | None,
        subject: UUID | None = None,
        data: Mapping[str, object] | None = None,
        in_outbox: bool = True,
        **row: object,
    ) -> OldEvent:
        """Add an event, published an hour ago; `in_outbox` is false if retention deleted its row."""
        event_id = uuid4()
        body = json.dumps(
            {
                "specversion": "1.0",
                "id": str(event_id),
                "source": "/waybill/gateway",
                "type": event_type,
                "subject": str(subject or upload.id),
                "time": self.ago(hours=1).isoformat().replace("+00:00", "Z"),
                "datacontenttype": "application/json",
                "tenantid": str(upload.tenant_id),
                "data": {
                    "upload_id": str(upload.id),
                    "job_id": None if job_id is None else str(job_id),
                    "filename": upload.filename,
                    **(data or {}),
                },
            },
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        event = OldEvent(id=event_id, type=event_type, tenant_id=upload.tenant_id, body=body)
        if in_outbox:
            values: dict[str, object] = {
                "event_id": event_id,
                "routing_key": event_type,
                "body": body,
                "created_at": self.ago(hours=1),
                "published_at": self.ago(minutes=59),
            }
            self.insert("outbox", **values | row)
        return event

    def add_webhook(self, tenant_id: UUID, *, url: str = "http://127.0.0.1:9/hook") -> UUID:
        webhook_id = uuid4()
        self.insert("webhooks", id=webhook_id, tenant_id=tenant_id, url=url, secret=SECRET)
        return webhook_id

    def add_delivery(
        self, event: OldEvent, webhook_id: UUID, *, status: str = "pending", **columns: object
    ) -> UUID:
        delivery_id = uuid4()
        is_pending = status == "pending"
        values: dict[str, object] = {
            "id": delivery_id,
            "tenant_id": event.tenant_id,
            "webhook_id": webhook_id,
            "event_id": event.id,
            "event_type": event.type,
            "body": event.body,
            "status": status,
            "attempts_made": 0,
            "next_attempt_at": self.now if is_pending else None,
            "created_at": self.ago(minutes=58),
            "settled_at": None if is_pending else self.ago(minutes=57),
        }
        self.insert("deliveries", **values | columns)
        return delivery_id

    def add_attempt(self, delivery_id: UUID, *, outcome: str, status_code: int) -> None:
        self.insert(
            "attempts",
            delivery_id=delivery_id,
            number=1,
            started_at=self.ago(minutes=58),
            duration=timedelta(milliseconds=20),
            outcome=outcome,
            status_code=status_code,
        )
