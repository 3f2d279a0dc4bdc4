"""Engine and transactions of a worker process; made after the fork, never before."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from schemas.settings import DatabaseSettings

Transaction: TypeAlias = Callable[[], AbstractContextManager[Session]]
"""Opens a session, commits when the block ends, rolls back when it raises."""


def build_engine(settings: DatabaseSettings) -> Engine:
    return create_engine(
        settings.database_url.get_secret_value(),
        # A worker process does one thing at a time; its heartbeat may overlap.
        pool_size=2,
        max_overflow=2,
        # A connection the server closed meanwhile would fail the first query after a restart.
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": "waybill-pipeline"},
    )


def transactions(engine: Engine) -> Transaction:
    return sessionmaker(engine, expire_on_commit=False).begin
