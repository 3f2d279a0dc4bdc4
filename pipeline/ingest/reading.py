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

from pipeline.ingest import errors, frames
from pipeline.ingest.errors import (
    PdfCrashed,
    PdfEmpty,
    PdfLimitExceeded,
    PdfOutOfMemory,
    PdfTimeout,
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

        A page that cannot be read has an `error_code`. Pages beyond a limit are
        left out, and the summary lists that limit. Pages yielded before an error are valid.

        Raises:
            PdfCorrupt, PdfLimitExceeded, PdfTimeout, PdfOutOfMemory: no page could be
                read, or the whole document exceeds a limit.
            PdfCrashed: the child died.
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
    becomes `PdfOutOfMemory`: otherwise it would end the whole Celery worker, and every next worker
    that receives the document.

    Raises:
        PdfEmpty, PdfEncrypted, PdfCorrupt, PdfLimitExceeded, PdfTimeout,
        PdfOutOfMemory, PdfCrashed: the document does not open.
    """
    limits = request.limits
    size_bytes = Path(request.path).stat().st_size
    if size_bytes == 0:
        raise PdfEmpty
    if size_bytes > limits.file_bytes:
        raise PdfLimitExceeded(f"{size_bytes} of at most {limits.file_bytes} bytes")
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
        raise PdfOutOfMemory(f"{limits.memory_bytes} bytes") from error


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
                raise errors.BY_CODE[message.code](message.reason)
            yield message
    except ChildTimedOut:
        raise PdfTimeout(f"{limits.timeout.total_seconds():g} s") from None
    except ChildOutOfMemory:
        raise PdfOutOfMemory(f"{limits.memory_bytes} bytes") from None
    except ChildOutputTooLarge:
        raise PdfLimitExceeded("size of the extracted text") from None
    except ChildDied as death:
        log.warning(
            "ingest.child_died",
            signal_number=death.signal_number,
            exit_status=death.exit_status,
            child_traceback=death.traceback,
        )
        raise PdfCrashed(signal_number=death.signal_number, exit_status=death.exit_status) from None


def _opening(messages: Iterator[Message]) -> DocumentOpened:
    opened = next(messages)
    if not isinstance(opened, DocumentOpened):
        raise TypeError(f"the child's first message is {type(opened).__name__}")
    return opened
