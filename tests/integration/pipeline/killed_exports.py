"""Exports that a real worker makes, also while its processes are killed."""

import csv
import io
import random
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from schemas import queues
from schemas.events.envelope import Envelope
from schemas.events.exports import ExportCompleted
from schemas.lifecycle import SETTLED_JOBS, ExportKind, JobStatus, StepStatus
from schemas.steps import StepName
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.topology import CRASH_LIMIT
from tests.eventually import eventually
from tests.factories.exports import NASTY, add_document, add_pages, export_of, request_export
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.workbench import Workbench, workbench

PAGES: Final = 1_000
SENTENCES: Final = 10
ROWS: Final = PAGES * SENTENCES

ATTEMPT_SECONDS: Final = 1.0
"""About what an attempt takes on an idle machine."""


def table_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))


class Exports:
    """Exports that a real worker makes."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench

    def large(self) -> Envelope:
        """Add an export whose file has several parts; return its event without publishing it."""
        with Session(self.bench.engine) as session, session.begin():
            document = add_document(session, add_tenant(session), filename=NASTY)
            add_pages(session, document, pages=PAGES, sentences=SENTENCES)
            return request_export(session, document.tenant_id, kind=ExportKind.SENTENCES)

    def publish(self, event: Envelope) -> None:
        self.bench.bus.publish_to(queues.EXPORTS, event)

    def job(self, event: Envelope) -> Job:
        with Session(self.bench.engine) as session:
            return session.get_one(Job, event.job_id)

    def settled(self, event: Envelope) -> Job:
        return eventually(
            lambda: self.job(event),
            until=lambda job: job.status in SETTLED_JOBS,
            within=timedelta(seconds=90),
        )

    def left(self, event: Envelope) -> list[str]:
        """Return the keys of the objects and multipart uploads of an export."""
        found = [*self.bench.bucket.keys(), *self.bench.bucket.open_multiparts()]
        return [key for key in found if str(export_of(event)) in key]

    def until_running(self, event: Envelope) -> None:
        eventually(
            lambda: self.bench.step(event, StepName.EXPORT).status,
            until=lambda status: status is StepStatus.RUNNING,
        )

    def kill(self) -> None:
        """Kill the processes of the worker that do tasks; it starts others."""
        for process in psutil.Process(self.bench.system.processes["exports"].pid).children():
            process.kill()

    def until_taken_up(self, event: Envelope, *, after: str | None) -> str | None:
        """Wait until another attempt than `after` has the lease; return its owner.

        Returns None if the export has ended.
        """

        def lease() -> tuple[JobStatus, str | None]:
            return self.job(event).status, self.bench.step(event, StepName.EXPORT).lease_owner

        status, owner = eventually(
            lease,
            until=lambda found: found[0] in SETTLED_JOBS or found[1] not in {None, after},
            within=timedelta(seconds=60),
        )
        return None if status in SETTLED_JOBS else owner

    def assert_made(self, event: Envelope) -> bytes:
        """Check that the export completes, once and with every row; return its file."""
        job = self.settled(event)
        assert job.status is JobStatus.COMPLETED
        (key,) = eventually(lambda: self.left(event), until=lambda keys: len(keys) == 1)
        content = self.bench.bucket.content(key)
        rows = table_of(content)
        assert len(rows) == ROWS
        assert {row["filename"] for row in rows} == {NASTY}
        with Session(self.bench.engine) as session:
            facts = session.scalar(
                select(func.count())
                .select_from(EventRecord)
                .where(EventRecord.job_id == event.job_id, EventRecord.type == ExportCompleted.TYPE)
            )
        assert facts == 1
        assert list(Path(self.bench.system.environment["WORK_DIR"]).iterdir()) == []
        return content


@pytest.fixture(scope="module")
def exporting(
    infrastructure: Stack, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A worker that makes exports; it does not wait long for the lease of a dead one."""
    settings = {
        "STEP_LEASE": "3s",
        "TASK_ATTEMPTS": "2",
        "S3_PART_SIZE": "5MiB",
        "EXPORT_DISK_RESERVE": "1MiB",
        "WORK_DIR": str(tmp_path_factory.mktemp("work")),
    }
    with infrastructure.scoped("exports", settings=settings, template=migrated_template) as own:
        own.start_services("exports")
        yield own


@pytest.fixture
def exports(exporting: Stack) -> Iterator[Exports]:
    with workbench(exporting) as bench:
        yield Exports(bench)


def assert_exports_survive_kills(exports: Exports, *, kills: int, seed: int) -> None:
    """Make exports, one after the other, whose workers are killed at random moments.

    Args:
        exports: of a real worker.
        kills: of all exports together.
        seed: of the moments.
    """
    moments, left = random.Random(seed), kills
    while left:
        event = exports.large()
        exports.publish(event)
        owner = None
        # An event whose workers die more often without progress is given up.
        for _ in range(min(left, CRASH_LIMIT - 1)):
            owner = exports.until_taken_up(event, after=owner)
            if owner is None:
                break
            time.sleep(moments.uniform(0, ATTEMPT_SECONDS))  # the moment of the kill
            exports.kill()
            left -= 1
        exports.assert_made(event)
