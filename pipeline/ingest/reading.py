"""Reading one PDF: what the storing side sees, and the child behind it.

Use::

    with reading.open_pdf(path, limits=limits, language=language) as document:
        store_opening(document.opened)
        for page in document.pages():   # one page in memory at a time
            store_page(page)
        store_summary(document.summary)
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from spacy.language import Language

from pipeline.ingest import child, outcome
from pipeline.ingest.outcome import (
    DocumentOpened,
    DocumentRead,
    Message,
    PageReading,
    PdfCrashed,
    PdfEmpty,
    PdfLimitExceeded,
    PdfOutOfMemory,
    PdfTimeout,
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
# Offsets, labels and normal forms on top of the text itself: never near this much.
_OUTPUT_PER_TEXT: Final = 32

log = structlog.stdlib.get_logger(__name__)


class DocumentReading:
    """A PDF being read.

    Attributes:
        opened: what was known before the first page.
    """

    def __init__(self, opened: DocumentOpened, *, messages: Iterator[Message]) -> None:
        self.opened = opened
        self._messages = messages
        self._summary: DocumentRead | None = None

    def pages(self) -> Iterator[PageReading]:
        """Yield the pages in order, as they are read; once.

        A page that cannot be read comes with its `error_code`. Pages beyond a limit
        do not come; the summary says so. What was yielded before an error is right
        as far as it goes.

        Raises:
            PdfCorrupt, PdfLimitExceeded, PdfTimeout, PdfOutOfMemory: no page could be
                read, or the reading as a whole took too much.
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
        """What came of it, once `pages` is exhausted."""
        if self._summary is None:
            raise RuntimeError("the pages have not all been read")
        return self._summary


@contextmanager
def open_pdf(path: Path, *, limits: ReadingLimits, language: Language) -> Iterator[DocumentReading]:
    """Open a PDF in a child of this process; it is killed when the block is left.

    The time the caller takes between pages does not count against the limits.
    A `MemoryError` in the block leaves it as `PdfOutOfMemory`: it would end a
    whole Celery worker, and the next one the document is given to.

    Raises:
        PdfEmpty, PdfEncrypted, PdfCorrupt, PdfLimitExceeded, PdfTimeout,
        PdfOutOfMemory, PdfCrashed: it does not open.
    """
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise PdfEmpty
    if size_bytes > limits.file_bytes:
        raise PdfLimitExceeded(limit=f"{size_bytes} of at most {limits.file_bytes} bytes")
    work = partial(child.read, path, limits=limits, language=language)
    try:
        with forked(work, limits=_child_limits(limits)) as frames:
            messages = _messages(frames, limits=limits)
            yield DocumentReading(_opening(messages), messages=messages)
    except MemoryError as error:
        raise PdfOutOfMemory(allowed_bytes=limits.memory_bytes) from error


def _child_limits(limits: ReadingLimits) -> ChildLimits:
    return ChildLimits(
        wait=limits.timeout,
        memory_bytes=limits.memory_bytes,
        frame_bytes=_OUTPUT_PER_TEXT * limits.page_characters + _MIB,
        output_bytes=_OUTPUT_PER_TEXT * limits.text_bytes + 1024 * limits.pages + _MIB,
    )


def _messages(frames: Iterable[bytes], *, limits: ReadingLimits) -> Iterator[Message]:
    try:
        for frame in frames:
            message = outcome.decode(frame)
            if isinstance(message, ReadingFailed):
                raise outcome.error_of(message, limits=limits)
            yield message
    except ChildTimedOut:
        raise PdfTimeout(allowed=limits.timeout) from None
    except ChildOutOfMemory:
        raise PdfOutOfMemory(allowed_bytes=limits.memory_bytes) from None
    except ChildOutputTooLarge:
        raise PdfLimitExceeded(limit="size of what was read") from None
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
        raise TypeError(f"the child began with {type(opened).__name__}")
    return opened
