"""Engine and transactions of a worker process; made after the fork, never before."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from schemas.settings import DatabaseSettings

Transaction: TypeAlias = Callable[[], AbstractContextManager[Session]]
"""Opens a session, commits when the block ends, rolls back when it raises."""


# A peer that vanished without a word is noticed in a minute, here and by the server:
# not in the kernel's quarter of an hour, with a row lock of ours held for two hours.
CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    # After a failover the old primary may still answer, read-only.
    "target_session_attrs": "read-write",
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
    "application_name": "waybill-pipeline",
}

READ_ONLY: Final = "25006"
LIMIT_EXCEEDED: Final = "54"
"""SQLSTATE class of statements too large for the server; it is the statement, not an outage."""


def build_engine(settings: DatabaseSettings) -> Engine:
    return create_engine(
        settings.database_url.get_secret_value(),
        # Most of it stays unopened: a worker process does one thing at a time.
        pool_size=settings.database_pool_size,
        max_overflow=0,
        # A connection the server closed meanwhile would fail the first query after a restart.
        pool_pre_ping=True,
        # A failed insert's message would carry the text of a document into the log.
        hide_parameters=True,
        connect_args=CONNECTION,
    )


def transactions(engine: Engine) -> Transaction:
    return sessionmaker(engine, expire_on_commit=False).begin


def is_unreachable(error: BaseException) -> bool:
    """Whether the database is away, so that the same work may succeed later, unchanged."""
    if not isinstance(error, (OperationalError, InterfaceError, InternalError)):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    if isinstance(error, InternalError):
        return state == READ_ONLY
    return not state.startswith(LIMIT_EXCEEDED)
