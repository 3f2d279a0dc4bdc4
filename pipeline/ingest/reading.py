"""Reads one PDF in a sandbox child; the worker's side.

Use::

    with reading.open_document(request, reader=reader, tenant_id=tenant_id) as document:
        store_opening(document.opened)
        for page in document.pages():   # one page in memory at a time
            store_page(page)
        store_summary(document.summary)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from pipeline.ingest import frames
from pipeline.ingest.errors import (
    DocumentCrashed,
    DocumentEmpty,
    DocumentError,
    DocumentLimitExceeded,
    DocumentOutOfMemory,
    DocumentTimeout,
)
from pipeline.ingest.frames import (
    DocumentOpened,
    DocumentRead,
    Message,
    PageReading,
    ReadingFailed,
    ReadPages,
)
from pipeline.ingest.sandbox.fork import (
    AnswerLimits,
    ChildDied,
    ChildLimits,
    ChildOutOfMemory,
    ChildOutputTooLarge,
    ChildTimedOut,
)
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.ingest.sandbox.reader import Reader
from schemas.ids import TenantId
from schemas.outcomes import Outcome
from schemas.settings import MIB

_PAGE_GRACE: Final = timedelta(seconds=1)
# Bytes of output per byte of text; offsets, labels and normal forms need far less.
_OUTPUT_PER_TEXT: Final = 32

log = structlog.stdlib.get_logger(__name__)


class DocumentReading:
    """A PDF being read.

    Attributes:
        opened: the facts known before the first page.
    """

    def __init__(self, opened: DocumentOpened, *, messages: Iterator[Message]) -> None:
        self.opened = opened
        self._messages = messages
        self._summary: DocumentRead | None = None

    def pages(self) -> Iterator[PageReading]:
        """Yield the pages in order, as the child reads them; callable once.

        A page that cannot be read has an outcome that says why. Pages beyond a limit are
        left out, and the summary names that limit. Pages yielded before an error are valid.

        Raises:
            DocumentCorrupt, DocumentLimitExceeded, DocumentTimeout, DocumentOutOfMemory: no page could be
                read, or the whole document exceeds a limit.
            DocumentCrashed: the child died.
        """
        for message in self._messages:
            match message:
                case PageReading():
                    yield message
                case DocumentRead():
                    self._summary = message

    @property
    def summary(self) -> DocumentRead:
        """The summary, available once `pages` is exhausted."""
        if self._summary is None:
            raise RuntimeError("not all pages have been read")
        return self._summary


@contextmanager
def open_document(
    request: ReadPages,
    *,
    reader: Reader,
    tenant_id: TenantId,
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[DocumentReading]:
    """Open a document in a child of this process; leaving the block early kills the child.

    While it waits for the child, it calls `while_waiting` once a second; what this call raises ends
    the reading.

    The caller's time between pages does not count against the limits. A `MemoryError` in the block
    becomes `DocumentOutOfMemory`: otherwise it would end the whole Celery worker, and every next worker
    that receives the document.

    Raises:
        DocumentEmpty, DocumentEncrypted, DocumentCorrupt, DocumentLimitExceeded, DocumentTimeout,
        DocumentOutOfMemory, DocumentCrashed: the document does not open.
    """
    limits = request.limits
    size_bytes = Path(request.path).stat().st_size
    if size_bytes == 0:
        raise DocumentEmpty
    if size_bytes > limits.file_bytes:
        raise DocumentLimitExceeded(
            f"It has {size_bytes} bytes, more than {limits.file_bytes}.",
            outcome=Outcome.LIMIT_FILE_SIZE,
        )
    try:
        with reader.answer(
            frames.encode(request),
            tenant_id=tenant_id,
            child_limits=ChildLimits(memory_bytes=limits.memory_bytes),
            limits=_answer_limits(limits),
            while_waiting=while_waiting,
        ) as received:
            messages = _messages(received, limits=limits)
            yield DocumentReading(_opening(messages), messages=messages)
    except MemoryError as error:
        raise DocumentOutOfMemory from error


def _answer_limits(limits: ReadingLimits) -> AnswerLimits:
    return AnswerLimits(
        wait=limits.timeout,
        cpu=limits.timeout,
        # Two steps of a page are limited by the child itself; the rest is a call that the child
        # cannot interrupt.
        frame_cpu=2 * limits.page_timeout + _PAGE_GRACE,
        frame_bytes=_OUTPUT_PER_TEXT * limits.page_characters + MIB,
        output_bytes=_OUTPUT_PER_TEXT * limits.text_bytes + 1024 * limits.pages + MIB,
    )


def _messages(received: Iterable[bytes], *, limits: ReadingLimits) -> Iterator[Message]:
    try:
        for frame in received:
            message = frames.decode(frame)
            if isinstance(message, ReadingFailed):
                raise DocumentError(message.reason, outcome=message.outcome)
            yield message
    except ChildTimedOut:
        raise DocumentTimeout(f"The limit is {limits.timeout.total_seconds():g} s.") from None
    except ChildOutOfMemory:
        raise DocumentOutOfMemory from None
    except ChildOutputTooLarge:
        raise DocumentLimitExceeded(outcome=Outcome.LIMIT_TEXT) from None
    except ChildDied as death:
        log.warning(
            "ingest.child_died",
            signal_number=death.signal_number,
            exit_status=death.exit_status,
            child_traceback=death.traceback,
        )
        raise DocumentCrashed(
            signal_number=death.signal_number, exit_status=death.exit_status
        ) from None


def _opening(messages: Iterator[Message]) -> DocumentOpened:
    opened = next(messages)
    if not isinstance(opened, DocumentOpened):
        raise TypeError(f"the child's first message is {type(opened).__name__}")
    return opened
