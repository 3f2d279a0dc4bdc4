"""The migration to revisions keeps every document with its pages, in both directions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from dev.stack.stack import Stack
from schemas.outcomes import Reason
from tests.stack import fresh_name

BEFORE: Final = "0010"
TENANT: Final = uuid4()
TEXT: Final = "Hé Ann. Write to ann@example.com.  Bye."
SENTENCES: Final = [(0, 7), (8, 33), (35, 39)]

Row = dict[str, Any]

OLD_TABLES: Final = {
    "documents": "id",
    "pages": "document_id, number",
    "passages": "document_id, page, ordinal",
    "entities": "document_id, page, ordinal",
    "steps": "job_id, ordinal",
    "jobs": "id",
    "tenant_steps": "name",
}


class Database:
    """A database that is migrated up and down."""

    def __init__(self, infrastructure: Stack, settings: Mapping[str, str]) -> None:
        self._infrastructure = infrastructure
        self._settings = settings

    def migrate(self, *, to: str, down: bool = False) -> None:
        command = "downgrade" if down else "upgrade"
        self._infrastructure.run(("alembic", command, to), settings=self._settings)

    def connect(self) -> "psycopg.Connection[Row]":
        url = urlsplit(self._settings["DATABASE_URL"])._replace(scheme="postgresql")
        return psycopg.Connection[Row].connect(url.geturl(), autocommit=True, row_factory=dict_row)

    def rows(self, statement: str, *values: object) -> list[Row]:
        with self.connect() as connection:
            return connection.execute(statement, values).fetchall()

    def row(self, statement: str, *values: object) -> Row:
        (row,) = self.rows(statement, *values)
        return row

    def snapshot(self) -> dict[str, list[Row]]:
        return {
            table: self.rows(f"SELECT * FROM {table} ORDER BY {key}")  # noqa: S608  # names above
            for table, key in OLD_TABLES.items()
        }


@pytest.fixture(scope="module")
def template(infrastructure: Stack) -> Iterator[str]:
    """The name of a database of the earlier version, with a tenant; tests copy it."""
    name = fresh_name()
    database = Database(infrastructure, infrastructure.create_database(name))
    database.migrate(to=BEFORE)
    database.rows("INSERT INTO tenants (id, name) VALUES (%s, 'harbour') RETURNING id", TENANT)
    yield name
    infrastructure.drop_database(name)


@pytest.fixture
def database(infrastructure: Stack, template: str) -> Iterator[Database]:
    name = fresh_name()
    yield Database(infrastructure, infrastructure.create_database(name, template=template))
    infrastructure.drop_database(name)


def add_document(
    database: Database,
    *,
    status: str = "ingested",
    pages: Sequence[tuple[str, str | None]] = (),
    step: str = "completed",
    **columns: object,
) -> UUID:
    """Add a document at revision 0010; a page is its text and its error."""
    upload_id, job_id, document_id = uuid4(), uuid4(), uuid4()
    is_read = status == "ingested"
    values = {
        "id": document_id,
        "tenant_id": TENANT,
        "upload_id": upload_id,
        "job_id": job_id,
        "status": status,
        "filename": "a.pdf",
        "content_type": "application/pdf",
        "size": 7,
        "sha256": "ab" * 32,
        "object_key": "key",
        "etag": "e",
        "page_count": len(pages) if is_read else None,
        "language": "en" if is_read else None,
        "truncated": False,
        "pdf_metadata": Jsonb({"title": "A title"} if is_read else {}),
        **columns,
    }
    with database.connect() as connection, connection.transaction():
        connection.execute(
            "INSERT INTO uploads (id, tenant_id, status, filename, size, chunk_size, chunk_count, expires_at)"
            " VALUES (%s, %s, 'stored', 'a.pdf', 7, 7, 1, now())",
            (upload_id, TENANT),
        )
        connection.execute(
            "INSERT INTO jobs (id, tenant_id, upload_id, status, stage) VALUES (%s, %s, %s, 'queued', 'transfer')",
            (job_id, TENANT, upload_id),
        )
        for name, ordinal, step_status in (("transfer", 0, "completed"), ("ingest", 1, step)):
            connection.execute(
                "INSERT INTO steps (job_id, name, ordinal, tenant_id, priority, event_id, status, done, total, started_at, error_code)"
                " VALUES (%s, %s, %s, %s, 'interactive', gen_random_uuid(), %s, 3, 10, now(), %s)",
                (
                    job_id,
                    name,
                    ordinal,
                    TENANT,
                    step_status,
                    columns.get("error_code") if name == "ingest" else None,
                ),
            )
        names = ", ".join(values)
        connection.execute(
            f"INSERT INTO documents ({names}) VALUES ({', '.join(['%s'] * len(values))})",  # noqa: S608  # names above
            tuple(values.values()),
        )
        for number, (text, error) in enumerate(pages, start=1):
            connection.execute(
                "INSERT INTO pages (document_id, number, text, error_code, width_points, height_points)"
                " VALUES (%s, %s, %s, %s, 595, 842)",
                (document_id, number, text, error),
            )
            if text != TEXT:
                continue
            for ordinal, (start, end) in enumerate(SENTENCES):
                connection.execute(
                    'INSERT INTO passages (document_id, page, ordinal, start, "end", text) VALUES (%s, %s, %s, %s, %s, %s)',
                    (document_id, number, ordinal, start, end, text[start:end]),
                )
            connection.execute(
                'INSERT INTO entities (document_id, page, ordinal, label, text, normal_form, start, "end")'
                " VALUES (%s, %s, 0, 'EMAIL', 'ann@example.com', 'ann@example.com', 17, 32)",
                (document_id, number),
            )
    return document_id


def document(database: Database, document_id: UUID) -> Row:
    return database.row(
        "SELECT documents.*, to_jsonb(revisions) AS revision FROM documents"
        " LEFT JOIN revisions ON revisions.id = revision_id WHERE documents.id = %s",
        document_id,
    )


def test_a_document_that_was_read_becomes_its_first_revision(database: Database) -> None:
    document_id = add_document(database, pages=[(TEXT, None), ("", None)])
    database.migrate(to="head")

    migrated = document(database, document_id)
    revision = migrated["revision"]
    assert (migrated["status"], migrated["outcome"]) == ("ingested", "complete")
    assert (revision["number"], revision["state"], revision["reasons"]) == (1, "published", [])
    assert (revision["page_count"], revision["pages_read"], revision["pages_no_text"]) == (2, 2, 1)
    assert (revision["passages"], revision["entities"]) == (3, 1)
    assert (revision["title"], revision["metadata"]) == ("A title", {"title": "A title"})
    first, second = database.rows(
        "SELECT * FROM pages WHERE revision_id = %s ORDER BY number", migrated["revision_id"]
    )
    assert (first["status"], first["outcome"], first["text"]) == ("read", "complete", TEXT)
    assert first["sentences"] == [bound for sentence in SENTENCES for bound in sentence]
    assert (second["outcome"], second["sentences"]) == ("no_text", [])
    assert database.row("SELECT page, start FROM entities") == {"page": 1, "start": 17}


def test_a_document_with_missing_pages_becomes_partial(database: Database) -> None:
    failed = ("", "pdf_timeout")
    document_id = add_document(
        database,
        pages=[(TEXT, None), failed, failed, (TEXT, "pdf_out_of_memory"), failed],
        page_count=7,
        truncated=True,
    )
    database.migrate(to="head")

    migrated = document(database, document_id)
    revision = migrated["revision"]
    assert (migrated["status"], migrated["outcome"]) == ("partial", "partial")
    assert (revision["pages_read"], revision["pages_failed"]) == (2, 3)
    assert [(each["outcome"], each["pages"]) for each in revision["reasons"]] == [
        ("out_of_memory", [[4, 4]]),
        ("timeout_page", [[2, 3], [5, 5]]),
        ("limit_pages", [[6, 7]]),
    ]
    assert {frozenset(each) for each in revision["reasons"]} == {
        frozenset(Reason.__struct_fields__)
    }


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        ("pdf_encrypted", "document_encrypted", "encrypted"),
        ("pdf_limit_exceeded", "document_limit", "limit_page_content"),
        ("pdf_timeout", "document_timeout", "timeout_document"),
        ("store_unavailable", "store_unavailable", None),
    ],
)
def test_the_codes_of_failed_documents_are_renamed_and_restored(
    old: str, new: str, outcome: str | None, database: Database
) -> None:
    document_id = add_document(database, status="failed", step="failed", error_code=old)
    database.migrate(to="head")
    migrated = document(database, document_id)
    assert (migrated["status"], migrated["error_code"], migrated["outcome"]) == (
        "failed",
        new,
        outcome,
    )
    assert migrated["revision_id"] is None
    steps = "SELECT error_code FROM steps WHERE name = 'ingest'"
    assert database.row(steps) == {"error_code": new}
    database.migrate(to=BEFORE, down=True)
    assert database.row(steps) == {"error_code": old}
    assert database.row("SELECT error_code FROM documents") == {"error_code": old}


def test_an_open_reading_starts_from_its_first_page(database: Database) -> None:
    document_id = add_document(database, status="stored", step="queued")
    unread = add_document(database, status="stored")
    database.migrate(to="head")
    assert document(database, document_id)["status"] == "reading"
    assert document(database, unread)["status"] == "stored"
    step = database.row(
        "SELECT done, ordinal FROM steps WHERE name = 'ingest' AND status = 'queued'"
    )
    assert step == {"done": 0, "ordinal": 2}


def test_a_downgrade_restores_documents_pages_and_sentences(database: Database) -> None:
    add_document(database, pages=[(TEXT, None), ("", None)])
    add_document(database, pages=[(TEXT, None), ("", "pdf_timeout")])
    add_document(database, pages=[(TEXT, "pdf_out_of_memory")], truncated=True)
    add_document(database, status="failed", step="failed", error_code="pdf_corrupt")
    before = database.snapshot()
    database.migrate(to="head")
    database.migrate(to=BEFORE, down=True)
    restored = database.snapshot()
    for table in OLD_TABLES:
        changing = {"revision", "updated_at"} if table == "jobs" else set[str]()
        assert [_without(row, changing) for row in restored[table]] == [
            _without(row, changing) for row in before[table]
        ], table
    database.migrate(to="head")


def _without(row: Row, columns: set[str]) -> Row:
    return {name: value for name, value in row.items() if name not in columns}


ADD_STEP: Final = (
    "INSERT INTO steps (job_id, name, ordinal, tenant_id, priority, event_id, status)"
    " SELECT job_id, %s, %s, tenant_id, priority, event_id, %s FROM steps"
    " WHERE name = 'ingest' RETURNING job_id"
)


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("ocr", "running", ("queued", "processing", "ingest")),
        ("ingest_rest", "queued", ("queued", "processing", "ingest")),
        ("ingest_rest", "failed", ("failed", "failed", "ingest")),
        ("metadata", "queued", ("completed", "completed", "done")),
    ],
)
def test_a_downgrade_ends_or_repeats_what_the_earlier_version_does_not_do(
    name: str, status: str, expected: tuple[str, str, str], database: Database
) -> None:
    add_document(database, pages=[(TEXT, None)])
    database.migrate(to="head")
    ordinals = {"metadata": 1, "ingest_rest": 3, "ocr": 4}
    database.rows(ADD_STEP, name, ordinals[name], status)
    database.migrate(to=BEFORE, down=True)
    step = database.row("SELECT * FROM steps WHERE name = 'ingest'")
    job = database.row("SELECT status, stage FROM jobs")
    assert (step["status"], job["status"], job["stage"]) == expected
    assert [row["name"] for row in database.rows("SELECT name FROM steps ORDER BY ordinal")] == [
        "transfer",
        "ingest",
    ]
    published = database.rows("SELECT event_id, queue FROM outbox")
    again = [{"event_id": step["event_id"], "queue": "document_processing"}]
    assert published == (again if expected[0] == "queued" else [])
    counters = database.rows("SELECT name, in_broker, waiting FROM tenant_steps ORDER BY name")
    assert counters == [
        {"name": "ingest", "in_broker": int(expected[0] == "queued"), "waiting": 0},
        {"name": "transfer", "in_broker": 0, "waiting": 0},
    ]


def test_a_downgrade_keeps_the_published_revision_and_removes_reprocessing_jobs(
    database: Database,
) -> None:
    document_id = add_document(database, pages=[(TEXT, None)])
    database.migrate(to="head")
    with database.connect() as connection, connection.transaction():
        job_id, revision_id = uuid4(), uuid4()
        connection.execute(
            "INSERT INTO jobs (id, tenant_id, kind, status, stage) VALUES (%s, %s, 'reprocess', 'completed', 'done')",
            (job_id, TENANT),
        )
        connection.execute("UPDATE revisions SET state = 'superseded'")
        connection.execute(
            "INSERT INTO revisions (id, document_id, tenant_id, job_id, number, pipeline_version, state, page_count)"
            " VALUES (%s, %s, %s, %s, 2, '2', 'published', 1)",
            (revision_id, document_id, TENANT, job_id),
        )
        connection.execute(
            "INSERT INTO pages (revision_id, number, status, outcome, text, sentences)"
            " VALUES (%s, 1, 'ocr', 'complete', 'A scan. Read.', '{0,7,8,13}')",
            (revision_id,),
        )
        connection.execute("UPDATE documents SET revision_id = %s", (revision_id,))
    database.migrate(to=BEFORE, down=True)
    assert database.row("SELECT document_id, text FROM pages") == {
        "document_id": document_id,
        "text": "A scan. Read.",
    }
    assert [row["text"] for row in database.rows("SELECT text FROM passages ORDER BY ordinal")] == [
        "A scan.",
        "Read.",
    ]
    assert database.row("SELECT kind FROM jobs") == {"kind": "upload"}
