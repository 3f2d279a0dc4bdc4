"""What a worker process works with; the composition root of the pipeline.

Connections are made in each process after the fork: a socket shared by two
processes mixes their answers. The language model is loaded before it, once,
so that the processes share its memory and a replaced one need not load it.
"""

import os
import socket
from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Engine

from pipeline import db
from pipeline.db import Transaction
from pipeline.settings import Settings
from pipeline.storage.port import ObjectStorage
from pipeline.storage.s3 import S3Storage


@dataclass(frozen=True, kw_only=True)
class Context:
    settings: Settings
    engine: Engine
    transaction: Transaction
    storage: ObjectStorage

    def new_lease_owner(self) -> str:
        """Return a name no other delivery of any event has; it fences out the ones before it."""
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


def install_context(resources: Context) -> None:
    """Make these the resources of this process; called once, when it starts."""
    global _current  # noqa: PLW0603  # one per process is what a composition root is
    _current = resources


def current_context() -> Context:
    if _current is None:
        raise RuntimeError("no resources: the worker process was not initialised")
    return _current
