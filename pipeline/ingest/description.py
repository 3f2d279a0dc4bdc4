"""Describes a document in a sandbox child; the worker's side."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from pipeline.ingest import frames
from pipeline.ingest.errors import DocumentError
from pipeline.ingest.extractors.extractor import Structure
from pipeline.ingest.frames import (
    Describe,
    DocumentOpened,
    LanguageFound,
    Opening,
    ReadingFailed,
    StructureRead,
    ThumbnailDrawn,
)
from pipeline.ingest.sandbox.fork import (
    AnswerLimits,
    ChildDied,
    ChildLimits,
    ChildOutOfMemory,
    ChildOutputTooLarge,
    ChildTimedOut,
)
from pipeline.ingest.sandbox.reader import Reader
from schemas.ids import TenantId
from schemas.outcomes import Outcome
from schemas.settings import MIB

THUMBNAIL_SIDE: Final = 400

PART_TIMEOUT: Final = timedelta(seconds=2)
"""CPU time of each part: a part that takes longer is left out, so that no document delays others."""

PARTS: Final = 4
"""The opening, and the parts of the answer."""

OUTPUT_MAX: Final = 16 * MIB

log = structlog.stdlib.get_logger(__name__)


@dataclass(kw_only=True)
class Description:
    """What is found of a document; a part that cannot be read is missing."""

    page_count: int
    structure: Structure | None = None
    language: str | None = None
    language_confidence: float | None = None
    thumbnail: bytes | None = None


def describe(
    opening: Opening,
    *,
    reader: Reader,
    tenant_id: TenantId,
    while_waiting: Callable[[], None],
) -> Description:
    """Return what a child finds, also if it dies on the way.

    Raises:
        DocumentError: the document cannot be opened.
    """
    request = Describe(opening=opening, thumbnail_side=THUMBNAIL_SIDE, part_timeout=PART_TIMEOUT)
    limits = AnswerLimits(
        idle=opening.limits.idle,
        cpu=(PARTS + 1) * PART_TIMEOUT,
        frame_cpu=2 * PART_TIMEOUT,
        frame_bytes=OUTPUT_MAX,
        output_bytes=OUTPUT_MAX,
    )
    found: Description | None = None
    try:
        with reader.answer(
            frames.encode(request),
            tenant_id=tenant_id,
            child_limits=ChildLimits(memory_bytes=opening.limits.memory_bytes),
            limits=limits,
            while_waiting=while_waiting,
        ) as answer:
            for frame in answer:
                match frames.decode(frame):
                    case DocumentOpened(page_count=page_count):
                        found = Description(page_count=page_count)
                    case ReadingFailed(outcome=outcome, reason=reason):
                        raise DocumentError(reason, outcome=outcome)
                    case part:
                        _add(part, to=found)
    except (ChildDied, ChildOutOfMemory, ChildOutputTooLarge, ChildTimedOut) as death:
        log.warning("ingest.description_cut", reason=f"{type(death).__name__}: {death}")
        if found is None:
            raise DocumentError(outcome=_outcome_of(death)) from None
    if found is None:
        raise TypeError("the child sent nothing")
    return found


def _add(part: frames.Message, *, to: Description | None) -> None:
    match part, to:
        case StructureRead(structure=structure), Description():
            to.structure = structure
        case LanguageFound(language=language, confidence=confidence), Description():
            to.language, to.language_confidence = language, confidence
        case ThumbnailDrawn(png=png), Description():
            to.thumbnail = png
        case _:
            raise TypeError(f"the child sent {type(part).__name__}")


def _outcome_of(death: Exception) -> Outcome:
    match death:
        case ChildOutOfMemory():
            return Outcome.OUT_OF_MEMORY
        case ChildTimedOut():
            return Outcome.TIMEOUT_DOCUMENT
        case _:
            return Outcome.CRASHED
