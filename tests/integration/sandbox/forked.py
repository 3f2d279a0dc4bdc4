"""Runs work in a child of its own."""

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import uuid4

from pipeline.ingest.sandbox.fork import Answer, AnswerLimits, ChildLimits, Send
from pipeline.ingest.sandbox.reader import Reader
from schemas.ids import TenantId
from schemas.settings import MIB

LIMITS: Final = AnswerLimits(
    idle=timedelta(seconds=20),
    cpu=timedelta(seconds=20),
    frame_cpu=timedelta(seconds=20),
    frame_bytes=MIB,
    output_bytes=4 * MIB,
)
TENANT_ID: Final = TenantId(uuid4())

Work = Callable[[Send], None]


@contextmanager
def forked(
    work: Work, *, limits: AnswerLimits = LIMITS, memory_bytes: int = 256 * MIB
) -> Iterator[Answer]:
    """Run `work(send)` in a child that answers this request only."""
    reader = Reader(lambda _, send: work(send), documents_max=1)
    with reader.answer(
        b"", tenant_id=TENANT_ID, child_limits=ChildLimits(memory_bytes=memory_bytes), limits=limits
    ) as answer:
        yield answer


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that waits for the end of a process and returns whether it ended."""
    handle = os.pidfd_open(pid)
    try:
        yield lambda: bool(select.select([handle], [], [], 60)[0])
    finally:
        os.close(handle)
