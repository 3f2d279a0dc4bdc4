"""The composition root of the pipeline: the resources of a worker process.

Each process opens its connections after the fork: two processes that share a
socket mix their answers. The language model is loaded before the fork, so that
all processes share its memory and a replacement process need not load it.
"""

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias
from uuid import uuid4

from sqlalchemy import DateTime, Engine, Select, func, select
from sqlalchemy.orm import Session, sessionmaker

from pipeline.settings import Settings
from pipeline.storage.port import ObjectStorage
from pipeline.storage.s3 import S3Storage
from schemas.runtime import postgres
from schemas.runtime.database_clock import DatabaseClock

BeginSession: TypeAlias = Callable[[], AbstractContextManager[Session]]
"""Opens a session, commits when the block ends, rolls back when it raises."""


class WillBeRead(Protocol):
    """Decides whether a stored file is read for its text."""

    def __call__(self, content_type: str, *, declared: str | None, filename: str) -> bool:
        """Return the decision.

        Args:
            content_type: media type of the stored object.
            declared: media type that the client declared.
            filename: name of the file.
        """


PIPELINE: Final = "waybill-pipeline"

CONNECTION: Final[dict[str, Any]] = {
    **postgres.connection_arguments(name=PIPELINE, silence_max=timedelta(minutes=1)),
    # The server must also notice a lost worker: otherwise it would hold the worker's row locks for
    # two hours.
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}


_NOW: Final[Select[datetime]] = select(func.now())
_CLOCK: Final[Select[datetime]] = select(func.clock_timestamp(type_=DateTime(timezone=True)))


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: Settings
    engine: Engine
    transaction: BeginSession
    storage: ObjectStorage
    clock: DatabaseClock
    will_be_read: WillBeRead

    def look_at_clock(self) -> None:
        """Compare the clock of this process with the database's, at most once a minute."""
        if not self.clock.is_due:
            return
        asked = self.clock.wall()
        with self.engine.connect() as connection:
            self.clock.set(connection.execute(_NOW).scalar_one(), asked=asked)

    def new_lease_owner(self) -> str:
        """Return a name that is unique to this delivery; it fences out earlier deliveries."""
        return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"


def database_time(session: Session) -> datetime:
    """Return the database's time now, not at the start of the transaction, which may be minutes ago.

    Times that are recorded or decide something come from the database: a worker's clock may be wrong.
    """
    return session.execute(_CLOCK).scalar_one()


_current: Context | None = None


def build_context(settings: Settings, *, will_be_read: WillBeRead, name: str = PIPELINE) -> Context:
    """Return a context whose connections to the database have this name."""
    engine = postgres.build_engine(settings, connection={**CONNECTION, "application_name": name})
    return Context(
        settings=settings,
        engine=engine,
        transaction=sessionmaker(engine, expire_on_commit=False).begin,
        storage=S3Storage.connect(settings),
        clock=DatabaseClock(difference_max=settings.clock_difference_max),
        will_be_read=will_be_read,
    )


def install_context(context: Context) -> None:
    """Set the context of this process; called once, when the process starts."""
    global _current  # noqa: PLW0603  # a process has one context
    _current = context


def current_context() -> Context:
    if _current is None:
        raise RuntimeError("no context: the worker process was not initialised")
    return _current
