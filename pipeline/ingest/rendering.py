"""Renders a page in a sandbox child; the worker's side."""

import signal
from collections.abc import Callable
from typing import Final

import structlog

from pipeline.ingest import frames
from pipeline.ingest.description import OUTPUT_MAX, PART_TIMEOUT, THUMBNAIL_SIDE
from pipeline.ingest.errors import PAGE_REASONS, PageNotRendered
from pipeline.ingest.frames import DocumentOpened, Opening, PageRendered, ReadingFailed, Render
from pipeline.ingest.sandbox.fork import (
    AnswerLimits,
    ChildDied,
    ChildLimits,
    ChildOutOfMemory,
    ChildOutputTooLarge,
    ChildTimedOut,
)
from pipeline.ingest.sandbox.reader import Reader
from schemas.errors import ErrorCode
from schemas.ids import TenantId
from schemas.outcomes import MEANINGS, Outcome

FIGURE_SIDE: Final = 800
"""Pixels of the longest side of the image of a figure, which takes 2 MB at most."""

_NO_IMAGES: Final = "Pages of this format have no image."
_NO_PASSWORD: Final = (
    "The document is encrypted, and its password was deleted at the end of its reading."  # noqa: S105  # a sentence
)

log = structlog.stdlib.get_logger(__name__)


def render(
    opening: Opening,
    *,
    page: int,
    box: tuple[int, int, int, int] | None = None,
    reader: Reader,
    tenant_id: TenantId,
    while_waiting: Callable[[], None],
) -> bytes:
    """Return a page, or the part of it in a box, as a PNG.

    A child that someone killed, perhaps because memory was short, gets one successor.

    Raises:
        PageNotRendered: the page has no image.
    """
    request = Render(
        opening=opening,
        page=page,
        box=box,
        side=THUMBNAIL_SIDE if box is None else FIGURE_SIDE,
        part_timeout=PART_TIMEOUT,
    )
    answer: ReadingFailed | PageRendered
    try:
        try:
            answer = _answer_to(request, reader, tenant_id, while_waiting)
        except ChildDied as death:
            if death.signal_number != signal.SIGKILL:
                raise
            answer = _answer_to(request, reader, tenant_id, while_waiting)
    except (ChildDied, ChildOutOfMemory, ChildOutputTooLarge, ChildTimedOut) as death:
        log.warning("ingest.rendering_ended", reason=f"{type(death).__name__}: {death}")
        answer = PageRendered(outcome=_outcome_of(death))
    match answer:
        case PageRendered(png=bytes() as png):
            return png
        case PageRendered(outcome=Outcome.COMPLETE):
            raise PageNotRendered(page, code=ErrorCode.NOT_FOUND, reason=_NO_IMAGES)
        case ReadingFailed(outcome=Outcome.ENCRYPTED):
            raise PageNotRendered(page, code=ErrorCode.DOCUMENT_ENCRYPTED, reason=_NO_PASSWORD)
        case ReadingFailed(outcome=outcome, reason=reason):
            sentence = MEANINGS[outcome].sentence
            reason = f"{sentence} {reason}" if reason else sentence
        case PageRendered(outcome=outcome, reason=reason):
            reason = reason or PAGE_REASONS.get(outcome) or MEANINGS[outcome].sentence
    raise PageNotRendered(
        page, code=MEANINGS[outcome].code or ErrorCode.DOCUMENT_CORRUPT, reason=reason
    )


def _answer_to(
    request: Render, reader: Reader, tenant_id: TenantId, while_waiting: Callable[[], None]
) -> ReadingFailed | PageRendered:
    """Return the last message of a child.

    Raises:
        ChildDied, ChildOutOfMemory, ChildOutputTooLarge, ChildTimedOut: there is none.
    """
    found: ReadingFailed | PageRendered | None = None
    with reader.answer(
        frames.encode(request),
        tenant_id=tenant_id,
        child_limits=ChildLimits(memory_bytes=request.opening.limits.memory_bytes),
        limits=AnswerLimits(
            idle=request.opening.limits.idle,
            cpu=3 * PART_TIMEOUT,
            # The child limits itself; the rest is a call that the child cannot interrupt.
            frame_cpu=2 * PART_TIMEOUT,
            frame_bytes=OUTPUT_MAX,
            output_bytes=OUTPUT_MAX,
        ),
        while_waiting=while_waiting,
    ) as answer:
        for frame in answer:
            match frames.decode(frame):
                case DocumentOpened():
                    pass
                case (ReadingFailed() | PageRendered()) as found:
                    pass
                case other:
                    raise TypeError(f"the child sent {type(other).__name__}")
    if found is None:
        raise TypeError("the child sent nothing")
    return found


def _outcome_of(death: Exception) -> Outcome:
    match death:
        case ChildOutOfMemory():
            return Outcome.OUT_OF_MEMORY
        case ChildTimedOut():
            return Outcome.TIMEOUT_PAGE
        case ChildOutputTooLarge():
            return Outcome.LIMIT_PAGE_CONTENT
        case _:
            return Outcome.CRASHED
