"""A database, a broker and a bucket of the earlier version go on under this version."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import pytest
from kombu import Connection, Producer

from dev.client import Client, chunks_of
from dev.demo import paper
from dev.stack.stack import TENANT, Stack
from pipeline.messaging import broker
from pipeline.storage import plan
from pipeline.storage.port import StoredPart
from pipeline.transfer.checks import Chunk, FileCheck
from pipeline.transfer.resume import Checkpoint, ResumeState
from schemas import topology
from tests.bucket import Bucket
from tests.e2e.deployment import PART_SIZE, SETTINGS
from tests.e2e.files import settled
from tests.eventually import eventually
from tests.factories.old_rows import CHUNK_SIZE, REVISION, SECRET, OldEvent, OldJob, OldRows
from tests.fakes.receiver import Receiver

pytestmark = pytest.mark.timeout(180)

CONTENT: Final = Random(7).randbytes(300_000)
LARGE: Final = Random(8).randbytes(PART_SIZE + 1_000_000)


@dataclass
class OldSystem:
    """What the earlier version left: jobs and events by name, and messages in the queues."""

    system: Stack
    receiver: Receiver
    client: Client = field(init=False)
    jobs: dict[str, OldJob] = field(default_factory=dict)
    messages: list[OldEvent] = field(default_factory=list)
    pending: list[OldEvent] = field(default_factory=list)
    half_sent: str = ""

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.system.environment)

    def staged_file(self, upload_id: object) -> Path:
        return Path(self.system.environment["STAGING_DIR"]) / str(upload_id)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        url = urlsplit(self.system.environment["DATABASE_URL"])._replace(scheme="postgresql")
        with psycopg.connect(url.geturl()) as connection:
            return connection.execute(statement, values).fetchall()

    def settled(self, name: str) -> dict[str, Any]:
        return settled(self.client, str(self.jobs[name].id), timeout=timedelta(seconds=60))


@pytest.fixture(scope="module")
def old_system(
    infrastructure: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OldSystem]:
    """A system that was stopped, migrated and started again."""
    pdf = tmp_path_factory.mktemp("old") / "consignment.pdf"
    paper.write_pdf(pdf, seed=9)
    settings = SETTINGS | {"SWEEP_EVERY": "1h"}
    with infrastructure.scoped("old", settings=settings) as system, Receiver() as receiver:
        old = OldSystem(system=system, receiver=receiver)
        system.run(("alembic", "upgrade", REVISION))
        old.staged_file("").mkdir(parents=True)
        with OldRows.of(system.environment["DATABASE_URL"]) as rows:
            leave_work(rows, old, pdf=pdf.read_bytes())
        publish_as_before(system.environment["RABBITMQ_URL"], old.messages)
        system.start()
        with Client(system.url, api_key=str(system.api_key)) as old.client:
            yield old


def leave_work(rows: OldRows, old: OldSystem, *, pdf: bytes) -> None:
    tenant, jobs = rows.add_tenant(TENANT), old.jobs
    hook = rows.add_webhook(tenant, url=old.receiver.url)

    def staged(content: bytes = CONTENT, **columns: Any) -> Any:  # noqa: ANN401  # of the upload
        upload = rows.add_upload(tenant, content, **columns)
        old.staged_file(upload.id).write_bytes(content)
        return upload

    # An upload whose second chunk is missing.
    half_sent = rows.add_upload(tenant, CONTENT, status="open")
    rows.connection.execute("DELETE FROM chunks WHERE upload_id = %s AND index = 1", [half_sent.id])
    old.staged_file(half_sent.id).write_bytes(CONTENT[:CHUNK_SIZE])
    old.half_sent = str(half_sent.id)

    # Transfers.
    jobs["unpublished"] = rows.add_job(staged())
    rows.add_finalized(jobs["unpublished"], published_at=None)
    jobs["published"] = rows.add_job(staged())
    old.messages.append(rows.add_finalized(jobs["published"]))
    jobs["message lost"] = rows.add_job(staged(), created_at=rows.ago(days=8))
    key = f"incoming/{tenant}/by-reference.bin"
    old.bucket.put(key, CONTENT)
    jobs["by reference"] = rows.add_job(
        rows.add_upload(tenant, staging="reference", source_key=key)
    )
    old.messages.append(rows.add_finalized(jobs["by reference"], is_reference=True))
    leave_running_transfer(rows, old, upload=staged(LARGE))

    # Readings. The event of the first one was also delivered before.
    for name in ("to read", "to read, unpublished", "to read, message lost"):
        jobs[name] = leave_stored(rows, old, tenant=tenant, pdf=pdf)
    published = rows.add_stored(jobs["to read"])
    old.messages.append(published)
    rows.add_delivery(published, hook, status="delivered", attempts_made=1)
    rows.insert("inbox", consumer="notifier", event_id=published.id)
    rows.add_stored(jobs["to read, unpublished"], published_at=None)
    lost = rows.add_stored(jobs["to read, message lost"], in_outbox=False)

    # Pending deliveries; the outbox no longer has the event of the second one.
    jobs["stored"] = rows.add_job(
        rows.add_upload(tenant, CONTENT, status="stored"),
        status="completed",
        stage="done",
        bytes_done=len(CONTENT),
        result={"size": len(CONTENT)},
        finished_at=rows.ago(minutes=30),
        stored_at=rows.ago(minutes=30),
        started_at=rows.ago(minutes=31),
        document={},
    )
    stored = rows.add_stored(jobs["stored"], will_be_read=False)
    old.pending += [stored, lost]
    for event in old.pending:
        rows.add_delivery(event, hook, attempts_made=1)

    # A cancelled transfer with staged bytes, a purged upload with its object.
    jobs["cancelled"] = rows.add_job(
        staged(status="cancelled"), status="cancelled", finished_at=rows.ago(minutes=1)
    )
    rows.add_cancelled(jobs["cancelled"].upload, job_id=jobs["cancelled"].id, published_at=None)
    purged = rows.add_upload(tenant, CONTENT, status="cancelled")
    old.bucket.put(purged.object_key, CONTENT)
    jobs["purged"] = rows.add_job(
        purged,
        status="cancelled",
        stage="done",
        bytes_done=len(CONTENT),
        stored_at=rows.ago(minutes=2),
        finished_at=rows.ago(minutes=1),
    )
    old.messages.append(rows.add_cancelled(purged, job_id=jobs["purged"].id))
    # The gateway deleted the bytes of this upload; its message has nothing to do.
    old.messages.append(rows.add_cancelled(rows.add_upload(tenant, CONTENT, status="cancelled")))

    # Ended jobs; the message of the first one is in the queue once more.
    old.messages.append(rows.add_finalized(jobs["stored"]))
    jobs["failed"] = rows.add_job(
        rows.add_upload(tenant, CONTENT, status="failed"),
        status="failed",
        error_code="staging_corrupt",
        error_detail="chunk 0",
        error_retryable=False,
        finished_at=rows.ago(minutes=30),
    )


def leave_stored(rows: OldRows, old: OldSystem, *, tenant: Any, pdf: bytes) -> OldJob:  # noqa: ANN401  # an id
    upload = rows.add_upload(tenant, pdf, status="stored", filename="consignment.pdf")
    old.bucket.put(upload.object_key, pdf)
    return rows.add_job(
        upload,
        status="processing",
        stage="ingest",
        bytes_done=len(pdf),
        started_at=rows.ago(minutes=5),
        stored_at=rows.ago(minutes=4),
        result={"size": len(pdf)},
        document={},
    )


def leave_running_transfer(rows: OldRows, old: OldSystem, *, upload: Any) -> None:  # noqa: ANN401  # an upload
    """Leave a transfer whose worker died after its first part; those bytes cannot be read again."""
    multipart_id, etag = old.bucket.start_multipart(upload.object_key, LARGE[:PART_SIZE])
    checkpoint = checkpoint_after_first_part(etag)
    with old.staged_file(upload.id).open("r+b") as file:
        file.seek(PART_SIZE // 2)
        file.write(bytes(1000))
    old.jobs["running"] = rows.add_job(
        upload,
        status="processing",
        started_at=rows.ago(minutes=1),
        bytes_done=PART_SIZE,
        multipart_id=multipart_id,
        digested_bytes=checkpoint.digested_bytes,
        digest_state=checkpoint.state,
        lease_owner="a worker of the earlier version",
        lease_until=rows.ago(seconds=5),
    )
    old.messages.append(rows.add_finalized(old.jobs["running"]))


def checkpoint_after_first_part(etag: str) -> Checkpoint:
    first = LARGE[:PART_SIZE]
    pieces = [LARGE[start : start + CHUNK_SIZE] for start in range(0, len(LARGE), CHUNK_SIZE)]
    check = FileCheck.against(
        [
            Chunk(index=index, size_bytes=len(piece), sha256=hashlib.sha256(piece).digest())
            for index, piece in enumerate(pieces)
        ],
        chunk_size=CHUNK_SIZE,
        size_bytes=len(LARGE),
    )
    check.update(first)
    parts = plan.split(len(LARGE), part_size=PART_SIZE, max_parts=10_000)
    resume = ResumeState(parts, version="")
    resume.digested(
        next(iter(parts)),
        md5=hashlib.md5(first, usedforsecurity=False).digest(),
        state=check.state(),
    )
    resume.stored(StoredPart(number=1, etag=etag, size_bytes=len(first)))
    assert resume.checkpoint is not None
    return resume.checkpoint


def publish_as_before(rabbitmq_url: str, events: Sequence[OldEvent]) -> None:
    """Publish to the exchange, which was bound to the work queues too."""
    with Connection(rabbitmq_url, transport_options={"confirm_publish": True}) as connection:
        broker.declare_topology(connection)
        channel: Any = connection.channel()  # its stubs cover only what all transports share
        for queue, routing_key in topology.OBSOLETE_BINDINGS:
            channel.queue_bind(queue, topology.EVENTS.name, routing_key=routing_key)
        for event in events:
            Producer(channel).publish(
                event.body,
                exchange=topology.EVENTS.name,
                routing_key=event.type,
                content_type="application/cloudevents+json",
                content_encoding="utf-8",
                delivery_mode=2,
                message_id=str(event.id),
                type=event.type,
                app_id="waybill",
                mandatory=True,
                confirm_timeout=10,
            )


@pytest.mark.parametrize("name", ["unpublished", "published", "message lost", "by reference"])
def test_a_transfer_that_was_queued_completes(old_system: OldSystem, name: str) -> None:
    job = old_system.settled(name)
    assert (job["status"], job["result"]["size"]) == ("completed", len(CONTENT))
    upload = old_system.jobs[name].upload
    assert old_system.bucket.sha256(upload.object_key) == hashlib.sha256(CONTENT).hexdigest()
    eventually(old_system.staged_file(upload.id).exists, until=lambda exists: not exists)


def test_a_transfer_that_was_running_continues_from_its_checkpoint(old_system: OldSystem) -> None:
    job = old_system.settled("running")
    assert job["status"] == "completed", job
    key = old_system.jobs["running"].upload.object_key
    assert old_system.bucket.sha256(key) == hashlib.sha256(LARGE).hexdigest()
    assert key not in old_system.bucket.open_multiparts()


@pytest.mark.parametrize("name", ["to read", "to read, unpublished", "to read, message lost"])
def test_a_stored_document_is_read(old_system: OldSystem, name: str) -> None:
    job = old_system.settled(name)
    assert (job["status"], job["result"]["pages"]) == ("completed", paper.PAGES), job
    document = old_system.client.get(f"/documents/{old_system.jobs[name].document_id}").json()
    assert document["status"] == "ingested"


def test_an_open_upload_takes_its_last_chunk(old_system: OldSystem, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    chunks = list(chunks_of(path, chunk_size=CHUNK_SIZE))
    old_system.client.send(old_system.half_sent, chunks[1:])
    job = old_system.client.finalize(old_system.half_sent).json()
    assert settled(old_system.client, job["job_id"])["status"] == "completed"


def test_a_pending_delivery_sends_the_old_bytes(old_system: OldSystem) -> None:
    wanted = {event.body for event in old_system.pending}
    received = eventually(
        lambda: [request for request in old_system.receiver.received if request.body in wanted],
        until=lambda found: len(found) >= len(wanted),
    )
    assert {request.body for request in received} == wanted
    for request in received:
        assert request.verified_with(SECRET)["id"] == request.headers["webhook-id"]


def test_an_event_that_was_delivered_before_is_not_delivered_again(old_system: OldSystem) -> None:
    for name in ("to read", "to read, unpublished"):
        old_system.settled(name)
    eventually(
        lambda: notified(old_system, "to read"), until=lambda types: "document.ingested" in types
    )
    assert notified(old_system, "to read") == ["document.ingested"]
    assert notified(old_system, "to read, unpublished").count("upload.stored") == 1


def notified(old_system: OldSystem, name: str) -> list[str]:
    """Return the types of the received events of a job."""
    events = [json.loads(request.body) for request in old_system.receiver.received]
    job_id = str(old_system.jobs[name].id)
    return [event["type"] for event in events if event["data"]["job_id"] == job_id]


@pytest.mark.parametrize("name", ["cancelled", "purged"])
def test_a_cancelled_upload_is_cleaned_up(old_system: OldSystem, name: str) -> None:
    job = old_system.jobs[name]
    assert old_system.settled(name)["status"] == "cancelled"
    eventually(
        lambda: (
            old_system.staged_file(job.upload.id).exists(),
            job.upload.object_key in old_system.bucket.keys(),  # noqa: SIM118  # a method of ours
        ),
        until=lambda left: left == (False, False),
    )


def test_ended_jobs_stay_as_they_are(old_system: OldSystem) -> None:
    stored, failed = (old_system.settled(name) for name in ("stored", "failed"))
    assert (stored["status"], stored["stage"], stored["progress"]) == ("completed", "done", 100)
    assert stored["result"] == {"size": len(CONTENT)}
    assert (failed["status"], failed["error"]["code"]) == ("failed", "staging_corrupt")
    assert old_system.query(
        "SELECT revision FROM jobs WHERE id = ANY(%s)",
        [old_system.jobs[name].id for name in ("stored", "failed")],
    ) == [(1,), (1,)]


def test_every_step_ends_and_every_message_is_handled(old_system: OldSystem) -> None:
    for name in old_system.jobs:
        old_system.settled(name)
    eventually(
        lambda: old_system.query(
            "SELECT name, status FROM steps WHERE status IN ('waiting', 'queued', 'running')"
        ),
        until=lambda open_steps: not open_steps,
    )
    eventually(lambda: left_in_queues(old_system), until=lambda left: not left)
    counted = old_system.query(
        "SELECT sum(waiting), sum(in_broker), sum(issued), sum(finished) FROM tenant_steps"
    )
    ((steps,),) = old_system.query("SELECT count(*) FROM steps")
    assert counted == [(0, 0, steps, steps)]
    logs = "".join(path.read_text() for path in (old_system.system.state_dir / "log").iterdir())
    assert "dead_lettered" not in logs


def left_in_queues(old_system: OldSystem) -> dict[str, int]:
    with Connection(old_system.system.environment["RABBITMQ_URL"]) as connection:
        channel: Any = connection.channel()  # its stubs cover only what all transports share
        depths = {
            queue.name: channel.queue_declare(queue.name, passive=True).message_count
            for queue in topology.QUEUES
            if queue.name not in topology.PERIODIC_QUEUES
        }
    return {name: depth for name, depth in depths.items() if depth}
