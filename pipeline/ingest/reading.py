"""Reads one PDF in a sandbox child; the worker's side.

Use::

    with reading.open_pdf(path, limits=limits, enricher=enricher) as document:
        store_opening(document.opened)
        for page in document.pages():   # one page in memory at a time
            store_page(page)
        store_summary(document.summary)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from pipeline.enrich.enricher import Enricher
from pipeline.ingest import child, errors, frames
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
)
from pipeline.ingest.sandbox.fork import (
    ChildDied,
    ChildLimits,
    ChildOutOfMemory,
    ChildOutputTooLarge,
    ChildTimedOut,
    forked,
)
from pipeline.ingest.sandbox.limits import ReadingLimits

_MIB: Final = 1024 * 1024
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
def open_pdf(
    path: Path,
    *,
    limits: ReadingLimits,
    enricher: Enricher,
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[DocumentReading]:
    """Open a PDF in a child of this process; the child is killed when the block ends.

    While it waits for the child, it calls `while_waiting` once a second; what this call raises ends
    the reading.

    The caller's time between pages does not count against the limits. A `MemoryError` in the block
    becomes `PdfOutOfMemory`: otherwise it would end the whole Celery worker, and every next worker
    that receives the document.

    Raises:
        PdfEmpty, PdfEncrypted, PdfCorrupt, PdfLimitExceeded, PdfTimeout,
        PdfOutOfMemory, PdfCrashed: the PDF does not open.
    """
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise PdfEmpty
    if size_bytes > limits.file_bytes:
        raise PdfLimitExceeded(f"{size_bytes} of at most {limits.file_bytes} bytes")
    work = partial(child.read, path, limits=limits, enricher=enricher)
    try:
        with forked(work, limits=_child_limits(limits), while_waiting=while_waiting) as received:
            messages = _messages(received, limits=limits)
            yield DocumentReading(_opening(messages), messages=messages)
    except MemoryError as error:
        raise PdfOutOfMemory(f"{limits.memory_bytes} bytes") from error


def _child_limits(limits: ReadingLimits) -> ChildLimits:
    return ChildLimits(
        wait=limits.timeout,
        memory_bytes=limits.memory_bytes,
        frame_bytes=_OUTPUT_PER_TEXT * limits.page_characters + _MIB,
        output_bytes=_OUTPUT_PER_TEXT * limits.text_bytes + 1024 * limits.pages + _MIB,
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
