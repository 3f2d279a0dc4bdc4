"""Engine and transactions of a worker process; built after the fork, never before."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Final, TypeAlias

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from schemas.runtime import postgres
from schemas.settings import DatabaseSettings

BeginSession: TypeAlias = Callable[[], AbstractContextManager[Session]]
"""Opens a session, commits when the block ends, rolls back when it raises."""

CONNECTION: Final[dict[str, Any]] = {
    **postgres.connection_arguments(name="waybill-pipeline", silence_max=timedelta(minutes=1)),
    # The server must notice a lost worker too: it would hold the worker's row locks for two hours.
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}


def build_engine(settings: DatabaseSettings) -> Engine:
    return postgres.build_engine(settings, connection=CONNECTION)


def transactions(engine: Engine) -> BeginSession:
    return sessionmaker(engine, expire_on_commit=False).begin
