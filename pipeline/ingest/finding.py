"""Finds the tables and figures of an open document; the child's side."""

import time
from collections.abc import Iterator
from datetime import timedelta

import msgspec

from pipeline.ingest.errors import PAGE_REASONS, DocumentError
from pipeline.ingest.extractors.extractor import OpenDocument
from pipeline.ingest.frames import FindTables, LayoutFound, TablesFound
from pipeline.ingest.sandbox.fork import TimeLimitReached, time_limit
from schemas.outcomes import Outcome


def messages(document: OpenDocument, request: FindTables) -> Iterator[LayoutFound | TablesFound]:
    """Yield each page once it is looked at, then the end."""
    ends = time.process_time() + request.time_left.total_seconds()
    limit = request.opening.limits.pages
    wanted = document.page_count if request.last_page is None else request.last_page
    last = min(document.page_count, wanted, limit)
    for number in range(request.first_page, last + 1):
        time_left = timedelta(seconds=ends - time.process_time())
        if time_left <= timedelta(0):
            yield TablesFound(cut=Outcome.TIMEOUT_DOCUMENT)
            return
        page = _page(document, number, request, allowed=min(request.page_timeout, time_left))
        yield page
        # The timer and the clock count in steps, and may differ by one.
        if page.outcome is Outcome.TIMEOUT_PAGE and time_left <= request.page_timeout:
            yield TablesFound(cut=Outcome.TIMEOUT_DOCUMENT)
            return
    is_cut = last < min(document.page_count, wanted)
    yield TablesFound(cut=Outcome.LIMIT_PAGES if is_cut else None)


def _page(
    document: OpenDocument, number: int, request: FindTables, *, allowed: timedelta
) -> LayoutFound:
    try:
        with time_limit(allowed):
            page = document.layout(number, limits=request.limits)
    except (Exception, TimeLimitReached) as error:  # noqa: BLE001  # a damaged page raises anything
        document.forget()
        outcome = _outcome_of(error)
        return LayoutFound(number=number, outcome=outcome, reason=PAGE_REASONS[outcome])
    return LayoutFound(**msgspec.structs.asdict(page))


def _outcome_of(error: BaseException) -> Outcome:
    match error:
        case TimeLimitReached():
            return Outcome.TIMEOUT_PAGE
        case MemoryError():
            return Outcome.OUT_OF_MEMORY
        case DocumentError(outcome=Outcome.ENCRYPTED):
            return Outcome.ENCRYPTED
        case _:
            return Outcome.CORRUPT
