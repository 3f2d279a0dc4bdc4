"""`waybill dead-letters`."""

import getpass
import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from gateway.administration import dead_letters
from gateway.db import Database
from schemas import queues, topology
from schemas.events.envelope import Envelope, encode
from schemas.events.uploads import UploadFinalized
from schemas.ids import EventId, JobId, TenantId, UploadId
from schemas.lifecycle import DeadLetterState
from schemas.settings import DatabaseSettings
from schemas.tables.audit import AuditEntry
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from tests.integration.gateway.api import BeginSession
from tests.integration.gateway.process import run_command

pytestmark = pytest.mark.anyio

RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR = "somebody@somewhere"


def an_event() -> Envelope:
    upload_id = UploadId(uuid4())
    return Envelope(
        id=EventId(uuid4()),
        source="/tests",
        subject=str(upload_id),
        time=RECEIVED,
        tenantid=TenantId(uuid4()),
        data=UploadFinalized(upload_id=upload_id, job_id=JobId(uuid4()), filename="a.pdf", size=1),
    )


class Waybill(Protocol):
    """Runs `waybill dead-letters …`, which must succeed, and returns its output."""

    async def __call__(self, *arguments: str) -> str: ...


@pytest.fixture
def waybill(database: DatabaseSettings) -> Waybill:
    async def run(*arguments: str) -> str:
        url = database.database_url.get_secret_value()
        code, out, err = await run_command("dead-letters", *arguments, DATABASE_URL=url)
        assert code == 0, err
        return out

    return run


class Add(Protocol):
    """Adds a waiting dead letter; later ones are newer. Returns its id."""

    async def __call__(
        self, body: bytes | Envelope = b"{}", /, *, queue: str = queues.UPLOADS, **columns: object
    ) -> int: ...


@pytest.fixture
def add(transaction: BeginSession) -> Add:
    added: list[DeadLetter] = []

    async def insert(
        body: bytes | Envelope = b"{}", /, *, queue: str = queues.UPLOADS, **columns: object
    ) -> int:
        facts: dict[str, object] = {
            "queue": queue,
            "fingerprint": uuid4().bytes,
            "body": body,
            "headers": {},
            "reason": "rejected",
            "deaths": 1,
            "received_at": RECEIVED + timedelta(minutes=len(added)),
        }
        if isinstance(body, Envelope):
            facts |= {
                "body": encode(body),
                "event_id": body.id,
                "event_type": body.type,
                "tenant_id": body.tenantid,
                "job_id": body.job_id,
            }
        letter = DeadLetter(**facts | columns)
        async with transaction() as session:
            session.add(letter)
        added.append(letter)
        return letter.id

    return insert


async def states(transaction: BeginSession) -> Sequence[DeadLetterState]:
    """Return the states of all dead letters, oldest first."""
    async with transaction() as session:
        return (await session.scalars(select(DeadLetter.state).order_by(DeadLetter.id))).all()


async def audited(transaction: BeginSession) -> list[tuple[str, str]]:
    """Return action and target of every act on dead letters, oldest first."""
    async with transaction() as session:
        rows = await session.execute(
            select(AuditEntry.action, AuditEntry.target)
            .where(AuditEntry.target.startswith("dead_letter/"))
            .order_by(AuditEntry.id)
        )
        return [(action, target) for action, target in rows]


async def outbox(transaction: BeginSession) -> list[tuple[UUID, str | None]]:
    async with transaction() as session:
        rows = await session.execute(
            select(OutboxMessage.event_id, OutboxMessage.queue).order_by(OutboxMessage.id)
        )
        return [(event_id, queue) for event_id, queue in rows]


async def test_without_dead_letters_every_command_succeeds(waybill: Waybill) -> None:
    assert len((await waybill("list")).splitlines()) == 1
    assert await waybill("list", "--json") == "[]\n"
    assert await waybill("replay", "--queue", "uploads", "--all") == "replayed: 0\n"
    assert await waybill("drop", "--queue", "uploads", "--all") == "dropped: 0\n"


async def test_the_list_shows_waiting_dead_letters_newest_first(waybill: Waybill, add: Add) -> None:
    event = an_event()
    first = await add(b"malformed", queue=topology.UNROUTED.name, reason="unrouted", deaths=0)
    second = await add(event)
    await add(state="dropped", settled_at=RECEIVED)

    _, *lines = (await waybill("list")).splitlines()

    assert [line.split() for line in lines] == [
        [
            *(str(second), "2026-01-01T00:01:00Z", "uploads", "rejected"),
            *("1", "upload.finalized", str(event.tenantid), str(event.job_id)),
        ],
        [
            *(str(first), "2026-01-01T00:00:00Z", "waybill.unrouted", "unrouted"),
            *("-", "-", "-", "-"),
        ],
    ]


