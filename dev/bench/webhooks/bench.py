"""What every measurement of webhooks needs: receivers, tenants, endpoints, events, the deliverers."""

import asyncio
import base64
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from uuid import uuid4

import aiormq
import psycopg
from sqlalchemy.engine import make_url

from dev.bench.webhooks.receivers import GOOD
from dev.stack.checkout import CHECKOUT
from dev.stack.stack import Stack
from schemas import topology
from schemas.events.envelope import Envelope, encode
from schemas.events.uploads import StoredEvent
from schemas.ids import DocumentId, EventId, JobId, TenantId, UploadId, WebhookId, uuid7
from schemas.lifecycle import DeliveryStatus
from schemas.policy import webhook_secrets
from schemas.settings import SecretSettings

TIMEOUT: Final = timedelta(minutes=5)
LOOK_INTERVAL: Final = timedelta(milliseconds=50)
DELIVERERS: Final = ("deliver", "deliver-2")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the good receivers saw; see `receivers.Seen`."""

    requests: int
    distinct: int
    connections: int
    first: float | None
    last: float | None
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Requests per second, from the first to the last."""
        if self.first is None or self.last is None or self.last <= self.first:
            raise RuntimeError("too few requests for a rate")
        return (self.requests - 1) / (self.last - self.first)


