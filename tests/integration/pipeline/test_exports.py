"""Exports: what their files have, and what is left of them after deaths, cancels and failures."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from schemas.api.exports import ExportFilter
from schemas.errors import StoreUnavailable
from schemas.events.envelope import Envelope
from schemas.events.exports import ExportCompleted, ExportFailed
from schemas.ids import BatchId, TenantId, WebhookId
from schemas.lifecycle import (
    DeliveryStatus,
    DocumentStatus,
    ExportFormat,
    ExportKind,
    JobKind,
    JobStatus,
    StepStatus,
)
from schemas.runtime.jobs import retry
from schemas.runtime.jobs.errors import JobBusy
from schemas.settings import DatabaseSettings
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from tests.eventually import eventually
from tests.factories.deliveries import a_delivery, an_attempt, an_endpoint, an_event_row
from tests.factories.exports import (
    FORMULAS,
    NASTY,
    SENTENCE,
    START,
    add_document,
    add_pages,
    columns_of,
    export_of,
    request_export,
)
from tests.factories.tables import HEADER, a_table
from tests.factories.uploads import add_tenant
from tests.fakes.storage import Call, raising
from tests.integration.pipeline.export_worker import ExportWorker, export_worker
from tests.integration.pipeline.killed_exports import (
    PAGES,
    ROWS,
    SENTENCES,
    Exports,
    assert_exports_survive_kills,
    table_of,
)

BATCH = BatchId(uuid4())


@pytest.fixture
def worker(database: DatabaseSettings, tmp_path: Path) -> Iterator[ExportWorker]:
    with export_worker(database, work_dir=tmp_path) as worker:
        yield worker


@pytest.fixture
def tenant_id(worker: ExportWorker) -> TenantId:
    with worker.session() as session:
        return add_tenant(session)


def exported(
    worker: ExportWorker,
    tenant_id: TenantId,
    **request: Any,  # noqa: ANN401  # any option of an export
) -> bytes:
    """Request an export, let the worker make it, and return its file."""
    with worker.session() as session:
        event = request_export(session, tenant_id, **request)
    assert worker.deliver(event)
    job = worker.job(event)
    assert job.status is JobStatus.COMPLETED
    return worker.content(event)


def large(worker: ExportWorker, tenant_id: TenantId) -> Envelope:
    """Request an export whose file has several parts."""
    with worker.session() as session:
        document = add_document(session, tenant_id, sentences=("First.",))
        add_pages(session, document, pages=PAGES, sentences=SENTENCES)
        return request_export(session, tenant_id, kind=ExportKind.SENTENCES)


# The file


def test_a_name_with_every_kind_of_trouble_survives(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    with worker.session() as session:
        add_document(session, tenant_id, filename=NASTY)

    content = exported(worker, tenant_id)
    assert content.startswith(b"document_id,upload_id,")
    assert content.endswith(b"\r\n")
    (row,) = table_of(content)
    assert row["filename"] == NASTY
    (row,) = [
        json.loads(line)
        for line in exported(worker, tenant_id, format=ExportFormat.JSONL).split(b"\n")[:-1]
    ]
    assert row["filename"] == NASTY


@pytest.mark.parametrize("name", FORMULAS)
def test_text_that_a_spreadsheet_would_calculate_gets_an_apostrophe(
    worker: ExportWorker, tenant_id: TenantId, name: str
) -> None:
    with worker.session() as session:
        add_document(session, tenant_id, filename=name, error_detail="a=b")

    (safe,) = table_of(exported(worker, tenant_id))
    (raw,) = table_of(exported(worker, tenant_id, raw=True))

    assert safe["filename"] == f"'{name}"
    assert safe["error_detail"] == "a=b"
    assert raw["filename"] == name


@pytest.mark.parametrize("name", ["-1", "+3.5%", "-1,234.50"])
def test_a_number_with_a_sign_stays_a_number(
    worker: ExportWorker, tenant_id: TenantId, name: str
) -> None:
    with worker.session() as session:
        add_document(session, tenant_id, filename=name)

    (row,) = table_of(exported(worker, tenant_id))

    assert row["filename"] == name


def test_the_options_of_csv(worker: ExportWorker, tenant_id: TenantId) -> None:
    with worker.session() as session:
        add_document(session, tenant_id, filename="b.pdf", minute=2)
        add_document(session, tenant_id, filename="ä.pdf", minute=1)

    content = exported(worker, tenant_id, columns=["size", "filename", "title"], bom=True)

    assert content == "\ufeffsize,filename,title\r\n3,ä.pdf,\r\n3,b.pdf,\r\n".encode()


def test_types_of_values(worker: ExportWorker, tenant_id: TenantId) -> None:
    columns = ["size", "title", "metadata", "upload_metadata", "created_at"]
    with worker.session() as session:
        add_document(session, tenant_id, metadata={"ä": '"\\'})

    (row,) = table_of(exported(worker, tenant_id, columns=columns))
    line = exported(worker, tenant_id, columns=columns, format=ExportFormat.JSONL)

    assert row["created_at"] == "2026-11-20T12:00:00Z"
    assert (row["metadata"], json.loads(row["upload_metadata"])) == ("", {"ä": '"\\'})
    assert json.loads(line) == {
        "size": 3,
        "title": None,
        "metadata": None,
        "upload_metadata": {"ä": '"\\'},
        "created_at": "2026-11-20T12:00:00+00:00",
    }
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("kind", ExportKind)
@pytest.mark.parametrize("format_", ExportFormat)
def test_an_export_without_rows_has_a_file(
    worker: ExportWorker, tenant_id: TenantId, kind: ExportKind, format_: ExportFormat
) -> None:
    # The jobs of exports are jobs: none has this status.
    chosen = ExportFilter(status="failed") if kind is ExportKind.JOBS else None

    content = exported(worker, tenant_id, kind=kind, format=format_, filter=chosen)

    header = ",".join(columns_of(kind)).encode() + b"\r\n"
    assert content == (header if format_ is ExportFormat.CSV else b"")


def test_sentences_and_entities_are_in_the_order_of_the_document(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    with worker.session() as session:
        add_document(session, tenant_id, minute=2, sentences=("Last.",), entities=(("ORG", "X"),))
        add_document(
            session,
            tenant_id,
            minute=1,
            sentences=("Ä größer.", "=Zwei."),
            entities=(("PERSON", "-Anna"), ("DATE", "2024")),
        )

    sentences = table_of(exported(worker, tenant_id, kind=ExportKind.SENTENCES))
    entities = table_of(exported(worker, tenant_id, kind=ExportKind.ENTITIES))

    assert [(row["ordinal"], row["start"], row["end"], row["text"]) for row in sentences] == [
        ("1", "0", "9", "Ä größer."),
        ("2", "10", "16", "'=Zwei."),
        ("1", "0", "5", "Last."),
    ]
    assert [(row["label"], row["text"], row["normal_form"]) for row in entities] == [
        ("PERSON", "'-Anna", "'-anna"),
        ("DATE", "2024", "2024"),
        ("ORG", "X", "x"),
    ]


def test_the_cells_of_tables_are_rows(worker: ExportWorker, tenant_id: TenantId) -> None:
    first = a_table(("Hamburg", "", "=1+1"), caption="=Cargo")
    with worker.session() as session:
        add_document(session, tenant_id, minute=1, tables=(a_table(("A", "b", "c"), header=()),))
        add_document(session, tenant_id, tables=(first, a_table()), filename="b.pdf")

    rows = table_of(exported(worker, tenant_id, kind=ExportKind.TABLES))

    shown = [
        (row["filename"], row["table"], row["row"], row["column"], row["is_header"], row["text"])
        for row in rows
    ]
    assert shown == [
        *(("b.pdf", "1", "0", str(n), "t", text) for n, text in enumerate(HEADER)),
        ("b.pdf", "1", "1", "0", "f", "Hamburg"),
        ("b.pdf", "1", "1", "2", "f", "'=1+1"),
        *(("b.pdf", "2", "0", str(n), "t", text) for n, text in enumerate(HEADER)),
        *(("a.pdf", "1", "0", str(n), "f", text) for n, text in enumerate("Abc")),
    ]
    assert rows[0]["caption"] == "'=Cargo"


def test_jobs_have_the_reason_of_their_failure(worker: ExportWorker, tenant_id: TenantId) -> None:
    with worker.session() as session:
        document = add_document(session, tenant_id, filename="=x.pdf")
        session.add(
            Step(
                job_id=document.job_id,
                name=StepName.TRANSFER,
                ordinal=0,
                tenant_id=tenant_id,
                priority="interactive",
                status=StepStatus.FAILED,
                error_code="staging_corrupt",
                error_detail="chunk 3 was altered",
            )
        )

    (row,) = table_of(
        exported(worker, tenant_id, kind=ExportKind.JOBS, filter=ExportFilter(kind=JobKind.UPLOAD))
    )

    assert (row["status"], row["filename"]) == ("failed", "'=x.pdf")
    assert (row["error_code"], row["error_detail"]) == ("staging_corrupt", "chunk 3 was altered")


def test_deliveries_have_their_last_attempt(worker: ExportWorker, tenant_id: TenantId) -> None:
    now = datetime.now(UTC)
    with worker.session() as session:
        deleted = an_endpoint(tenant_id, deleted_at=now)
        session.add(deleted)
        session.flush()
        for minutes in (2, 1):
            event = an_event_row(tenant_id, at=now - timedelta(minutes=minutes))
            session.add(event)
            delivery = a_delivery(event, deleted.id, DeliveryStatus.EXHAUSTED, attempts_made=2)
            session.add(delivery)
            session.flush()
            for number in (1, 2):
                session.add(an_attempt(delivery.id, number, outcome=f"outcome {number}"))

    every = table_of(exported(worker, tenant_id, kind=ExportKind.DELIVERIES))
    since = ExportFilter(since=now - timedelta(seconds=90), webhook_id=deleted.id)
    newest = table_of(exported(worker, tenant_id, kind=ExportKind.DELIVERIES, filter=since))
    other = ExportFilter(webhook_id=WebhookId(uuid4()))
    none = table_of(exported(worker, tenant_id, kind=ExportKind.DELIVERIES, filter=other))

    assert [row["last_outcome"] for row in every] == ["outcome 2", "outcome 2"]
    assert [row["delivery_id"] for row in newest] == [every[1]["delivery_id"]]
    assert none == []


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        pytest.param({}, ["a.pdf", "B%_.txt", "c.pdf"], id="all"),
        pytest.param({"status": "failed"}, ["c.pdf"], id="status"),
        pytest.param({"outcome": "partial"}, ["B%_.txt"], id="outcome"),
        pytest.param({"language": "de"}, ["a.pdf"], id="language"),
        pytest.param({"content_type": "TEXT/plain; x=y"}, ["B%_.txt"], id="content_type"),
        pytest.param({"sha256": "1" * 64}, ["c.pdf"], id="sha256"),
        pytest.param({"filename_prefix": "B%_"}, ["B%_.txt"], id="filename_prefix"),
        pytest.param({"metadata": {"k": "v'"}}, ["a.pdf"], id="metadata"),
        pytest.param({"created_after": START}, ["B%_.txt", "c.pdf"], id="created_after"),
        pytest.param(
            {"created_before": START + timedelta(minutes=2), "status": "ingested"},
            ["a.pdf", "B%_.txt"],
            id="created_before and status",
        ),
    ],
)
def test_filters_select_documents(
    worker: ExportWorker, tenant_id: TenantId, chosen: dict[str, Any], expected: list[str]
) -> None:
    def add(session: Session, **columns: Any) -> None:  # noqa: ANN401  # any column
        add_document(
            session,
            tenant_id,
            sentences=("One.",),
            entities=(("ORG", "X"),),
            tables=(a_table(("One cell",), header=()),),
            **columns,
        )

    with worker.session() as session:
        add(session, metadata={"k": "v'", "l": "w"}, language="de")
        add(
            session,
            filename="B%_.txt",
            minute=1,
            content_type="text/plain; charset=utf-8",
            outcome="partial",
        )
        add(session, filename="c.pdf", minute=2, status=DocumentStatus.FAILED, sha256="1" * 64)

    kinds = (
        ExportKind.DOCUMENTS,
        ExportKind.SENTENCES,
        ExportKind.ENTITIES,
        ExportKind.TABLES,
    )
    for kind in kinds:
        rows = table_of(exported(worker, tenant_id, kind=kind, filter=ExportFilter(**chosen)))
        assert [row["filename"] for row in rows] == expected, kind


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"stage": "ingest"}, ["a.pdf"]),
        ({"priority": "bulk"}, ["b.pdf"]),
        ({"batch_id": BATCH}, ["c.pdf"]),
        ({"metadata": {"k": "v"}, "kind": "upload"}, ["d.pdf"]),
    ],
    ids=str,
)
def test_filters_select_jobs(
    worker: ExportWorker, tenant_id: TenantId, chosen: dict[str, Any], expected: list[str]
) -> None:
    changes: list[dict[str, Any]] = [
        {"stage": "ingest"},
        {"priority": "bulk"},
        {"batch_id": BATCH},
        {},
    ]
    with worker.session() as session:
        for name, columns in zip("abcd", changes, strict=True):
            metadata = {"k": "v"} if name == "d" else None
            document = add_document(session, tenant_id, filename=f"{name}.pdf", metadata=metadata)
            session.flush()
            if columns:
                session.execute(update(Job).where(Job.id == document.job_id).values(**columns))

    rows = table_of(
        exported(worker, tenant_id, kind=ExportKind.JOBS, filter=ExportFilter(**chosen))
    )

    assert [row["filename"] for row in rows] == expected


@pytest.mark.parametrize("kind", ExportKind)
def test_an_export_has_only_rows_of_its_tenant(
    worker: ExportWorker, tenant_id: TenantId, kind: ExportKind
) -> None:
    with worker.session() as session:
        other = add_tenant(session)
        add_document(
            session,
            other,
            sentences=("Secret.",),
            entities=(("ORG", "X"),),
            tables=(a_table(),),
        )
        endpoint = an_endpoint(other)
        event = an_event_row(other)
        session.add_all([endpoint, event])
        session.flush()
        session.add(a_delivery(event, endpoint.id))

    mine = table_of(exported(worker, tenant_id, kind=kind))
    theirs = table_of(exported(worker, other, kind=kind))

    assert len(theirs) >= 1
    # The job of the export itself.
    assert len(mine) == (1 if kind is ExportKind.JOBS else 0)


# The end


def test_a_completed_export_is_recorded_with_its_event(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = large(worker, tenant_id)

    assert worker.deliver(event)

    content, export, job = worker.content(event), worker.export(event), worker.job(event)
    rows = table_of(content)
    assert {row["text"] for row in rows[1:]} == {SENTENCE}
    assert [int(row["ordinal"]) for row in rows[1:]] == [*range(1, SENTENCES + 1)] * PAGES
    assert content.count(b"\r\n") == ROWS + 2
    assert (export.rows, export.size) == (ROWS + 1, len(content))
    assert worker.storage.called("upload_part") > 1
    assert job.result == {
        "export_id": str(export.id),
        "rows": ROWS + 1,
        "bytes": len(content),
        "sha256": export.sha256,
    }
    step = worker.step(event)
    assert (step.done, step.total) == (ROWS + 1, ROWS + 1)
    (fact,) = worker.emitted(event)
    assert fact.data == ExportCompleted(
        export_id=export.id,
        job_id=job.id,
        kind=ExportKind.SENTENCES,
        format=ExportFormat.CSV,
        rows=ROWS + 1,
        size=len(content),
        sha256=export.sha256 or "",
        expires_at=export.expires_at,
    )


def test_a_repeated_message_changes_nothing(worker: ExportWorker, tenant_id: TenantId) -> None:
    with worker.session() as session:
        event = request_export(session, tenant_id)
    assert worker.deliver(event)
    before = worker.export(event).object_key

    assert worker.deliver(event)

    assert worker.export(event).object_key == before
    assert worker.content(event)
    assert len(worker.emitted(event)) == 1


def test_no_transaction_is_open_while_the_file_is_sent(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = large(worker, tenant_id)
    seen: list[int] = []

    def look(call: Call) -> None:
        if call.name in {"create_multipart", "upload_part", "complete", "head"}:
            autocommit = worker.context.engine.execution_options(isolation_level="AUTOCOMMIT")
            with autocommit.connect() as connection:
                seen.append(
                    connection.scalar(
                        text(
                            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                            " AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
                            " AND backend_type = 'client backend' AND state <> 'active'"
                        )
                    )
                    or 0
                )

    worker.storage.before = look
    assert worker.deliver(event)

    assert len(seen) > 4
    assert set(seen) == {0}


class Killed(BaseException):
    """The worker dies."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", ["create_multipart", "upload_part", "complete", "head"])
