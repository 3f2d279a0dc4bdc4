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
from datetime import timedelta
from typing import Any, Final, TypeAlias
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from pipeline.settings import Settings
from pipeline.storage.port import ObjectStorage
from pipeline.storage.s3 import S3Storage
from schemas.runtime import postgres

BeginSession: TypeAlias = Callable[[], AbstractContextManager[Session]]
"""Opens a session, commits when the block ends, rolls back when it raises."""

CONNECTION: Final[dict[str, Any]] = {
    **postgres.connection_arguments(name="waybill-pipeline", silence_max=timedelta(minutes=1)),
    # The server must also notice a lost worker: otherwise it would hold the worker's row locks for
    # two hours.
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
}


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: Settings
    engine: Engine
    transaction: BeginSession
    storage: ObjectStorage

    def new_lease_owner(self) -> str:
        """Return a name that is unique to this delivery; it fences out earlier deliveries."""
        return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"


_current: Context | None = None


def build_context(settings: Settings) -> Context:
    engine = postgres.build_engine(settings, connection=CONNECTION)
    return Context(
        settings=settings,
        engine=engine,
        transaction=sessionmaker(engine, expire_on_commit=False).begin,
        storage=S3Storage.connect(settings),
    )


def install_context(context: Context) -> None:
    """Set the context of this process; called once, when the process starts."""
    global _current  # noqa: PLW0603  # a process has one context
    _current = context


def current_context() -> Context:
    if _current is None:
        raise RuntimeError("no context: the worker process was not initialised")
    return _current