class Receivers:
    """A process with receivers."""

    def __init__(self, process: "subprocess.Popen[str]", *, ports: dict[str, list[int]]) -> None:
        self._process = process
        self._ports = ports
        self._total = Seen(
            requests=0, distinct=0, connections=0, first=None, last=None, latencies=[]
        )

    @classmethod
    @contextmanager
    def running(cls, **counts: int) -> Iterator["Receivers"]:
        """Start receivers: for each behaviour, with `_` for a space, how many."""
        wanted = [f"{name.replace('_', ' ')}={count}" for name, count in counts.items()]
        process = subprocess.Popen(  # our own module
            [sys.executable, "-m", "dev.bench.webhooks.receivers", *wanted],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if process.stdout is None:
            raise RuntimeError("the process has no standard output")
        try:
            yield cls(process, ports=json.loads(process.stdout.readline()))
        finally:
            process.kill()
            process.wait()

    def urls(self, behaviour: str = GOOD) -> list[str]:
        return [f"http://127.0.0.1:{port}/hook" for port in self._ports[behaviour]]

    def forget(self) -> None:
        self._ask()

    def until(self, requests: int, *, timeout: timedelta = TIMEOUT) -> Seen:
        """Wait for this many requests since `forget`; return what was seen.

        Raises:
            TimeoutError: there were fewer.
        """
        deadline = time.monotonic() + timeout.total_seconds()
        total = self._ask()
        while total.requests < requests:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{total.requests} of {requests} webhooks after {timeout}")
            time.sleep(LOOK_INTERVAL.total_seconds())
            total = _together(total, self._ask())
        return total

    def _ask(self) -> Seen:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no standard input and output")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Seen(**json.loads(self._process.stdout.readline()))


def _together(earlier: Seen, later: Seen) -> Seen:
    return Seen(
        requests=earlier.requests + later.requests,
        distinct=later.distinct,
        connections=earlier.connections + later.connections,
        first=earlier.first if earlier.first is not None else later.first,
        last=later.last if later.last is not None else earlier.last,
        latencies=earlier.latencies + later.latencies,
    )


class Bench:
    """A database, a virtual host and the deliverers of one measurement."""

    def __init__(self, stack: Stack, connection: psycopg.Connection[Any]) -> None:
        self.stack = stack
        self.sql = connection
        self._keys = SecretSettings(secret_keys=stack.environment["SECRET_KEYS"]).key_ring

    @classmethod
    @contextmanager
    def on(cls, stack: Stack) -> Iterator["Bench"]:
        """Use a stack of its own, whose database is empty."""
        stack.migrate()
        url = make_url(stack.environment["DATABASE_URL"]).set(drivername="postgresql")
        with psycopg.connect(
            url.render_as_string(hide_password=False), autocommit=True
        ) as connection:
            yield cls(stack, connection)

    def add_tenant(self) -> TenantId:
        tenant_id = TenantId(uuid4())
        self.sql.execute(
            "INSERT INTO tenants (id, name) VALUES (%s, %s)", (tenant_id, str(tenant_id))
        )
        return tenant_id

    def add_endpoints(
        self, tenant_id: TenantId, urls: Sequence[str], *, ordered: bool = False
    ) -> list[str]:
        """Add an endpoint for each URL; return their ids."""
        ids = []
        for url in urls:
            webhook_id = WebhookId(uuid4())
            secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
            encrypted = webhook_secrets.encrypt(secret, webhook_id=webhook_id, keys=self._keys)
            self.sql.execute(
                "INSERT INTO webhooks (id, tenant_id, url, ordered) VALUES (%s, %s, %s, %s)",
                (webhook_id, tenant_id, url, ordered),
            )
            self.sql.execute(
                "INSERT INTO webhook_secrets (id, webhook_id, scheme, secret)"
                " VALUES (%s, %s, 'v1', %s)",
                (uuid4(), webhook_id, encrypted),
            )
            ids.append(str(webhook_id))
        return ids

    def add_due_to(self, tenant_id: TenantId, *, webhook: str, count: int) -> None:
        """Add one event many times: deliveries that are due to one endpoint, by SQL."""
        self.sql.execute(
            """
            WITH ids AS (
                SELECT (left(waybill_first_uuid7(now())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS id
                FROM generate_series(1, %(count)s)
            ), added AS (
                INSERT INTO events (id, tenant_id, type, subject, body)
                SELECT id, %(tenant_id)s, 'upload.stored', 'many', %(body)s FROM ids
            )
            INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, status, next_attempt_at)
            SELECT waybill_delivery_id(id, %(webhook)s), %(tenant_id)s, %(webhook)s, id, 'upload.stored', 'pending', now()
            FROM ids
            """,
            {
                "count": count,
                "tenant_id": tenant_id,
                "webhook": webhook,
                "body": encode(an_event(tenant_id)),
            },
        )
        self.sql.execute("ANALYZE deliveries, events")
        self.sql.execute(
            "UPDATE delivery_queues SET due_at = now() WHERE webhook_id = %s", (webhook,)
        )

    def start(self, *names: str) -> list[int]:
        """Start deliverers; return their pids once they are ready."""
        for name in names:
            if name in self.stack.processes:
                self.stack.processes[name].start()
        self.stack.start_services(*names)
        pids = [self.stack.processes[name].pid for name in names]
        return [pid for pid in pids if pid is not None]

    def stop(self) -> None:
        for name in DELIVERERS:
            if name in self.stack.processes and self.stack.processes[name].pid is not None:
                self.stack.processes[name].stop()

    def counts(self) -> dict[DeliveryStatus, int]:
        rows = self.sql.execute("SELECT status, count(*) FROM deliveries GROUP BY status")
        return {DeliveryStatus(status): count for status, count in rows.fetchall()}


def an_event(tenant_id: TenantId, *, now: datetime | None = None) -> Envelope:
    """Return an event of a file that was stored now."""
    now = now or datetime.now(UTC)
    upload_id = UploadId(uuid4())
    return Envelope(
        id=EventId(uuid7(now)),
        source="/waybill/bench",
        subject=str(upload_id),
        time=now,
        tenantid=tenant_id,
        data=StoredEvent(
            upload_id=upload_id,
            job_id=JobId(uuid4()),
            document_id=DocumentId(uuid4()),
            filename="invoice-2026-0001.pdf",
            size=3_912_345,
            sha256="ab" * 32,
            content_type="application/pdf",
            object_key=f"uploads/{tenant_id}/{upload_id}",
            will_be_read=False,
        ),
    )


class Publisher:
    """Publishes events as the relay does, from one thread."""

    def __init__(self, rabbitmq_url: str) -> None:
        self._url = rabbitmq_url

    def at_once(self, events: Sequence[Envelope]) -> None:
        """Publish as fast as possible, with confirms."""
        asyncio.run(self._publish(events))

    def paced(
        self,
        make: Callable[[], Sequence[Envelope]],
        *,
        rate: float,
        lasting: timedelta,
    ) -> int:
        """Call `make` and publish its events `rate` times a second; return how often."""
        return asyncio.run(self._paced(make, rate=rate, lasting=lasting))

    async def _publish(self, events: Sequence[Envelope]) -> None:
        async with _Channel(self._url) as channel:
            for first in range(0, len(events), 500):
                await asyncio.gather(
                    *(channel.publish(event) for event in events[first : first + 500])
                )

    async def _paced(
        self, make: Callable[[], Sequence[Envelope]], *, rate: float, lasting: timedelta
    ) -> int:
        loop, count = asyncio.get_running_loop(), 0
        async with _Channel(self._url) as channel:
            began = loop.time()
            sent: list[asyncio.Task[None]] = []
            while (due := count / rate) < lasting.total_seconds():
                await asyncio.sleep(max(began + due - loop.time(), 0))
                sent += [asyncio.create_task(channel.publish(event)) for event in make()]
                count += 1
            await asyncio.gather(*sent)
        return count


class _Channel:
    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        self._connection = await aiormq.connect(self._url)
        self._channel = await self._connection.channel(publisher_confirms=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def publish(self, event: Envelope) -> None:
        await self._channel.basic_publish(
            encode(event),
            exchange=topology.EVENTS.name,
            routing_key=event.type,
            properties=aiormq.spec.Basic.Properties(
                delivery_mode=2,
                content_type="application/cloudevents+json",
                message_id=str(event.id),
            ),
        )
