"""Real pipeline workers that receive events as the relay would publish them."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from schemas import staging_layout
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.ids import TenantId
from schemas.lifecycle import SETTLED_JOBS, StagingKind
from schemas.steps import StepName
from schemas.tables.documents import Document
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from tests.bucket import Bucket
from tests.eventually import TIMEOUT, eventually
from tests.factories.uploads import (
    add_finalized_upload,
    add_tenant,
    cancel_upload,
    staged_objects,
    upload_of,
)
from tests.integration.pipeline.bus import Bus, connected
from tests.seen_jobs import SeenJob, seen_job


class Workbench:
    def __init__(self, system: Stack, *, engine: Engine, bus: Bus) -> None:
        self.system = system
        self.bus = bus
        self.engine = engine

    @property
    def staging(self) -> Path:
        return Path(self.system.environment["STAGING_DIR"])

    def finalized(
        self,
        content: bytes = b"good",
        *,
        filename: str = "file.bin",
        content_type: str | None = None,
        sha256: str | None = None,
        staging: StagingKind = StagingKind.DIRECTORY,
        chunk_size: int = 256 * 1024,
        tenant_id: TenantId | None = None,
    ) -> Envelope:
        """Add a finalized upload as the gateway does; return its event without publishing it.

        By default of a new tenant.
        """
        source_key = f"incoming/{uuid4()}" if staging is StagingKind.REFERENCE else None
        if source_key is not None:
            self.bucket.put(source_key, content)
        with Session(self.engine) as session, session.begin():
            event = add_finalized_upload(
                session,
                tenant_id=tenant_id or add_tenant(session),
                staging_dir=self.staging,
                content=content,
                filename=filename,
                content_type=content_type,
                sha256=sha256,
                staging=staging,
                source_key=source_key,
                chunk_size=chunk_size,
            )
        if staging is StagingKind.OBJECTS:
            for key, piece in staged_objects(event, content, chunk_size=chunk_size).items():
                self.bucket.put(key, piece)
        return event

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.system.environment)

    def staged(self, event: Envelope) -> Path:
        return self.staging / str(event.upload_id)

    def staged_keys(self, event: Envelope) -> list[str]:
        """Return the keys of an upload's staged chunks, in order."""
        prefix = staging_layout.prefix_of(event.tenantid, upload_of(event))
        keys = self.bucket.keys()
        return sorted(key for key in keys if key.startswith(prefix))

    def is_staged(self, event: Envelope) -> bool:
        return self.staged(event).exists() or bool(self.staged_keys(event))

    def overwrite_staged(self, event: Envelope, content: bytes, *, chunk_size: int) -> None:
        """Replace the staged bytes of an upload."""
        if self.staged(event).exists():
            self.staged(event).write_bytes(content)
        for index, key in enumerate(self.staged_keys(event)):
            self.bucket.put(key, content[index * chunk_size : (index + 1) * chunk_size])

    def lose_staged(self, event: Envelope) -> None:
        self.staged(event).unlink(missing_ok=True)
        for key in self.staged_keys(event):
            self.bucket.delete(key)

    def cancel(self, event: Envelope) -> Envelope:
        """Cancel an upload as the gateway does; return its event without publishing it."""
        with Session(self.engine) as session, session.begin():
            return cancel_upload(session, event)

    def job(self, event: Envelope) -> SeenJob:
        with Session(self.engine) as session:
            return seen_job(session, event.job_id)

    def step(self, event: Envelope, name: StepName = StepName.TRANSFER) -> Step:
        with Session(self.engine) as session:
            return session.get_one(Step, (event.job_id, name))

    def steps(self, event: Envelope) -> Sequence[StepName]:
        """Return the names of the steps of the event's job, in the order of the timeline."""
        with Session(self.engine) as session:
            return session.scalars(
                select(Step.name).where(Step.job_id == event.job_id).order_by(Step.ordinal)
            ).all()

    def document(self, event: Envelope) -> Document | None:
        with Session(self.engine) as session:
            return session.scalar(select(Document).where(Document.upload_id == event.upload_id))

    def emitted(self, event: Envelope) -> list[Envelope]:
        """Return the events of an upload in the outbox, in order."""
        with Session(self.engine) as session:
            bodies = session.scalars(
                select(EventRecord.body)
                .join(OutboxMessage, OutboxMessage.event_id == EventRecord.id)
                .where(EventRecord.upload_id == event.upload_id, OutboxMessage.queue.is_(None))
                .order_by(OutboxMessage.id),
            )
            return [envelope.decode(body) for body in bodies]

    def count(self, table: type) -> int:
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    def settled(self, event: Envelope, *, within: timedelta = TIMEOUT) -> SeenJob:
        """Return the job once it is completed, failed or cancelled."""
        return eventually(
            lambda: self.job(event), until=lambda job: job.status in SETTLED_JOBS, within=within
        )


@contextmanager
def workbench(system: Stack) -> Iterator[Workbench]:
    """Connect to running services."""
    engine = create_engine(system.environment["DATABASE_URL"])
    with connected(system.environment["RABBITMQ_URL"]) as bus:
        yield Workbench(system, engine=engine, bus=bus)
    engine.dispose()


def prepare_staging(system: Stack) -> None:
    """Create the staging directory and its marker, as a gateway does."""
    staging = Path(system.environment["STAGING_DIR"])
    staging.mkdir(parents=True, exist_ok=True)
    (staging / staging_layout.MARKER).touch()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