async def test_the_list_can_be_filtered_and_paged(waybill: Waybill, add: Add) -> None:
    async def ids(*arguments: str) -> list[int]:
        return [each["id"] for each in json.loads(await waybill("list", "--json", *arguments))]

    of_uploads = [await add(an_event()), await add()]
    of_notify = [await add(queue=queues.NOTIFY) for _ in range(3)]
    dropped = await add(state="dropped", settled_at=RECEIVED)

    assert await ids() == [*reversed(of_notify), *reversed(of_uploads)]
    assert await ids("--queue", "uploads") == of_uploads[::-1]
    assert await ids("--state", "dropped") == [dropped]
    assert await ids("--type", "upload.finalized") == of_uploads[:1]
    assert await ids("--limit", "2") == of_notify[:0:-1]
    assert await ids("--limit", "2", "--before", str(of_notify[1])) == [
        of_notify[0],
        of_uploads[1],
    ]


async def test_show_prints_headers_reason_and_body_without_secrets(
    waybill: Waybill, add: Add
) -> None:
    event = an_event()
    body = json.loads(encode(event)) | {"password": "hunter2"}
    letter_id = await add(
        event,
        body=json.dumps(body).encode(),
        message_id=str(event.id),
        headers={
            "x-death": [{"queue": "uploads", "reason": "rejected", "count": 1}],
            "authorization": "Bearer hunter2",
            "note": "https://user:hunter2@example.com/hook?key=hunter2 whsec_hunter2",
        },
    )

    shown: dict[str, Any] = json.loads(await waybill("show", str(letter_id), "--json"))
    text = await waybill("show", str(letter_id))

    assert (shown["queue"], shown["reason"], shown["state"]) == ("uploads", "rejected", "waiting")
    assert shown["message_id"] == str(event.id)
    assert shown["body"] == body | {"password": "***"}
    assert shown["headers"]["x-death"][0]["reason"] == "rejected"
    assert shown["headers"]["note"] == "https://***@example.com/hook?*** ***"
    assert "hunter2" not in json.dumps(shown)
    assert "reason: rejected" in text
    assert str(event.job_id) in text
    assert "hunter2" not in text


async def test_show_escapes_a_body_that_is_not_json(waybill: Waybill, add: Add) -> None:
    letter_id = await add(b"\xff\x1b[2Jcleared" + b"x" * 5000, reason="\x1b[2J")

    text = await waybill("show", str(letter_id))

    assert r"body_text: \xff\x1b[2Jcleared" in text
    assert "body_bytes: 5012" in text
    assert "\x1b" not in text
    assert len(text) < 3000
    letter_id = await add(rb'"\u001b[2J"')
    assert rb'body: "\u001b[2J"'.decode() in await waybill("show", str(letter_id))


async def test_a_replay_adds_the_event_and_its_message_for_the_original_queue(
    waybill: Waybill, add: Add, transaction: BeginSession
) -> None:
    event, unrouted = an_event(), an_event()
    ids = [await add(event), await add(unrouted, queue=topology.UNROUTED.name)]

    assert await waybill("replay", *map(str, ids)) == "replayed: 2\n"

    assert await outbox(transaction) == [(event.id, "uploads"), (unrouted.id, None)]
    assert await states(transaction) == ["replayed", "replayed"]
    async with transaction() as session:
        record = await session.get_one(EventRecord, event.id)
        entry = (await session.scalars(select(AuditEntry).order_by(AuditEntry.id))).first()
        letter = await session.get_one(DeadLetter, ids[0])
    assert (record.type, record.tenant_id, record.subject) == (
        event.type,
        event.tenantid,
        event.subject,
    )
    assert (record.upload_id, record.job_id) == (event.upload_id, event.job_id)
    assert record.body == encode(event)
    assert letter.settled_at is not None
    assert entry is not None
    assert entry.actor == f"{getpass.getuser()}@{socket.gethostname()}"
    assert (entry.action, entry.target) == ("dead_letter.replayed", f"dead_letter/{ids[0]}")
    assert entry.detail == {
        "queue": "uploads",
        "event_id": str(event.id),
        "event_type": "upload.finalized",
    }