def test_a_worker_killed_at_a_call_of_the_store_leaves_one_file(
    worker: ExportWorker, tenant_id: TenantId, name: str, moment: str
) -> None:
    event = large(worker, tenant_id)
    _deliver_and_die(worker, event, moment=moment, name=name)
    assert worker.job(event).status is JobStatus.PROCESSING

    assert worker.deliver(event)

    assert worker.job(event).status is JobStatus.COMPLETED
    assert worker.content(event).count(b"\r\n") == ROWS + 2
    assert len(worker.emitted(event)) == 1
    assert worker.context.settings.work_dir is not None
    assert list(worker.context.settings.work_dir.iterdir()) == []


def test_a_worker_killed_while_it_deletes_the_files_of_earlier_ones_leaves_one_file(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = large(worker, tenant_id)
    _deliver_and_die(worker, event, moment="before", name="complete")
    _deliver_and_die(worker, event, moment="before", name="abort")
    _deliver_and_die(worker, event, moment="after", name="complete")
    _deliver_and_die(worker, event, moment="after", name="objects_under")

    assert worker.deliver(event)

    assert worker.content(event).count(b"\r\n") == ROWS + 2


def _deliver_and_die(worker: ExportWorker, event: Envelope, *, moment: str, name: str) -> None:
    def die(call: Call) -> None:
        if call.name == name:
            raise Killed

    setattr(worker.storage, moment, die)
    with pytest.raises(Killed):
        worker.deliver(event)
    setattr(worker.storage, moment, lambda _: None)


def test_a_store_that_fails_repeats_the_export(worker: ExportWorker, tenant_id: TenantId) -> None:
    again = worker.with_settings(task_attempts=2)
    event = large(again, tenant_id)
    again.storage.before = raising(
        StoreUnavailable("upload_part", reason="test"), on="upload_part", part=2
    )
    assert not again.deliver(event)
    again.storage.before = lambda _: None

    assert again.deliver(event, attempt=1)

    assert again.content(event)
    assert len(again.retried) == 1


def test_a_retry_is_refused_during_the_cleanup_and_leaves_one_file_after_it(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    worker = worker.with_settings(step_lease=timedelta(minutes=1))
    event = large(worker, tenant_id)
    refused: list[str] = []

    def retried() -> None:
        with worker.session() as session:
            retry.retry_job(
                session,
                session.get_one(Job, event.job_id),
                actor="test",
                export_ttl=worker.context.settings.export_ttl,
                settings=worker.context.settings,
            )

    def cancelled_then_retried(call: Call) -> None:
        if call.name == "head":
            with worker.session() as session:
                session.execute(steps.cancel(worker.job(event).id))
        elif call.name == "objects_under":
            with pytest.raises(JobBusy) as error:
                retried()
            refused.append(error.value.code)

    worker.storage.before = cancelled_then_retried
    assert worker.deliver(event)
    worker.storage.before = lambda _: None
    assert refused == ["job_busy"]
    assert worker.left(event) == ([], [])

    retried()
    assert worker.deliver(event)

    assert worker.job(event).status is JobStatus.COMPLETED
    assert worker.content(event).count(b"\r\n") == ROWS + 2


def test_the_last_failure_leaves_nothing_and_is_announced(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = large(worker, tenant_id)
    worker.storage.before = raising(
        StoreUnavailable("upload_part", reason="test"), on="upload_part", part=2
    )

    assert worker.deliver(event)

    assert worker.left(event) == ([], [])
    assert worker.job(event).status is JobStatus.FAILED
    (fact,) = worker.emitted(event)
    assert isinstance(fact.data, ExportFailed)
    assert fact.data.code == "store_unavailable"


@pytest.mark.parametrize(
    ("limit", "detail"),
    [
        pytest.param({"export_size_max": 100_000}, "more than 100000 bytes", id="size"),
        pytest.param({"export_time_max": timedelta(milliseconds=5)}, "longer than 0 s", id="time"),
    ],
)
def test_an_export_beyond_its_limits_fails_with_a_reason(
    worker: ExportWorker, tenant_id: TenantId, limit: dict[str, Any], detail: str
) -> None:
    event = large(worker, tenant_id)

    assert worker.with_settings(**limit).deliver(event)

    step = worker.step(event)
    assert (step.error_code, step.error_retryable) == ("export_too_large", False)
    assert detail in (step.error_detail or "")
    assert worker.storage.calls == [] or worker.left(event) == ([], [])
    # The connection that was in the middle of COPY is not used again.
    assert exported(worker, tenant_id)


def test_a_full_disk_repeats_the_export_later(worker: ExportWorker, tenant_id: TenantId) -> None:
    full = worker.with_settings(export_disk_reserve=2**60, task_attempts=2)
    event = large(full, tenant_id)

    assert not full.deliver(event)

    assert full.step(event).status is StepStatus.QUEUED
    assert worker.deliver(event, attempt=1)
    assert worker.content(event)


def test_a_cancel_while_the_file_is_sent_leaves_nothing(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = large(worker, tenant_id)
    are_abandoned: list[bool] = []

    def cancel(call: Call) -> None:
        if call.name != "upload_part":
            return
        if call.part == 1:
            with worker.session() as session:
                session.execute(steps.cancel(_job_of(event)))
        assert call.abandoned is not None
        are_abandoned.append(call.abandoned.wait(60))  # a slow store

    worker.storage.before = cancel
    assert worker.deliver(event)

    assert all(are_abandoned)
    assert worker.job(event).status is JobStatus.CANCELLED
    assert worker.left(event) == ([], [])
    assert worker.emitted(event) == []


def test_an_export_deleted_meanwhile_leaves_nothing(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = large(worker, tenant_id)

    def delete(call: Call) -> None:
        if call.name == "head":
            with worker.session() as session:
                session.execute(
                    update(Export)
                    .where(Export.id == export_of(event))
                    .values(deleted_at=datetime.now(UTC))
                )

    worker.storage.after = delete
    assert worker.deliver(event)

    assert worker.left(event) == ([], [])
    assert worker.emitted(event) == []
    assert worker.export(event).object_key is None


def _job_of(event: Envelope) -> Any:  # noqa: ANN401  # a job's id
    assert event.job_id is not None
    return event.job_id


# The task in a worker


def test_a_worker_exports_once_however_often_the_event_arrives(exports: Exports) -> None:
    event = exports.large()
    exports.publish(event)
    exports.publish(event)

    content = exports.assert_made(event)

    result = exports.job(event).result
    assert result is not None
    assert (result["rows"], result["bytes"]) == (ROWS, len(content))


def test_an_export_survives_the_death_of_its_worker_during_a_silent_query(
    exports: Exports,
) -> None:
    event = exports.large()
    with Session(exports.bench.engine) as session, session.begin():
        # The query waits for this lock, and sends nothing.
        session.execute(text("LOCK TABLE pages IN ACCESS EXCLUSIVE MODE"))
        exports.publish(event)
        exports.until_running(event)
        exports.kill()

    exports.assert_made(event)


def test_an_export_survives_two_deaths_of_its_worker_at_any_moment(exports: Exports) -> None:
    assert_exports_survive_kills(exports, kills=2, seed=13)


def test_a_cancel_ends_a_query_that_sends_nothing(exports: Exports) -> None:
    event = exports.large()
    assert event.job_id is not None
    with Session(exports.bench.engine) as session, session.begin():
        # The query waits for this lock, and sends nothing.
        session.execute(text("LOCK TABLE pages IN ACCESS EXCLUSIVE MODE"))
        exports.publish(event)
        exports.until_running(event)
        with Session(exports.bench.engine) as other, other.begin():
            other.execute(steps.cancel(event.job_id))
        eventually(
            lambda: exports.bench.step(event, StepName.EXPORT).lease_owner,
            until=lambda owner: owner is None,
        )

    assert exports.job(event).status is JobStatus.CANCELLED
    assert exports.left(event) == []
