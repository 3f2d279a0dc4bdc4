"""The composition root of the pipeline: the resources of a worker process.

Each process opens its connections after the fork: two processes that share a
socket mix their answers. The language model is loaded before the fork, so that
all processes share its memory and a replacement process need not load it.
"""

import os
import socket
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Engine

from pipeline import db
from pipeline.db import BeginSession
from pipeline.settings import Settings
from pipeline.storage.port import ObjectStorage
from pipeline.storage.s3 import S3Storage


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
    engine = db.build_engine(settings)
    return Context(
        settings=settings,
        engine=engine,
        transaction=db.transactions(engine),
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