async def test_a_replay_keeps_a_recorded_event(add: Add, transaction: BeginSession) -> None:
    event = an_event()
    for _ in range(2):
        letter_id = await add(event)
        async with transaction() as session:
            await dead_letters.replay(session, [letter_id], actor=ACTOR)
    async with transaction() as session:
        assert await session.scalar(select(func.count()).select_from(EventRecord)) == 1
    assert await outbox(transaction) == [(event.id, "uploads")] * 2


@pytest.mark.parametrize("command", ["replay", "drop"])
async def test_a_settled_or_unknown_dead_letter_is_refused_and_nothing_changes(
    command: str, add: Add, transaction: BeginSession, database: DatabaseSettings
) -> None:
    url = database.database_url.get_secret_value()
    waiting = await add(an_event())
    settled = await add(an_event(), state="dropped", settled_at=RECEIVED)
    for letter_id, reason in ((settled, "was dropped at 2026-01-01"), (77, "no dead letter 77")):
        code, out, err = await run_command(
            *("dead-letters", command, str(waiting), str(letter_id)), DATABASE_URL=url
        )
        assert (code, out) == (1, "")
        assert reason in err
    assert await states(transaction) == ["waiting", "dropped"]
    assert await outbox(transaction) == []
    assert await audited(transaction) == []


@pytest.mark.parametrize(
    ("body", "queue", "reason"),
    [
        (b"\x1b[2J", "uploads", "malformed event"),
        (an_event(), "removed_queue", "the queue removed_queue does not exist any more"),
    ],
)
async def test_what_cannot_be_published_is_not_replayed(
    *, body: bytes | Envelope, queue: str, reason: str, add: Add, transaction: BeginSession
) -> None:
    ids = [await add(an_event()), await add(body, queue=queue)]
    with pytest.raises(dead_letters.CannotReplay, match=reason):
        async with transaction() as session:
            await dead_letters.replay(session, ids, actor=ACTOR)
    assert await states(transaction) == ["waiting", "waiting"]
    assert await outbox(transaction) == []


async def test_all_events_of_a_queue_are_replayed_and_the_rest_keeps_waiting(
    waybill: Waybill, add: Add, transaction: BeginSession
) -> None:
    events = [an_event(), an_event()]
    first = await add(events[0])
    malformed = await add(b"malformed")
    second = await add(events[1])
    await add(an_event(), queue=queues.NOTIFY)

    answer = json.loads(await waybill("replay", "--queue", "uploads", "--all", "--json"))

    assert answer["replayed"] == 2
    (reason,) = answer["refused"]
    assert f"dead letter {malformed} cannot be replayed: malformed event" in reason
    assert await states(transaction) == ["replayed", "waiting", "replayed", "waiting"]
    assert await outbox(transaction) == [(event.id, "uploads") for event in events]
    assert await audited(transaction) == [
        ("dead_letter.replayed", f"dead_letter/{each}") for each in (first, second)
    ]


async def test_more_dead_letters_than_one_batch_are_all_dropped(
    gateway_database: Database, transaction: BeginSession
) -> None:
    count = dead_letters.BATCH + 1
    async with transaction() as session:
        session.add_all(
            DeadLetter(
                queue="uploads",
                fingerprint=uuid4().bytes,
                body=b"",
                headers={},
                reason="rejected",
                deaths=1,
            )
            for _ in range(count)
        )
    settled = await dead_letters.drop_all(gateway_database, queue="uploads", actor=ACTOR)
    assert settled == dead_letters.Settled(count=count)
    assert set(await states(transaction)) == {DeadLetterState.DROPPED}
    assert len(await audited(transaction)) == count


async def test_dropped_dead_letters_are_kept_and_audited(
    waybill: Waybill, add: Add, transaction: BeginSession
) -> None:
    ids = [await add(b"malformed"), await add(an_event())]
    await add()

    assert await waybill("drop", *map(str, ids)) == "dropped: 2\n"

    assert await states(transaction) == ["dropped", "dropped", "waiting"]
    assert await outbox(transaction) == []
    assert await audited(transaction) == [
        ("dead_letter.dropped", f"dead_letter/{each}") for each in ids
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("1", "--all"),
        ("1", "--queue", "uploads"),
        ("--all",),
        ("--queue", "uploads"),
        ("1", "--queue", "uploads", "--all"),
    ],
    ids=" ".join,
)
async def test_ids_and_a_whole_queue_exclude_each_other(
    wrong: tuple[str, ...], database: DatabaseSettings
) -> None:
    url = database.database_url.get_secret_value()
    code, _, err = await run_command("dead-letters", "drop", *wrong, DATABASE_URL=url)
    assert code == 2
    assert "give either ids, or --queue with --all" in err
