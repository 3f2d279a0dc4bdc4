"""The trigger that wakes waiting clients covers every column of a job that clients see."""

import re
from typing import cast

from sqlalchemy import create_engine, text

from gateway.jobs import queries
from schemas.lifecycle import JobStage, JobStatus
from schemas.settings import DatabaseSettings
from schemas.tables.jobs import Job

NEVER_CHANGES = {"id", "upload_id", "created_at"}
CHANGES_WITH = {
    "error_detail": "error_code",
    "error_retryable": "error_code",
    "started_at": "status",
    "stored_at": "stage",
    "finished_at": "status",
}
"""Columns that every statement sets together with a column of the trigger."""


class ReadColumns:
    """Records which columns of a job are read."""

    def __init__(self, *, error_code: str | None) -> None:
        self.names: set[str] = set()
        self._values = {
            "status": JobStatus.PROCESSING,
            "stage": JobStage.INGEST,
            "bytes_done": 0,
            "bytes_total": 0,
            "pages_done": 0,
            "error_code": error_code,
        }

    def __getattr__(self, name: str) -> object:
        self.names.add(name)
        return self._values.get(name)


def columns_clients_see() -> set[str]:
    names = set[str]()
    for error_code in (None, "staging_corrupt"):
        job = ReadColumns(error_code=error_code)
        queries.show(cast("Job", job))
        names |= job.names
    return names


def columns_of_the_trigger(database: DatabaseSettings) -> set[str]:
    engine = create_engine(database.database_url.get_secret_value())
    with engine.connect() as connection:
        definition = connection.scalar(
            text("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'count_revision'")
        )
    engine.dispose()
    return set(re.findall(r"new\.(\w+)", str(definition), re.IGNORECASE))


def test_the_trigger_covers_every_column_that_clients_see(database: DatabaseSettings) -> None:
    counted = columns_of_the_trigger(database)
    assert columns_clients_see() - NEVER_CHANGES - CHANGES_WITH.keys() == counted
    assert set(CHANGES_WITH.values()) <= counted
    assert columns_clients_see() <= {column.key for column in Job.__table__.columns}
