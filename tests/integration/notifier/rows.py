"""Writes and reads the rows of a test's own database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import uuid4

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from notifier import db
from notifier.delivery.store import DatabaseStore
from notifier.delivery.work import ReceivedEvent
from schemas.events.envelope import Envelope, Event, encode
from schemas.events.uploads import UploadCancelled
from schemas.ids import BatchId, EventId, JobId, TenantId, UploadId, WebhookId, uuid7
from schemas.lifecycle import BatchEvents, BatchStatus, JobKind
from schemas.policy import webhook_secrets
from schemas.policy.webhook_secrets import SecretKind
from schemas.settings import DatabaseSettings
from schemas.tables.batches import Batch
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.deliveries import Attempt, Delivery, DeliveryQueue
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.ledger import LEDGER, Ledger, ledger_of, values_of
from schemas.tables.outbox import OutboxMessage
from schemas.tables.tenant_deletions import TenantDeletion
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload
from schemas.tables.webhooks import Webhook, WebhookSecret
from tests.factories.secret_keys import KEYS

T = TypeVar("T")

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector


def an_event(
    *,
    tenant_id: TenantId | None = None,
    upload_id: UploadId | None = None,
    data: Event | None = None,
) -> Envelope:
    """Return an event, by default of an unknown tenant."""
    upload_id = upload_id or UploadId(uuid4())
    return Envelope(
        id=EventId(uuid7(datetime.now(UTC))),
        source="/tests",
        subject=str(upload_id),
        time=datetime.now(UTC),
        tenantid=tenant_id or TenantId(uuid4()),
        data=data or UploadCancelled(upload_id=upload_id, filename="a.pdf"),
    )


def received(event: Envelope, *, traceparent: str | None = None) -> ReceivedEvent:
    """Return an event as the consumer reads it from its message."""
    return ReceivedEvent(envelope=event, body=encode(event), traceparent=traceparent)


def record_of(event: Envelope, *, traceparent: str | None = None) -> EventRecord:
    """Return the row of an event."""
    return EventRecord(
        id=event.id,
        tenant_id=event.tenantid,
        type=event.type,
        subject=event.subject,
        body=encode(event),
        traceparent=traceparent,
        **event.references,
    )


async def eventually(
    ask: Callable[[], Awaitable[T]], *, within: timedelta = timedelta(seconds=20)
) -> T:
    """Call `ask` until its result is true, and return the result.

    Raises:
        AssertionError: the result was not true in time; contains the last result.
    """
    deadline = asyncio.get_running_loop().time() + within.total_seconds()
    while not (answer := await ask()):
        assert asyncio.get_running_loop().time() < deadline, f"still {answer!r} after {within}"
        await asyncio.sleep(0.02)
    return answer


@asynccontextmanager
async def engine_of(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    async with db.open_engine(database, name="tests") as engine:
        yield engine


class Rows:
    def __init__(self, engine: AsyncEngine, *, store: DatabaseStore) -> None:
        self._store = store
        self.transaction = async_sessionmaker(engine, expire_on_commit=False).begin

    async def record(self, *events: Envelope) -> None:
        """Record events as a consumer of another process does, which delivers nothing itself."""
        await self._store.record_events([received(event) for event in events])

    async def execute(self, statement: str, **values: object) -> None:
        async with self.transaction() as session:
            await session.execute(text(statement), values)

    async def add_tenant(self) -> TenantId:
        tenant_id = TenantId(uuid4())
        async with self.transaction() as session:
            session.add(Tenant(id=tenant_id, name=str(tenant_id)))
        return tenant_id

    async def add_deletion(self, tenant_id: TenantId) -> None:
        """Order the deletion of a tenant."""
        async with self.transaction() as session:
            session.add(TenantDeletion(tenant_id=tenant_id, name="deleted", requested_by="tests"))

    async def stored_events(self) -> Sequence[EventId]:
        async with self.transaction() as session:
            return (await session.scalars(select(EventRecord.id).order_by(EventRecord.id))).all()

    async def add_upload(
        self, tenant_id: TenantId, *, metadata: dict[str, str] | None = None
    ) -> UploadId:
        upload_id = UploadId(uuid4())
        async with self.transaction() as session:
            session.add(
                Upload(
                    id=upload_id,
                    tenant_id=tenant_id,
                    filename="a.pdf",
                    size=1,
                    chunk_size=1,
                    chunk_count=1,
                    client_metadata=metadata or {},
                    expires_at=datetime.now(UTC),
                )
            )
        return upload_id

    async def add_batch(self, tenant_id: TenantId, *, events: BatchEvents) -> tuple[JobId, JobId]:
        """Add a batch; return its job, and the job of one of its lines."""
        job_ids = JobId(uuid4()), JobId(uuid4())
        batch_id = BatchId(uuid4())
        async with self.transaction() as session:
            session.add_all(
                [
                    Job(id=job_ids[0], tenant_id=tenant_id, kind=JobKind.BATCH),
                    Job(id=job_ids[1], tenant_id=tenant_id, batch_id=batch_id),
                ]
            )
            await session.flush()
            session.add(
                Batch(
                    id=batch_id,
                    tenant_id=tenant_id,
                    job_id=job_ids[0],
                    status=BatchStatus.PROCESSING,
                    events=events,
                    expires_at=datetime.now(UTC),
                )
            )
        return job_ids

    async def add_webhook(
        self,
        tenant_id: TenantId,
        *,
        url: str = "http://127.0.0.1:9/hook",
        event_types: Sequence[str] = (),
        upload_id: UploadId | None = None,
        **options: object,
    ) -> WebhookId:
        webhook_id = WebhookId(uuid4())
        async with self.transaction() as session:
            session.add(
                Webhook(
                    id=webhook_id,
                    tenant_id=tenant_id,
                    url=url,
                    event_types=list(event_types),
                    upload_id=upload_id,
                    **options,
                )
            )
            await session.flush()
            session.add(
                WebhookSecret(
                    id=uuid4(),
                    webhook_id=webhook_id,
                    scheme=SecretKind.V1,
                    secret=webhook_secrets.encrypt(SECRET, webhook_id=webhook_id, keys=KEYS),
                )
            )
        return webhook_id

    async def change_webhook(self, webhook_id: WebhookId, **values: object) -> None:
        """Change columns, and wake the owner of the queue as the gateway does."""
        async with self.transaction() as session:
            await session.execute(update(Webhook).where(Webhook.id == webhook_id).values(values))
            await self._wake(session, webhook_id)

    async def add_secret(
        self, webhook_id: WebhookId, secret: str, *, others_expire_in: timedelta
    ) -> None:
        """Rotate the secret."""
        async with self.transaction() as session:
            await session.execute(
                update(WebhookSecret)
                .where(WebhookSecret.webhook_id == webhook_id, WebhookSecret.expires_at.is_(None))
                .values(expires_at=func.now() + others_expire_in)
            )
            session.add(
                WebhookSecret(
                    id=uuid4(),
                    webhook_id=webhook_id,
                    scheme=SecretKind.V1,
                    secret=webhook_secrets.encrypt(secret, webhook_id=webhook_id, keys=KEYS),
                )
            )

    async def _wake(self, session: AsyncSession, webhook_id: WebhookId) -> None:
        await session.execute(
            update(DeliveryQueue)
            .where(DeliveryQueue.webhook_id == webhook_id)
            .values(due_at=func.now())
        )

    async def delete_webhook(self, webhook_id: WebhookId) -> None:
        await self.change_webhook(webhook_id, deleted_at=func.now())

    async def set_secret(self, webhook_id: WebhookId, secret: str) -> None:
        async with self.transaction() as session:
            await session.execute(
                update(WebhookSecret)
                .where(WebhookSecret.webhook_id == webhook_id)
                .values(secret=secret)
            )

    async def webhook(self, webhook_id: WebhookId) -> Webhook:
        async with self.transaction() as session:
            return (await session.scalars(select(Webhook).where(Webhook.id == webhook_id))).one()

    async def add_to_outbox(
        self, *events: Envelope, queue: str | None = None, traceparent: str | None = None
    ) -> None:
        """Add events to publish: to the exchange of events, or to a work queue."""
        async with self.transaction() as session:
            for event in events:
                session.add(record_of(event, traceparent=traceparent))
                session.add(OutboxMessage(event_id=event.id, queue=queue))

    async def add_events(self, *events: Envelope, traceparent: str | None = None) -> None:
        async with self.transaction() as session:
            session.add_all(record_of(event, traceparent=traceparent) for event in events)

    async def delete_events(self) -> None:
        async with self.transaction() as session:
            await session.execute(delete(EventRecord))

    async def events(self) -> Sequence[EventRecord]:
        async with self.transaction() as session:
            return (await session.scalars(select(EventRecord).order_by(EventRecord.id))).all()

    async def outbox(self) -> Sequence[OutboxMessage]:
        async with self.transaction() as session:
            return (await session.scalars(select(OutboxMessage).order_by(OutboxMessage.id))).all()

    async def unpublished(self) -> int:
        async with self.transaction() as session:
            return (
                await session.scalars(
                    select(func.count())
                    .select_from(OutboxMessage)
                    .where(OutboxMessage.published_at.is_(None))
                )
            ).one()

    async def everything_is_published(self) -> bool:
        return await self.unpublished() == 0

    async def deliveries(self) -> Sequence[Delivery]:
        async with self.transaction() as session:
            return (
                await session.scalars(select(Delivery).order_by(Delivery.created_at, Delivery.id))
            ).all()

    async def attempts(self) -> Sequence[Attempt]:
        async with self.transaction() as session:
            return (await session.scalars(select(Attempt).order_by(Attempt.started_at))).all()

    async def everything_is_settled(self) -> bool:
        return all(delivery.settled_at is not None for delivery in await self.deliveries())

    async def make_due(self) -> None:
        """Make every waiting retry due now."""
        async with self.transaction() as session:
            await session.execute(
                update(Delivery)
                .where(Delivery.next_attempt_at.is_not(None))
                .values(next_attempt_at=func.now())
            )
            await session.execute(
                update(DeliveryQueue).values(due_at=func.now(), blocked_until=None)
            )

    async def secrets(self, webhook_id: WebhookId) -> Sequence[str]:
        """Return the secrets of an endpoint as the database has them."""
        async with self.transaction() as session:
            return (
                await session.scalars(
                    select(WebhookSecret.secret).where(WebhookSecret.webhook_id == webhook_id)
                )
            ).all()

    async def queues(self) -> Sequence[DeliveryQueue]:
        async with self.transaction() as session:
            return (await session.scalars(select(DeliveryQueue))).all()

    async def queue(self, webhook_id: WebhookId) -> DeliveryQueue:
        async with self.transaction() as session:
            return await session.get_one(DeliveryQueue, webhook_id)

    async def ledger(self, tenant_id: TenantId) -> Ledger:
        """Return the ledger of a tenant's events of the last hour."""
        now = datetime.now(UTC)
        since, until = now - timedelta(hours=1), now + timedelta(minutes=1)
        values = values_of(tenant_id=tenant_id, since=since, until=until)
        async with self.transaction() as session:
            row = (await session.execute(LEDGER, values)).one()
        return ledger_of(row, since=since, until=until)

    async def dead_letters(self) -> Sequence[DeadLetter]:
        async with self.transaction() as session:
            return (await session.scalars(select(DeadLetter).order_by(DeadLetter.id))).all()

    async def until_dead_letters(self, count: int) -> Sequence[DeadLetter]:
        """Wait until `count` dead letters are recorded; return all."""

        async def enough() -> Sequence[DeadLetter]:
            found = await self.dead_letters()
            return found if len(found) >= count else ()

        return await eventually(enough)
