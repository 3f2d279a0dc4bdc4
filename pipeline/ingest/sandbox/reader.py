"""Keeps a warm child for the next document of the same tenant."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from pipeline.ingest.sandbox.fork import (
    ALL_SIGNALS,
    Answer,
    AnswerLimits,
    Child,
    ChildLimits,
    Serve,
)
from schemas.ids import TenantId
from schemas.settings import MIB

GROWTH_MAX: Final = 64 * MIB
"""Memory that a child may keep between two documents; more comes from a large document or a leak."""

log = structlog.stdlib.get_logger(__name__)


class Reader:
    """Answers requests in a child process, one at a time.

    The child serves the next request if it is healthy: its last answer was complete, it is of the
    same tenant with the same limits, has answered fewer than `documents_max` requests, and has not
    grown. Otherwise a fresh one is forked. A child of one tenant never serves another tenant: a
    document that takes over the child cannot read documents of others.

    Belongs to one thread of one process.
    """

    def __init__(self, serve: Serve, *, documents_max: int) -> None:
        self._serve = serve
        self._documents_max = documents_max
        self._child: Child | None = None
        self._tenant_id: TenantId | None = None
        self._answered = 0
        self._is_answering = False

    @contextmanager
    def answer(
        self,
        request: bytes,
        *,
        tenant_id: TenantId,
        child_limits: ChildLimits,
        limits: AnswerLimits,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[Answer]:
        """Send a request; yield its answer, an iterator over frames.

        While the parent waits for a frame, it calls `while_waiting` four times a second. What this call
        raises ends the block. When the block ends before the answer is complete, in whatever way,
        the child is killed and reaped.

        Raises, from the iterator:
            ChildTimedOut, ChildOutOfMemory, ChildOutputTooLarge, ChildDied.
        """
        if self._is_answering:
            raise RuntimeError("the reader is answering another request")
        # An exception from a signal handler (Celery's soft time limit) right after the
        # fork would leak the child.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        try:
            child = self._child_for(tenant_id, limits=child_limits)
            self._is_answering = True
            is_complete = False
            try:
                answer = child.ask(request, limits=limits, while_waiting=while_waiting)
                try:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                    yield answer
                    is_complete = answer.is_complete
                finally:
                    signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
                    answer.end()
            finally:
                self._is_answering = False
                self._answered += 1
                if not (is_complete and self._may_serve_another(child)):
                    self.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def close(self) -> None:
        """End the child; the next request forks a fresh one."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS)
        try:
            if self._child is not None:
                self._child.end()
                self._child = None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _child_for(self, tenant_id: TenantId, *, limits: ChildLimits) -> Child:
        if self._child is not None and not (
            self._tenant_id == tenant_id and self._child.limits == limits and self._child.is_idle
        ):
            self.close()
        if self._child is None:
            self._child = Child.fork(self._serve, limits=limits)
            self._tenant_id = tenant_id
            self._answered = 0
        return self._child

    def _may_serve_another(self, child: Child) -> bool:
        return self._answered < self._documents_max and child.growth_bytes() <= GROWTH_MAX
