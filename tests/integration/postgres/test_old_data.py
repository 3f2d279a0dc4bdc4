"""The migration to steps and events keeps every row of the earlier version, in both directions."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row

from dev.stack.stack import Stack
from pipeline.transfer.claim import decode_checkpoint
from pipeline.transfer.resume import Checkpoint
from schemas.events import envelope
from schemas.events.documents import DocumentEvent
from schemas.events.uploads import UploadEvent, UploadFinalized
from tests.factories.old_rows import REVISION, OldEvent, OldJob, OldRows
from tests.stack import fresh_name

Columns = dict[str, Any]
Snapshot = dict[str, list[Columns]]

CONTENT: Final = bytes(range(200)) * 3
SIZE: Final = len(CONTENT)
DIGEST_STATE: Final = bytes(range(192))
REFUSED: Final[Columns] = {
    "error_code": "staging_corrupt",
    "error_detail": "chunk 0",
    "error_retryable": False,
}
OPEN_STEPS: Final = {"queued", "running"}


@dataclass
class OldData:
    """What was put into the old database, by name."""

    now: datetime
    jobs: dict[str, OldJob] = field(default_factory=dict)
    events: dict[str, OldEvent] = field(default_factory=dict)
    before: Snapshot = field(default_factory=dict)
    after: Snapshot = field(default_factory=dict)

    def steps(self) -> dict[str, dict[str, Any]]:
        """Return the steps by the name of their job and their own."""
        names = {str(job.id): name for name, job in self.jobs.items()}
        return {f"{names[step['job_id']]}/{step['name']}": step for step in self.after["steps"]}

    def ago(self, **duration: float) -> str:
        return (self.now - timedelta(**duration)).isoformat()


def fill(rows: OldRows, data: OldData) -> None:
    tenant, other = rows.add_tenant("harbour"), rows.add_tenant("quay")
    half_sent = rows.add_upload(tenant, CONTENT, status="open")
    rows.insert(
        "api_keys",
        id=uuid4(),
        tenant_id=tenant,
        key_hash=hashlib.sha256(b"wb_old").digest(),
        scopes=["uploads:read"],
    )
    rows.insert(
        "idempotent_requests",
        tenant_id=tenant,
        key="k-1",
        operation="create-upload",
        request_hash=bytes(32),
        resource_id=half_sent.id,
    )
    data.events["cancelled without job"] = rows.add_cancelled(
        rows.add_upload(tenant, CONTENT, status="cancelled"), published_at=None
    )
    fill_transfers(rows, data, tenant=tenant, other=other)
    fill_readings(rows, data, tenant=tenant, other=other)
    fill_cancelled(rows, data, tenant=tenant)
    fill_deliveries(rows, data, tenant=tenant)


def fill_transfers(rows: OldRows, data: OldData, *, tenant: UUID, other: UUID) -> None:
    jobs, events, long_ago = data.jobs, data.events, rows.ago(days=8)
    jobs["unpublished"] = rows.add_job(rows.add_upload(tenant, CONTENT, filename="schön.pdf"))
    events["unpublished"] = rows.add_finalized(
        jobs["unpublished"], published_at=None, traceparent="00-trace-01"
    )
    jobs["published"] = rows.add_job(rows.add_upload(other, CONTENT))
    events["published"] = rows.add_finalized(jobs["published"])
    jobs["lost"] = rows.add_job(rows.add_upload(tenant, CONTENT), created_at=long_ago)
    reference: Columns = {"staging": "reference", "source_key": f"incoming/{tenant}/a.pdf"}
    jobs["reference"] = rows.add_job(rows.add_upload(tenant, **reference))
    events["reference"] = rows.add_finalized(jobs["reference"], is_reference=True)
    jobs["lost reference"] = rows.add_job(rows.add_upload(tenant, **reference), created_at=long_ago)
    jobs["running"] = rows.add_job(
        rows.add_upload(tenant, CONTENT),
        lease_owner="worker-1",
        lease_until=rows.now + timedelta(minutes=5),
        bytes_at_claim=100,
        **running(rows),
    )
    jobs["lease expired"] = rows.add_job(
        rows.add_upload(tenant, CONTENT),
        lease_owner="worker-2",
        lease_until=rows.ago(minutes=5),
        multipart_id="multipart-1",
        digested_bytes=256,
        digest_state=DIGEST_STATE,
        **running(rows),
    )
    jobs["lease returned"] = rows.add_job(
        rows.add_upload(tenant, CONTENT), multipart_id="multipart-2", **running(rows)
    )
    jobs["failed"] = rows.add_job(
        rows.add_upload(tenant, CONTENT, status="failed"),
        **running(rows) | failed(rows),
    )
    for name in ("running", "lease expired", "lease returned", "failed"):
        events[name] = rows.add_finalized(jobs[name])


def fill_readings(rows: OldRows, data: OldData, *, tenant: UUID, other: UUID) -> None:
    jobs, events = data.jobs, data.events
    outbox_rows: dict[str, Columns] = {
        "to read, unpublished": {"published_at": None},
        "to read": {},
        "to read, lost": {"in_outbox": False},
    }
    for name, row in outbox_rows.items():
        jobs[name] = rows.add_job(
            rows.add_upload(tenant, CONTENT, status="stored"), document={}, **reading(rows)
        )
        events[name] = rows.add_stored(jobs[name], **row)
    jobs["half read"] = rows.add_job(
        rows.add_upload(other, CONTENT, status="stored"),
        document={},
        **reading(rows) | {"pages_done": 3, "pages_total": 10},
    )
    events["half read"] = rows.add_stored(jobs["half read"])
    jobs["not read"] = rows.add_job(
        rows.add_upload(tenant, CONTENT, status="stored"), document={}, **completed(rows)
    )
    events["not read"] = rows.add_stored(jobs["not read"], will_be_read=False)
    jobs["read"] = rows.add_job(
        rows.add_upload(tenant, CONTENT, status="stored"),
        document={"status": "ingested"},
        **completed(rows) | {"pages_done": 10, "pages_total": 10},
    )
    events["read"] = rows.add_stored(jobs["read"], in_outbox=False)
    jobs["unreadable"] = rows.add_job(
        rows.add_upload(tenant, CONTENT, status="stored"),
        document={"status": "failed"},
        **reading(rows) | failed(rows),
    )


def fill_cancelled(rows: OldRows, data: OldData, *, tenant: UUID) -> None:
    jobs = data.jobs
    cancelled: Columns = {
        "status": "cancelled",
        "result": None,
        "finished_at": rows.ago(minutes=30),
    }
    three_days_ago = cancelled | {"finished_at": rows.ago(days=3)}
    read = {"pages_done": 10, "pages_total": 10}
    cases: dict[str, tuple[Columns, Columns]] = {
        "cancelled before": (cancelled, {"published_at": None}),
        "cancelled during": (
            running(rows)
            | cancelled
            | {
                "lease_owner": "worker-3",
                "lease_until": rows.now + timedelta(minutes=5),
                "multipart_id": "multipart-3",
            },
            {},
        ),
        "purged": (completed(rows) | read | cancelled, {"in_outbox": False}),
        "purged while read": (reading(rows) | cancelled, {}),
        "cancelled long ago": (three_days_ago, {"in_outbox": False}),
        "cancelled while the broker was down": (three_days_ago, {"published_at": None}),
    }
    for name, (columns, outbox_row) in cases.items():
        jobs[name] = rows.add_job(rows.add_upload(tenant, CONTENT, status="cancelled"), **columns)
        data.events[name] = rows.add_cancelled(
            jobs[name].upload, job_id=jobs[name].id, **outbox_row
        )
    rows.add_finalized(jobs["cancelled before"], published_at=None)


def fill_deliveries(rows: OldRows, data: OldData, *, tenant: UUID) -> None:
    events, read = data.events, data.jobs["read"]
    hook, second_hook = rows.add_webhook(tenant), rows.add_webhook(tenant)
    rows.add_delivery(events["to read"], hook)
    rows.add_delivery(events["to read, lost"], hook)
    rows.add_delivery(events["to read, lost"], second_hook, created_at=rows.ago(minutes=56))
    delivered = rows.add_delivery(events["not read"], hook, status="delivered", attempts_made=1)
    rows.add_attempt(delivered, outcome="delivered", status_code=204)
    ingested = rows.add_event(
        "document.ingested",
        read.upload,
        job_id=read.id,
        subject=read.document_id,
        data={
            "document_id": str(read.document_id),
            "sha256": "0" * 64,
            "pages": 10,
            "passages": 40,
            "entities": 4,
        },
        in_outbox=False,
    )
    exhausted = rows.add_delivery(ingested, hook, status="exhausted", attempts_made=1)
    rows.add_attempt(exhausted, outcome="rejected", status_code=500)
    rows.add_delivery(events["cancelled long ago"], hook, status="discarded")
    for consumer, name in (("transfer", "not read"), ("ingest", "to read"), ("notify", "to read")):
        rows.insert("inbox", consumer=consumer, event_id=events[name].id)


def running(rows: OldRows) -> Columns:
    return {
        "status": "processing",
        "started_at": rows.ago(minutes=50),
        "bytes_done": 300,
        "revision": 4,
    }


def reading(rows: OldRows) -> Columns:
    return {
        "status": "processing",
        "stage": "ingest",
        "bytes_done": SIZE,
        "digested_bytes": SIZE,
        "started_at": rows.ago(minutes=50),
        "stored_at": rows.ago(minutes=40),
        "result": {"size": SIZE},
    }


def completed(rows: OldRows) -> Columns:
    return reading(rows) | {
        "status": "completed",
        "stage": "done",
        "finished_at": rows.ago(minutes=30),
    }


def failed(rows: OldRows) -> Columns:
    return REFUSED | {"status": "failed", "finished_at": rows.ago(minutes=30)}


TABLES: Final = {
    "api_keys": "id",
    "attempts": "delivery_id, number",
    "chunks": "upload_id, index",
    "deliveries": "event_id, webhook_id",
    "delivery_queues": "webhook_id",
    "documents": "id",
    "events": "position, id",
    "idempotent_requests": "key",
    "inbox": "consumer, event_id",
    "jobs": "id",
    "outbox": "id",
    "steps": "job_id, ordinal",
    "tenant_steps": "tenant_id, name",
    "tenant_usage": "tenant_id",
    "tenants": "id",
    "uploads": "id",
    "webhook_secrets": "webhook_id",
    "webhooks": "id",
}

REPLACED: Final = {"deliveries": {"id", "body", "leased_until"}, "webhooks": {"secret"}}
"""Columns that later migrations replace: a delivery has another id, its body is that of its event."""


def snapshot(connection: psycopg.Connection) -> Snapshot:
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(
            "SELECT to_regclass(name) IS NOT NULL AS is_there, name FROM unnest(%s::text[]) AS name",
            [list(TABLES)],
        )
        existing = [row["name"] for row in found if row["is_there"]]
        connection.execute("SET TIME ZONE 'UTC'")
        return {
            table: [
                row["row"]
                for row in cursor.execute(
                    f"SELECT to_jsonb({table}) AS row FROM {table} ORDER BY {TABLES[table]}"  # noqa: S608  # names above
                )
            ]
            for table in existing
        }


def connect(settings: Mapping[str, str]) -> psycopg.Connection:
    url = urlsplit(settings["DATABASE_URL"])._replace(scheme="postgresql")
    return psycopg.connect(url.geturl(), autocommit=True)


@pytest.fixture(scope="module")
def database_url(infrastructure: Stack) -> Iterator[dict[str, str]]:
    name = fresh_name()
    yield infrastructure.create_database(name)
    infrastructure.drop_database(name)


@pytest.fixture(scope="module")
def data(infrastructure: Stack, database_url: dict[str, str]) -> OldData:
    """The old database, before and after the migration."""
    infrastructure.run(("alembic", "upgrade", REVISION), settings=database_url)
    with OldRows.of(database_url["DATABASE_URL"]) as rows:
        data = OldData(now=rows.now)
        fill(rows, data)
    with connect(database_url) as connection:
        data.before = snapshot(connection)
    infrastructure.run(("alembic", "upgrade", "head"), settings=database_url)
    with connect(database_url) as connection:
        data.after = snapshot(connection)
    return data


STEP_COLUMNS: Final = (
    "status",
    "done",
    "total",
    "unit",
    "done_at_claim",
    "started_at",
    "finished_at",
)
BYTES: Final = "bytes"
PAGES: Final = "pages"


def test_the_columns_of_a_job_become_its_steps(data: OldData) -> None:
    queued_at, started, stored, ended = (data.ago(minutes=minutes) for minutes in (60, 50, 40, 30))
    waits = ("queued", 0, SIZE, BYTES, 0, None, None)
    is_stored = ("completed", SIZE, SIZE, BYTES, 0, started, stored)
    assert {
        name: tuple(step[column] for column in STEP_COLUMNS) for name, step in data.steps().items()
    } == {
        "unpublished/transfer": waits,
        "published/transfer": waits,
        "lost/transfer": waits,
        "reference/transfer": ("queued", 0, 0, BYTES, 0, None, None),
        "lost reference/transfer": ("queued", 0, 0, BYTES, 0, None, None),
        "running/transfer": ("running", 300, SIZE, BYTES, 100, started, None),
        "lease expired/transfer": ("running", 300, SIZE, BYTES, 0, started, None),
        "lease returned/transfer": ("queued", 300, SIZE, BYTES, 0, started, None),
        "failed/transfer": ("failed", 300, SIZE, BYTES, 0, started, ended),
        "to read, unpublished/transfer": is_stored,
        "to read, unpublished/ingest": ("queued", 0, None, PAGES, 0, None, None),
        "to read/transfer": is_stored,
        "to read/ingest": ("queued", 0, None, PAGES, 0, None, None),
        "to read, lost/transfer": is_stored,
        "to read, lost/ingest": ("queued", 0, None, PAGES, 0, None, None),
        "half read/transfer": is_stored,
        # Its three pages were read in a transaction that did not commit.
        "half read/ingest": ("queued", 0, 10, PAGES, 0, stored, None),
        "not read/transfer": is_stored,
        "read/transfer": is_stored,
        "read/ingest": ("completed", 10, 10, PAGES, 0, stored, ended),
        "unreadable/transfer": is_stored,
        "unreadable/ingest": ("failed", 0, None, PAGES, 0, stored, ended),
        "cancelled before/transfer": ("cancelled", 0, SIZE, BYTES, 0, None, ended),
        "cancelled before/cleanup": ("queued", 0, None, None, 0, None, None),
        "cancelled during/transfer": ("cancelled", 300, SIZE, BYTES, 0, started, ended),
        "cancelled during/cleanup": ("queued", 0, None, None, 0, None, None),
        "purged/transfer": is_stored,
        "purged/ingest": ("completed", 10, 10, PAGES, 0, stored, ended),
        "purged/cleanup": ("queued", 0, None, None, 0, None, None),
        "purged while read/transfer": is_stored,
        "purged while read/ingest": ("cancelled", 0, None, PAGES, 0, stored, ended),
        "purged while read/cleanup": ("queued", 0, None, None, 0, None, None),
        "cancelled long ago/transfer": ("cancelled", 0, SIZE, BYTES, 0, None, data.ago(days=3)),
        "cancelled long ago/cleanup": ("completed", 0, None, None, 0, None, data.ago(days=3)),
        "cancelled while the broker was down/transfer": (
            "cancelled",
            0,
            SIZE,
            BYTES,
            0,
            None,
            data.ago(days=3),
        ),
        "cancelled while the broker was down/cleanup": ("queued", 0, None, None, 0, None, None),
    }
    assert data.steps()["published/transfer"]["queued_at"] == queued_at


def test_leases_checkpoints_and_errors_are_kept(data: OldData) -> None:
    steps = data.steps()
    leases = {
        name: (step["lease_owner"], step["lease_until"])
        for name, step in steps.items()
        if step["lease_owner"]
    }
    assert leases == {
        "running/transfer": ("worker-1", data.ago(minutes=-5)),
        "lease expired/transfer": ("worker-2", data.ago(minutes=5)),
        "cancelled during/transfer": ("worker-3", data.ago(minutes=-5)),
    }
    checkpoints = {
        name: decode_checkpoint(step["checkpoint"])
        for name, step in steps.items()
        if step["checkpoint"]
    }
    assert checkpoints == {
        "lease expired/transfer": ("multipart-1", Checkpoint(256, DIGEST_STATE)),
        "lease returned/transfer": ("multipart-2", None),
        "cancelled during/transfer": ("multipart-3", None),
    }
    errors = {
        name: {column: step[column] for column in REFUSED}
        for name, step in steps.items()
        if step["error_code"]
    }
    assert errors == {"failed/transfer": REFUSED, "unreadable/ingest": REFUSED}


def test_rows_of_other_tables_stay_as_they_are(data: OldData) -> None:
    changed = {"jobs", "attempts", "outbox", "documents"}
    for table, rows in data.before.items():
        if table not in changed:
            # Later migrations add columns.
            columns = {name for row in rows for name in row} - REPLACED.get(table, set())
            assert only(data.after[table], columns) == only(rows, columns)
    kept = set(data.before["jobs"][0]) & set(data.after["jobs"][0])
    assert {
        "status",
        "stage",
        "revision",
        "result",
        "started_at",
        "finished_at",
        "updated_at",
    } < kept
    assert only(read_again(data, data.after["jobs"]), kept) == only(
        read_again(data, data.before["jobs"]), kept
    )
    assert {(job["kind"], job["priority"]) for job in data.after["jobs"]} == {
        ("upload", "interactive")
    }


def deliveries_by_event(rows: Snapshot) -> dict[str, tuple[str, str]]:
    """Return the event and the endpoint of each delivery, by its id."""
    return {row["id"]: (row["event_id"], row["webhook_id"]) for row in rows["deliveries"]}


def attempts_by_event(rows: Snapshot) -> dict[tuple[str, str], Columns]:
    """Return what every version has of each attempt, by the event and the endpoint."""
    deliveries = deliveries_by_event(rows)
    columns = {"number", "started_at", "outcome", "status_code", "error", "response_excerpt"}
    return {
        deliveries[row["delivery_id"]]: {name: row[name] for name in columns}
        for row in rows["attempts"]
    }


def test_attempts_stay_with_their_deliveries(data: OldData) -> None:
    assert attempts_by_event(data.after) == attempts_by_event(data.before)
    assert len(data.before["attempts"]) == 2
    assert {attempt["duration_us"] for attempt in data.after["attempts"]} == {20_000}


def test_a_delivery_gets_the_id_that_follows_from_its_event_and_endpoint(
    data: OldData, database_url: dict[str, str]
) -> None:
    with connect(database_url) as connection:
        wrong = connection.execute(
            "SELECT count(*) FROM deliveries WHERE id <> waybill_delivery_id(event_id, webhook_id)"
        ).fetchone()
    assert wrong == (0,)
    reasons = {row["status"]: row["reason"] for row in data.after["deliveries"]}
    assert reasons == {
        "pending": None,
        "delivered": None,
        "exhausted": None,
        "discarded": "not recorded",
    }
    uploads = {event["id"]: event["upload_id"] for event in data.after["events"]}
    assert all(
        row["upload_id"] == uploads[row["event_id"]] is not None for row in data.after["deliveries"]
    )


def test_every_endpoint_gets_its_secret_and_a_queue_that_is_due_with_its_first_delivery(
    data: OldData,
) -> None:
    secrets = {row["webhook_id"]: row for row in data.after["webhook_secrets"]}
    assert {webhook_id: row["secret"] for webhook_id, row in secrets.items()} == {
        row["id"]: row["secret"] for row in data.before["webhooks"]
    }
    assert {(row["scheme"], row["expires_at"]) for row in secrets.values()} == {("v1", None)}
    first_due: dict[str, str] = {}
    for row in data.after["deliveries"]:
        if row["status"] == "pending":
            due_at = first_due.setdefault(row["webhook_id"], row["next_attempt_at"])
            first_due[row["webhook_id"]] = min(due_at, row["next_attempt_at"])
    queues = {row["webhook_id"]: row for row in data.after["delivery_queues"]}
    assert {webhook_id: row["due_at"] for webhook_id, row in queues.items()} == first_due
    assert {row["owner"] for row in queues.values()} == {None}


def read_again(data: OldData, jobs: list[Columns]) -> list[Columns]:
    """Leave out what changes of a job whose pages were not committed: they are read again."""
    half_read = str(data.jobs["half read"].id)
    changing = {"revision", "updated_at", "pages_done"}
    return [
        {name: value for name, value in job.items() if name not in changing}
        if job["id"] == half_read
        else job
        for job in jobs
    ]


def test_an_api_key_from_before_has_no_prefix_and_never_expires(data: OldData) -> None:
    (key,) = data.after["api_keys"]
    added = {column: key[column] for column in set(key) - set(data.before["api_keys"][0])}
    assert added == {"name": None, "prefix": None, "expires_at": None, "last_used_at": None}
    assert key["revoked_at"] is None


def body_of(row: Columns) -> bytes:
    return bytes.fromhex(row["body"].removeprefix("\\x"))


def only(rows: list[dict[str, Any]], columns: set[str]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name in columns} for row in rows]


def test_the_trigger_derives_the_status_that_each_job_has(
    data: OldData, database_url: dict[str, str]
) -> None:
    with connect(database_url) as connection, connection.transaction(force_rollback=True):
        connection.execute(
            """
            DROP TRIGGER derive_job ON steps;
            CREATE TRIGGER derive_job AFTER UPDATE ON steps
            FOR EACH ROW EXECUTE FUNCTION waybill_derive_job();
            UPDATE steps SET status = status;
            """
        )
        derived = snapshot(connection)["jobs"]
    columns = {"id", "status", "stage", "started_at", "finished_at"}
    assert only(derived, columns) == only(data.after["jobs"], columns)


def test_counters_equal_a_recount(data: OldData) -> None:
    names = {(step["tenant_id"], step["name"]) for step in data.after["steps"]}
    recount = []
    for tenant_id, name in sorted(names):
        steps = [s for s in data.after["steps"] if (s["tenant_id"], s["name"]) == (tenant_id, name)]
        in_broker = sum(step["status"] in OPEN_STEPS for step in steps)
        recount.append(
            {
                "tenant_id": tenant_id,
                "name": name,
                "priority": "interactive",
                "waiting": 0,
                "in_broker": in_broker,
                "issued": len(steps),
                "released": len(steps),
                "finished": len(steps) - in_broker,
            }
        )
        assert sorted(step["ticket"] for step in steps) == list(range(1, len(steps) + 1))
        in_order = sorted(steps, key=lambda step: (step["queued_at"], step["job_id"]))
        assert in_order == sorted(steps, key=lambda step: step["ticket"])
    assert data.after["tenant_steps"] == recount
    assert len(recount) == 5


def test_events_keep_their_bytes_and_get_references_and_positions(data: OldData) -> None:
    bodies = {
        row["event_id"]: row for table in ("outbox", "deliveries") for row in data.before[table]
    }
    found = {event["id"]: event for event in data.after["events"]}
    for event_id, old in bodies.items():
        event, old_event = found[event_id], json.loads(body_of(old))
        assert event["body"] == old["body"]
        assert (event["type"], event["tenant_id"]) == (old_event["type"], old_event["tenantid"])
        assert event["subject"] == old_event["subject"]
        for name in envelope.REFERENCES:
            assert event[name] == old_event["data"].get(name)
    positioned = [event for event in data.after["events"] if event["position"] is not None]
    assert {event["id"] for event in positioned} == set(bodies)
    assert [event["position"] for event in positioned] == list(range(1, len(bodies) + 1))
    assert positioned == sorted(positioned, key=lambda event: (event["created_at"], event["id"]))
    (traced,) = (event for event in positioned if event["traceparent"])
    assert (traced["id"], traced["traceparent"]) == (
        str(data.events["unpublished"].id),
        "00-trace-01",
    )


def test_the_next_position_follows_the_migrated_events(
    data: OldData, database_url: dict[str, str]
) -> None:
    last = max(event["position"] or 0 for event in data.after["events"])
    with connect(database_url) as connection:
        found = connection.execute("SELECT nextval('event_positions')").fetchone()
    assert found == (last + 1,)


def test_an_open_step_has_the_event_that_starts_it(data: OldData) -> None:
    events = {event["id"]: event for event in data.after["events"]}
    types = {
        "transfer": "upload.finalized",
        "ingest": "upload.stored",
        "cleanup": "upload.cancelled",
    }
    written_again = set()
    for name, step in data.steps().items():
        if step["status"] not in OPEN_STEPS:
            assert step["overdue_at"] is None
            continue
        event = events[step["event_id"]]
        decoded = envelope.decode(body_of(event))
        job = data.jobs[name.partition("/")[0]]
        assert (decoded.id, decoded.type) == (UUID(step["event_id"]), types[step["name"]])
        assert (decoded.job_id, decoded.upload_id) == (job.id, job.upload.id)
        assert decoded.tenantid == job.upload.tenant_id
        assert {
            name: None if value is None else str(value)
            for name, value in decoded.references.items()
        } == {name: event[name] for name in envelope.REFERENCES}
        assert isinstance(decoded.data, UploadEvent | DocumentEvent)
        assert decoded.data.filename == job.upload.filename
        is_old = event["position"] is not None
        assert is_old or UUID(event["id"]).version == 7
        if not is_old:
            written_again.add(name)
    assert written_again == {"lost/transfer", "lost reference/transfer", "purged/cleanup"}


def test_an_event_that_is_written_again_has_the_size_that_the_first_one_had(data: OldData) -> None:
    events = {event["id"]: event for event in data.after["events"]}
    sizes = {}
    for name in ("lost/transfer", "lost reference/transfer"):
        event = envelope.decode(body_of(events[data.steps()[name]["event_id"]]))
        assert isinstance(event.data, UploadFinalized)
        sizes[name] = event.data.size
    assert sizes == {"lost/transfer": SIZE, "lost reference/transfer": None}


def test_unpublished_events_go_to_the_exchange_and_to_the_queue_of_their_step(
    data: OldData,
) -> None:
    names = {str(event.id): name for name, event in data.events.items()}
    unpublished = [
        (names[row["event_id"]], row["queue"])
        for row in data.after["outbox"]
        if row["published_at"] is None
    ]
    assert unpublished == [
        ("cancelled without job", None),
        ("to read, unpublished", None),
        ("cancelled before", None),
        ("cancelled while the broker was down", None),
        ("unpublished", "uploads"),
        ("to read, unpublished", "document_processing"),
        ("cancelled before", "uploads"),
        ("cancelled while the broker was down", "uploads"),
    ]
    columns = {"id", "event_id", "created_at", "published_at"}
    assert only([row for row in data.after["outbox"] if row["published_at"]], columns) == only(
        [row for row in data.before["outbox"] if row["published_at"]], columns
    )


def test_the_watchdog_releases_steps_without_a_message_at_once(
    data: OldData, database_url: dict[str, str]
) -> None:
    with connect(database_url) as connection:
        found = connection.execute(
            "SELECT job_id, name FROM steps WHERE overdue_at < now() ORDER BY job_id"
        ).fetchall()
    names = {job.id: name for name, job in data.jobs.items()}
    assert {f"{names[job_id]}/{name}" for job_id, name in found} == {
        "lost/transfer",
        "lost reference/transfer",
        "to read, lost/ingest",
        "cancelled during/cleanup",
        "purged/cleanup",
        "purged while read/cleanup",
    }


def test_every_delivery_has_its_event(data: OldData) -> None:
    events = {event["id"]: event for event in data.after["events"]}
    assert [events[delivery["event_id"]]["body"] for delivery in data.after["deliveries"]] == [
        delivery["body"] for delivery in data.before["deliveries"]
    ]


def test_a_downgrade_restores_the_rows_and_publishes_open_work_again(
    infrastructure: Stack, data: OldData, database_url: dict[str, str]
) -> None:
    with connect(database_url) as connection:
        # Published a second time, as after a repeated release; the earlier version has one row.
        connection.execute(
            "INSERT INTO outbox (event_id) VALUES (%s), (%s)", [data.events["to read"].id] * 2
        )
        # The row of an endpoint that was deleted long ago is removed before its last deliveries.
        connection.execute(
            "WITH added AS ("
            " INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, status, settled_at)"
            " SELECT gen_random_uuid(), tenant_id, gen_random_uuid(), event_id, event_type, 'delivered', now()"
            " FROM deliveries LIMIT 1 RETURNING id)"
            " INSERT INTO attempts (delivery_id, number, started_at, duration_us, outcome)"
            " SELECT id, 1, now(), 1, 'delivered' FROM added"
        )
    infrastructure.run(("alembic", "downgrade", REVISION), settings=database_url)
    with connect(database_url) as connection:
        restored = snapshot(connection)
    assert restored.keys() == data.before.keys()
    for found in (restored, data.before):
        found["jobs"] = read_again(data, found["jobs"])
    exact = data.before.keys() - {"outbox", "deliveries", "attempts"}
    assert {table: restored[table] for table in exact} == {
        table: data.before[table] for table in exact
    }
    columns = set(data.before["deliveries"][0]) - {"id"}
    assert only(restored["deliveries"], columns) == only(data.before["deliveries"], columns)
    assert attempts_by_event(restored) == attempts_by_event(data.before)
    assert {row["duration"] for row in restored["attempts"]} == {
        row["duration"] for row in data.before["attempts"]
    }
    bodies = {row["event_id"]: row["body"] for row in restored["outbox"]}
    kept = {
        row["event_id"]: row["body"]
        for row in data.before["outbox"]
        # This transfer was cancelled before its event was published.
        if row["published_at"] or row["event_id"] in bodies
    }
    assert kept.items() <= bodies.items()
    unpublished = {row["event_id"] for row in restored["outbox"] if row["published_at"] is None}
    facts = {str(data.events["cancelled without job"].id)}
    assert unpublished == set(open_events(data.after).values()) | facts
    assert len(bodies) == len(restored["outbox"])

    infrastructure.run(("alembic", "upgrade", "head"), settings=database_url)
    with connect(database_url) as connection:
        again = snapshot(connection)
    # No row of the earlier version keeps the event of a step that ended.
    columns = set(data.after["steps"][0]) - {"overdue_at", "event_id"}
    assert only(again["steps"], columns) == only(data.after["steps"], columns)
    assert open_events(again) == open_events(data.after)
    assert again["jobs"] == data.after["jobs"]
    assert again["deliveries"] == data.after["deliveries"]
    assert {event["id"]: event["body"] for event in again["events"]}.items() >= {
        delivery["event_id"]: body["body"]
        for delivery in data.after["deliveries"]
        for body in data.after["events"]
        if body["id"] == delivery["event_id"]
    }.items()


def open_events(snapshot: Snapshot) -> dict[tuple[str, str], str]:
    return {
        (step["job_id"], step["name"]): step["event_id"]
        for step in snapshot["steps"]
        if step["status"] in OPEN_STEPS
    }
