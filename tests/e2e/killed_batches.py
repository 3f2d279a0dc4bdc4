"""Workers are killed while they work on a batch; every line ends once."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Final
from uuid import UUID

import psutil
from sqlalchemy import Connection, create_engine, text

from dev.client import Client
from dev.stack.stack import Stack
from schemas import object_keys
from schemas.ids import TenantId
from tests.bucket import Bucket
from tests.e2e.files import retrying
from tests.eventually import eventually
from tests.stack import fresh_name

NEXT_WORKER: Final = timedelta(seconds=120)
"""Longer than a worker's start, the dead worker's lease and a wait in the retry tier together."""

VICTIMS: Final = ("batch", "transfer", "relay")
MISSING: Final = "missing.bin"


@dataclass(frozen=True, kw_only=True)
class SubmittedBatch:
    """A batch of a new tenant.

    Attributes:
        contents: the file of each good line, by its name.
    """

    id: str
    tenant_id: TenantId
    contents: dict[str, bytes]
    client: Client

    def view(self) -> dict[str, Any]:
        found: dict[str, Any] = retrying()(self.client.get, f"/batches/{self.id}").json()
        return found

    def ended(self) -> int:
        counts = self.view()["counts"]
        ended: int = counts["completed"] + counts["failed"] + counts["cancelled"]
        return ended


def submit(client: Client, *, tenant_id: TenantId, bucket: Bucket, files: int) -> SubmittedBatch:
    """Put files into the bucket, and submit a line for each, one for no object, and one bad line."""
    prefix = object_keys.incoming(tenant_id)
    contents = {f"{number:04}.bin": b"file %d\n" % number for number in range(files)}
    for name, content in contents.items():
        bucket.put(f"{prefix}{name}", content)
    lines = [json.dumps({"object_key": f"{prefix}{name}"}) for name in (*contents, MISSING)]
    lines.insert(files // 2, "not JSON")
    answer = client.http.post(
        "/batches",
        content="\n".join(lines),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.status_code == 202, answer.text
    return SubmittedBatch(
        id=answer.json()["batch_id"], tenant_id=tenant_id, contents=contents, client=client
    )


def assert_batch_survives_kills(system: Stack, *, files: int, kills: int, seed: int) -> None:
    """Submit a batch, kill a random worker this often while it runs, and compare every line."""
    random = Random(seed)
    engine = create_engine(system.environment["DATABASE_URL"], isolation_level="AUTOCOMMIT")
    tenant = fresh_name()
    key = system.create_api_key(tenant=tenant)
    with engine.connect() as connection, Client(system.url, api_key=key) as client:
        tenant_id = TenantId(
            connection.scalar(text("SELECT id FROM tenants WHERE name = :name"), {"name": tenant})
        )
        bucket = Bucket(system.environment)
        batch = submit(client, tenant_id=tenant_id, bucket=bucket, files=files)
        for number in range(1, kills + 1):
            _await_ended(batch, (files + 1) * (number - 1) // kills)
            _kill(system, random.choice(VICTIMS), whole=number % 2 == 1)
        view = eventually(
            batch.view,
            until=lambda view: view["finished_at"] is not None,
            within=NEXT_WORKER + timedelta(seconds=files),
        )
        _assert_every_line_ended_once(batch, view, connection=connection, bucket=bucket)
    engine.dispose()


def _await_ended(batch: SubmittedBatch, count: int) -> None:
    eventually(batch.ended, until=lambda ended: ended >= count, within=NEXT_WORKER)


def _kill(system: Stack, name: str, *, whole: bool) -> None:
    """Kill a process with its children, or, of a worker, only its children."""
    process = system.processes[name]
    children = [] if process.pid is None else psutil.Process(process.pid).children()
    if whole or not children:
        process.kill()
    for child in children:
        child.kill()
    psutil.wait_procs(children, timeout=10)


def _assert_every_line_ended_once(
    batch: SubmittedBatch, view: dict[str, Any], *, connection: Connection, bucket: Bucket
) -> None:
    files = len(batch.contents)
    assert view["status"] == "completed"
    assert view["counts"] == {
        "lines": files + 2,
        "rejected": 1,
        "waiting": 0,
        "started": 0,
        "completed": files,
        "failed": 1,
        "cancelled": 0,
    }
    report = batch.client.get(f"/batches/{batch.id}/report").text.splitlines()
    items = [json.loads(line) for line in report]
    assert Counter(item["state"] for item in items) == {
        "completed": files,
        "failed": 1,
        "rejected": 1,
    }
    (failed,) = [item for item in items if item["state"] == "failed"]
    assert failed["error_code"] == "reference_missing"
    of_batch = {"batch_id": UUID(batch.id), "tenant_id": batch.tenant_id}
    rows = connection.execute(
        text(
            "SELECT filename, uploads.id FROM jobs JOIN uploads ON uploads.id = upload_id"
            " WHERE batch_id = :batch_id"
        ),
        of_batch,
    ).all()
    assert Counter(row.filename for row in rows) == Counter([*batch.contents, MISSING])
    keys = bucket.keys()
    stored = {key for key in keys if key.startswith(f"originals/{batch.tenant_id}/")}
    assert stored == {
        f"originals/{batch.tenant_id}/{row.id}" for row in rows if row.filename != MISSING
    }
    for row in rows:
        if row.filename != MISSING:
            digest = hashlib.sha256(batch.contents[row.filename]).hexdigest()
            assert bucket.sha256(f"originals/{batch.tenant_id}/{row.id}") == digest
    events = connection.scalars(
        text("SELECT type FROM events WHERE batch_id = :batch_id ORDER BY id"), of_batch
    ).all()
    assert events == ["batch.received", "batch.completed"]
