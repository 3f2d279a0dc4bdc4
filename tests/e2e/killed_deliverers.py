"""Events that are delivered while deliverers, the relay, the broker and the database are killed."""

import base64
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID, uuid4

import standardwebhooks
from sqlalchemy import Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from dev.client import Client
from dev.stack.stack import Stack
from schemas.events.documents import IngestedEvent
from schemas.events.uploads import StoredEvent, UploadCancelled
from schemas.ids import DocumentId, JobId, TenantId, UploadId
from schemas.lifecycle import DeliveryStatus
from schemas.tables.deliveries import Delivery
from schemas.tables.events import emit
from tests.e2e.files import retrying
from tests.eventually import eventually
from tests.fakes import replies
from tests.fakes.receiver import Received, Receiver
from tests.killable import Killable

SERVICES: Final = ("gateway", "relay", "deliver")
SETTINGS: Final = {
    # Failures are retried soon, and often enough that no delivery is exhausted.
    "WEBHOOK_RETRY_DELAYS": ",".join(["1s"] * 60),
    "WEBHOOK_TIMEOUT": "5s",
}
EVENTS_OF_AN_UPLOAD: Final = 3
DELIVERED_WITHIN: Final = timedelta(minutes=3)
SOURCE: Final = "/tests"
NOTICED_WITHIN: Final = timedelta(seconds=2)
"""From a rotation to its first signature, on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """An endpoint and its receiver."""

    name: str
    receiver: Receiver
    webhook_id: str
    secret: str


def assert_events_survive_kills(
    system: Stack,
    infrastructure: Mapping[str, Killable],
    *,
    tenant: str,
    lasting: timedelta,
    rate: float,
    kill_every: timedelta,
    seed: int,
) -> None:
    """Emit events while processes are killed; every endpoint gets every event, and the ledger is even."""
    random = Random(seed)
    key = system.create_api_key(tenant=tenant)
    engine = create_engine(system.environment["DATABASE_URL"], pool_pre_ping=True)
    with ExitStack() as end, Client(system.url, api_key=key) as client:
        end.callback(engine.dispose)
        targets = [
            _target(end, client, name="good", answers=[replies.status(204)]),
            _target(end, client, name="ordered", ordered=True, answers=[replies.status(204)]),
            _target(
                end,
                client,
                name="failing, ordered",
                ordered=True,
                # No 503: each one pauses the endpoint for seconds, which is tested elsewhere.
                answers=[replies.status(code) for code in (500, 204, 204)] * 400,
            ),
            _target(
                end,
                client,
                name="breaking",
                answers=[replies.hang_up(), replies.status(204), replies.status(204)] * 300,
            ),
        ]
        tenant_id = _tenant(engine, tenant)
        ended = threading.Event()
        uploads: dict[UploadId, list[str]] = {}
        emitting = threading.Thread(
            target=_emit_all,
            args=(engine, tenant_id),
            kwargs={"rate": rate, "ended": ended, "into": uploads},
        )
        emitting.start()
        try:
            killed = _kill(system, infrastructure, lasting=lasting, every=kill_every, random=random)
        finally:
            ended.set()
            emitting.join()
        expected = {event for events in uploads.values() for event in events}
        assert killed
        assert expected
        for target in targets:
            _assert_all_received(target, uploads=uploads, expected=expected)
        _assert_ledger_is_even(engine, client, events=len(expected), endpoints=len(targets))


def _target(
    end: ExitStack,
    client: Client,
    *,
    name: str,
    answers: Sequence[replies.Reply],
    ordered: bool = False,
) -> Target:
    receiver = end.enter_context(Receiver())
    receiver.answer_with(*answers)
    for attempt in retrying():
        with attempt:
            created = client.http.post(
                "/webhooks", json={"url": receiver.url, "ordered": ordered, "description": name}
            )
            created.raise_for_status()
    return Target(
        name=name,
        receiver=receiver,
        webhook_id=created.json()["webhook_id"],
        secret=created.json()["secret"],
    )


def _tenant(engine: Engine, name: str) -> TenantId:
    with engine.connect() as connection:
        found: UUID = connection.execute(
            text("SELECT id FROM tenants WHERE name = :name"), {"name": name}
        ).scalar_one()
    return TenantId(found)


def _emit_all(
    engine: Engine,
    tenant_id: TenantId,
    *,
    rate: float,
    ended: threading.Event,
    into: dict[UploadId, list[str]],
) -> None:
    """Emit the events of one upload after the other; each event in a transaction of its own."""
    while not ended.wait(EVENTS_OF_AN_UPLOAD / rate):
        upload_id, job_id = UploadId(uuid4()), JobId(uuid4())
        document_id = DocumentId(uuid4())
        into[upload_id] = []
        for data in (
            StoredEvent(
                upload_id=upload_id,
                job_id=job_id,
                document_id=document_id,
                filename="a.pdf",
                size=1,
                sha256="ab" * 32,
                content_type="application/pdf",
                object_key="key",
                will_be_read=True,
            ),
            IngestedEvent(
                document_id=document_id,
                upload_id=upload_id,
                job_id=job_id,
                filename="a.pdf",
                sha256="ab" * 32,
                pages=1,
                passages=1,
                entities=0,
            ),
            UploadCancelled(upload_id=upload_id, filename="a.pdf", job_id=job_id),
        ):
            while (event_id := _emitted(engine, tenant_id, data)) is None:
                # The database was killed; this event was perhaps committed, but its id is unknown,
                # so the next one stands for it only if it was not.
                if ended.wait(0.2):
                    return
            into[upload_id].append(event_id)


def _emitted(
    engine: Engine, tenant_id: TenantId, data: StoredEvent | IngestedEvent | UploadCancelled
) -> str | None:
    """Emit one event; return its id, or None if the database did not commit it."""
    try:
        with Session(engine) as session, session.begin():
            return str(
                emit(session, data, tenant_id=tenant_id, source=SOURCE, now=datetime.now(UTC))
            )
    except DBAPIError:
        return None


def _kill(
    system: Stack,
    infrastructure: Mapping[str, Killable],
    *,
    lasting: timedelta,
    every: timedelta,
    random: Random,
) -> Counter[str]:
    """Kill one process after the other, and return how often each was killed."""
    victims: dict[str, Killable] = {
        name: system.processes[name] for name in ("deliver", "relay")
    } | {name: infrastructure[name] for name in ("rabbitmq", "postgres") if name in infrastructure}
    killed: Counter[str] = Counter()
    deadline = time.monotonic() + lasting.total_seconds()
    pause = threading.Event()
    order: list[str] = []
    while time.monotonic() < deadline:
        pause.wait(every.total_seconds() * random.uniform(0.5, 1.5))
        if not order:
            order = random.sample(sorted(victims), k=len(victims))
        name = order.pop()
        victims[name].kill()
        killed[name] += 1
    return killed


def _assert_all_received(
    target: Target, *, uploads: Mapping[UploadId, Sequence[str]], expected: set[str]
) -> None:
    eventually(
        lambda: expected - {request.headers["webhook-id"] for request in target.receiver.received},
        until=lambda missing: not missing,
        within=DELIVERED_WITHIN,
    )
    received = target.receiver.received
    webhook = standardwebhooks.Webhook(target.secret)
    bodies = defaultdict(set)
    for request in received:
        _assert_signed(request, webhook)
        bodies[request.headers["webhook-id"]].add(request.body)
    # A repetition has the id and the bytes of the first delivery.
    assert {len(each) for each in bodies.values()} == {1}, target.name
    if "ordered" in target.name:
        assert not _reversed(received, uploads=uploads), target.name


def _assert_signed(request: Received, webhook: standardwebhooks.Webhook) -> None:
    """Not `verify`: it refuses what was sent five minutes ago, and the kills may last longer."""
    headers = request.headers
    sent_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    expected = webhook.sign(headers["webhook-id"], sent_at, request.body.decode())
    assert expected in headers["webhook-signature"].split()


def _reversed(
    received: Sequence[Received], *, uploads: Mapping[UploadId, Sequence[str]]
) -> list[UploadId]:
    """Return the uploads whose events arrived for the first time in another order than they happened."""
    first: dict[str, int] = {}
    for number, request in enumerate(received):
        first.setdefault(request.headers["webhook-id"], number)
    return [
        upload_id
        for upload_id, events in uploads.items()
        if [first[event] for event in events] != sorted(first[event] for event in events)
    ]


def _assert_ledger_is_even(engine: Engine, client: Client, *, events: int, endpoints: int) -> None:
    def counts() -> dict[DeliveryStatus, int]:
        with Session(engine) as session:
            rows = session.execute(
                select(Delivery.status, func.count().label("number")).group_by(Delivery.status)
            )
            return {row.status: row.number for row in rows.all()}

    # An event that was committed although the connection broke has deliveries too.
    settled = eventually(
        counts,
        until=lambda found: set(found) == {DeliveryStatus.DELIVERED},
        within=DELIVERED_WITHIN,
    )
    assert settled[DeliveryStatus.DELIVERED] >= events * endpoints
    ledger = client.http.get("/webhooks/ledger").raise_for_status().json()
    assert ledger["difference"] == 0, ledger
    assert ledger["delivered"] == settled[DeliveryStatus.DELIVERED]


def assert_rotations_fail_no_verification(
    system: Stack,
    *,
    tenant: str,
    rotations: int,
    rate: float,
    every: timedelta,
    overlap: timedelta,
) -> None:
    """Rotate a secret under load; receivers that hold either secret verify every delivery.

    Args:
        system: delivers events.
        tenant: is created.
        rotations: after the first secret.
        rate: events per second.
        every: between two rotations.
        overlap: of each rotation. At most ten secrets sign, so it is less than ten times `every`,
            or there are fewer rotations.
    """
    key = system.create_api_key(tenant=tenant)
    engine = create_engine(system.environment["DATABASE_URL"])
    with ExitStack() as end, Client(system.url, api_key=key) as client:
        end.callback(engine.dispose)
        target = _target(end, client, name="rotated", answers=[replies.status(204)])
        tenant_id = _tenant(engine, tenant)
        ended = threading.Event()
        uploads: dict[UploadId, list[str]] = {}
        emitting = threading.Thread(
            target=_emit_all,
            args=(engine, tenant_id),
            kwargs={"rate": rate, "ended": ended, "into": uploads},
        )
        emitting.start()
        held: list[tuple[datetime, str]] = [(datetime.now(UTC), target.secret)]
        try:
            for _ in range(rotations):
                ended.wait(every.total_seconds())
                own = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
                client.http.post(
                    f"/webhooks/{target.webhook_id}/rotate-secret",
                    json={"secret": own, "overlap": overlap.total_seconds()},
                ).raise_for_status()
                held.append((datetime.now(UTC), own))
            ended.wait((NOTICED_WITHIN + 2 * every).total_seconds())
        finally:
            ended.set()
            emitting.join()
        expected = {event for events in uploads.values() for event in events}
        eventually(
            lambda: expected - {each.headers["webhook-id"] for each in target.receiver.received},
            until=lambda missing: not missing,
            within=DELIVERED_WITHIN,
        )
        for request in target.receiver.received:
            # A receiver holds the secret before the last rotation, or has taken the new one over. A
            # request that was signed before `deliver` had notice of a rotation has no signature of
            # the new secret, and it may arrive later.
            signed_at = request.signed_at
            noticed = [n for n, (at, _) in enumerate(held) if at + NOTICED_WITHIN < signed_at]
            newer = noticed[-1] if noticed else 0
            for number in {max(newer - 1, 0), newer}:
                request.verified_with(held[number][1])
