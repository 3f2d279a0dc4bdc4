"""Writes the rows of an export into a temporary file, in one read-only transaction.

The transaction reads one state of the database. It waits for the disk alone, never for the object
store, and is over before the file is sent. Memory holds one block, however many rows there are.
"""

import hashlib
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, cast

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Engine

from pipeline.export import statement
from pipeline.export.errors import ExportTooLarge, NoDiskSpace
from pipeline.export.statement import Query
from pipeline.storage.scratch import ScratchFile
from schemas.lifecycle import ExportFormat
from schemas.settings import ExportSettings

BLOCK_BYTES: Final = 256 * 1024
"""Rows are joined to blocks of about this size: a system call for each row would cost more than the row."""

WAIT_MAX: Final = timedelta(milliseconds=500)
"""How long the query may be silent between two calls of the heartbeat."""

BOM: Final = b"\xef\xbb\xbf"

_CANCEL_TIMEOUT_SECONDS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Spooled:
    """A complete file; `rows` does not count the header."""

    rows: int
    size_bytes: int
    sha256: str


def spool(
    engine: Engine,
    query: Query,
    *,
    to: ScratchFile,
    settings: ExportSettings,
    on_rows: Callable[[int], None],
) -> Spooled:
    """Write the file of an export.

    Args:
        engine: the database.
        query: what the file has.
        to: receives the bytes.
        settings: limits.
        on_rows: gets the number of rows so far, at least twice a second; an error that it raises
            ends the query.

    Raises:
        ExportTooLarge: the file or the query exceeds its limit.
        NoDiskSpace: too little space is left on the disk.
    """
    file = _File(to, query=query, settings=settings)
    began = time.monotonic()
    try:
        with _snapshot(engine, time_max=settings.export_time_max) as connection:
            cursor = psycopg.ClientCursor(connection)
            # Values become literals here: COPY takes no parameters.
            command = cursor.mogrify(statement.copy_of(query), statement.values_of(query))
            for rows in _messages(connection.pgconn, command.encode()):
                file.add(rows)
                on_rows(file.rows)
    except psycopg.errors.QueryCanceled as error:
        if time.monotonic() - began < settings.export_time_max.total_seconds():
            raise
        raise ExportTooLarge.by_time(settings.export_time_max) from error
    return file.ended()


class _File:
    """Adds blocks of rows to the file, within its limits."""

    def __init__(self, to: ScratchFile, *, query: Query, settings: ExportSettings) -> None:
        self._to = to
        self._settings = settings
        self._is_csv = query.format is ExportFormat.CSV
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        # The first message of a CSV file is its header.
        self.rows = -1 if self._is_csv else 0
        if query.bom:
            self._write(BOM)

    def add(self, rows: list[bytes]) -> None:
        """Write messages of COPY: one row each, which ends with a line feed.

        Raises:
            ExportTooLarge, NoDiskSpace: see `spool`.
        """
        if not rows:
            return
        self.rows += len(rows)
        if self._is_csv:
            # RFC 4180 ends a row with CR LF. A line feed inside a quoted cell stays.
            self._write(b"\r\n".join([row[:-1] for row in rows]) + b"\r\n")
        else:
            self._write(b"".join(rows))

    def ended(self) -> Spooled:
        return Spooled(rows=self.rows, size_bytes=self._size_bytes, sha256=self._sha256.hexdigest())

    def _write(self, block: bytes) -> None:
        self._size_bytes += len(block)
        if self._size_bytes > self._settings.export_size_max:
            raise ExportTooLarge.by_bytes(self._settings.export_size_max)
        if self._to.free_bytes() < self._settings.export_disk_reserve:
            raise NoDiskSpace
        self._sha256.update(block)
        self._to.write(block)


@contextmanager
def _snapshot(engine: Engine, *, time_max: timedelta) -> Iterator[psycopg.Connection[Any]]:
    """Open a read-only transaction with the settings of an export; an error ends its query."""
    with engine.connect() as connection:
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        try:
            driver.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for setting in statement.PLANNING:
                driver.execute(setting.encode())
            milliseconds = int(time_max.total_seconds() * 1000)
            driver.execute(f"SET LOCAL statement_timeout = {milliseconds}".encode())
            yield driver
            driver.rollback()
        except BaseException:
            # In the middle of COPY a connection cannot be used again. Without a cancel, the query
            # would end only when it next sends a row. The error counts, not that of the cancel.
            with suppress(psycopg.Error):
                driver.cancel_safe(timeout=_CANCEL_TIMEOUT_SECONDS)
            connection.invalidate()
            raise


def _messages(connection: PGconn, command: bytes) -> Iterator[list[bytes]]:
    """Yield the messages of COPY in blocks; an empty block while the query is silent.

    The driver's own iterator takes several microseconds for each message, which is more than the
    database does.
    """
    connection.send_query(command)
    connection.flush()
    while connection.is_busy():  # for example, because a migration locks a table
        yield []
        _receive(connection)
    result = connection.get_result()
    if result is None or result.status != ExecStatus.COPY_OUT:
        raise _error_of(result)
    received: list[bytes] = []
    size = 0
    due = time.monotonic() + WAIT_MAX.total_seconds()
    while True:
        count, message = connection.get_copy_data(1)
        if count < 0:
            break
        if count > 0:
            received.append(bytes(message))
            size += count
            if size < BLOCK_BYTES:
                continue
        else:
            _receive(connection)
            if time.monotonic() < due:
                continue
        yield received
        received, size = [], 0
        due = time.monotonic() + WAIT_MAX.total_seconds()
    yield received
    while (ended := connection.get_result()) is not None:
        if ended.status != ExecStatus.COMMAND_OK:
            raise _error_of(ended)


def _receive(connection: PGconn) -> None:
    """Receive what the server has sent; wait for it for a while."""
    if select.select([connection.socket], [], [], WAIT_MAX.total_seconds())[0]:
        connection.consume_input()


def _error_of(result: PGresult | None) -> psycopg.Error:
    if result is None:
        return psycopg.OperationalError("the server did not answer the query")
    return psycopg.errors.error_from_result(result)
