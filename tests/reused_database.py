"""One database for many tests; at the start of each test it equals a new copy of the template."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from dev.stack.stack import Stack
from schemas.settings import DatabaseSettings

DEAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""Tables that deleted rows have grown beyond this size are replaced, not vacuumed."""

CATALOG: Final = """
WITH changes (id, writer, planner_rows) AS (
    SELECT oid, xmin, reltuples FROM pg_class
    UNION ALL SELECT attrelid, xmin, 0 FROM pg_attribute
    UNION ALL SELECT oid, xmin, 0 FROM pg_attrdef
    UNION ALL SELECT oid, xmin, 0 FROM pg_constraint
    UNION ALL SELECT indexrelid, xmin, 0 FROM pg_index
    UNION ALL SELECT inhrelid, xmin, 0 FROM pg_inherits
    UNION ALL SELECT oid, xmin, 0 FROM pg_namespace
    UNION ALL SELECT oid, xmin, 0 FROM pg_proc
    UNION ALL SELECT oid, xmin, 0 FROM pg_trigger
    UNION ALL SELECT oid, xmin, 0 FROM pg_type
    UNION ALL SELECT oid, xmin, 0 FROM pg_extension
    UNION ALL SELECT setdatabase, xmin, 0 FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT count(*), sum(id::bigint), sum(writer::text::bigint), sum(planner_rows::bigint)
FROM changes WHERE id >= 16384
"""
"""Changes with every change of the schema, of the database's settings and of the planner's statistics."""

TABLES: Final = """
SELECT oid::regclass::text, pg_relation_size(oid) FROM pg_class
WHERE relkind = 'r' AND oid >= 16384 AND relpersistence = 'p' AND pg_relation_size(oid) > 0
"""

SEQUENCES: Final = """
SELECT seqrelid::regclass::text, coalesce(pg_sequence_last_value(seqrelid), seqstart),
    pg_sequence_last_value(seqrelid) IS NOT NULL
FROM pg_sequence ORDER BY seqrelid
"""

DISCONNECT: Final = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True, kw_only=True)
class _Template:
    """What a new copy of the template contains."""

    catalog: tuple[object, ...] | None
    rows: dict[str, bytes]
    sequences: list[tuple[object, ...]]


class ReusedDatabase:
    """Deletes the rows of a test before the next test, which takes a tenth of a new copy's time.

    A new copy replaces the database after a test that changed the schema, the planner's statistics
    or the size of the tables.
    """

    def __init__(self, infrastructure: Stack, *, template: str) -> None:
        self._infrastructure = infrastructure
        self._template_name = template
        self._name = f"test-{uuid4().hex[:12]}"
        self._template: _Template | None = None
        self._url = ""
        # Kept between tests: opening one takes longer than deleting the rows of a test.
        self._connection: psycopg.Connection | None = None

    def renew(self) -> DatabaseSettings:
        """Close all connections of the database and return it as a copy of the template."""
        if self._template is None or not self._empty(self._template):
            self._disconnect()
            self._url = self._infrastructure.create_database(
                self._name, template=self._template_name
            )["DATABASE_URL"]
            self._template = _read(self._connect())
        return DatabaseSettings.model_validate({"database_url": self._url})

    def drop(self) -> None:
        self._disconnect()
        self._infrastructure.drop_database(self._name)

    def _empty(self, template: _Template) -> bool:
        """Delete what a test left; return whether the database now equals the template."""
        connection = self._alone()
        if connection.execute(CATALOG).fetchone() != template.catalog:
            return False
        tables = connection.execute(TABLES).fetchall()
        if sum(size for _, size in tables) > DEAD_BYTES_MAX:
            return False
        with connection.transaction():
            connection.execute("; ".join(f"DELETE FROM {table}" for table, _ in tables))  # noqa: S608  # quoted by `regclass`
            for table, rows in template.rows.items():
                with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(rows)
            for sequence in template.sequences:
                connection.execute("SELECT setval(%s::regclass, %s, %s)", sequence)
        return True

    def _alone(self) -> psycopg.Connection:
        """Close all other connections of the database; return one."""
        try:
            connection = self._connection or self._connect()
            connection.execute(DISCONNECT)
        except psycopg.OperationalError:  # the last test ended the connection, or the server
            connection = self._connect()
            connection.execute(DISCONNECT)
        return connection

    def _connect(self) -> psycopg.Connection:
        self._disconnect()
        address = urlsplit(self._url)._replace(scheme="postgresql")
        self._connection = psycopg.connect(address.geturl(), autocommit=True)
        # Triggers would write new rows, and foreign keys would demand an order of the tables.
        self._connection.execute("SET session_replication_role = replica")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _read(connection: psycopg.Connection) -> _Template:
    return _Template(
        catalog=connection.execute(CATALOG).fetchone(),
        rows={
            table: _rows_of(connection, table) for table, _ in connection.execute(TABLES).fetchall()
        },
        sequences=connection.execute(SEQUENCES).fetchall(),
    )


def _rows_of(connection: psycopg.Connection, table: str) -> bytes:
    with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
        return b"".join(bytes(piece) for piece in copy)
