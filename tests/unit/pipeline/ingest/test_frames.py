from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pipeline.enrich.annotations import Entity
from pipeline.ingest import frames
from pipeline.ingest.extractors.extractor import (
    DocumentMetadata,
    Line,
    OutlineItem,
    Span,
    SpanKind,
    Structure,
)
from pipeline.ingest.extractors.layout import (
    FigureFound,
    LayoutLimits,
    TableCell,
    TableFound,
    TablePart,
)
from pipeline.ingest.frames import (
    Describe,
    DocumentOpened,
    DocumentRead,
    FindTables,
    LanguageFound,
    LayoutFound,
    Message,
    Opening,
    PageReading,
    PageRendered,
    PagesSoFar,
    ReadingFailed,
    ReadingPaused,
    ReadPages,
    Recognize,
    Render,
    Request,
    StructureRead,
    TablesFound,
    ThumbnailDrawn,
)
from schemas.layout import FigureKind, TableMethod
from schemas.outcomes import Outcome
from schemas.settings import OcrEngineName
from tests.factories.reading_limits import READING_LIMITS

MESSAGES: list[Message] = [
    DocumentOpened(page_count=2),
    StructureRead(
        structure=Structure(
            metadata=DocumentMetadata(title="T", created=datetime(2024, 5, 1, tzinfo=UTC)),
            outline=(OutlineItem(title="One", level=0, page=1),),
        )
    ),
    LanguageFound(language="en", confidence=0.9),
    ThumbnailDrawn(png=b"\x89PNG"),
    PageRendered(png=b"\x89PNG"),
    PageRendered(outcome=Outcome.CORRUPT, reason="The page is damaged."),
    PagesSoFar(enricher_state=b"\x00state"),
    ReadingPaused(),
    PageReading(
        number=1,
        text="Mail bob@example.com.",
        width_points=595.3,
        height_points=841.9,
        lines=(Line(0, 21, 72, 72, 300, 84),),
        spans=(Span(SpanKind.HEADER, 0, 4),),
        sentences=((0, 21),),
        entities=(Entity("EMAIL", "bob@example.com", "bob@example.com", 5, 20),),
        language="en",
        language_confidence=0.9,
    ),
    PageReading(number=2, outcome=Outcome.TIMEOUT_PAGE, reason="The page is slow."),
    DocumentRead(
        cut=Outcome.LIMIT_PAGES,
        cut_reason="Only the first page is read.",
        warnings=3,
        language="en",
        language_confidence=0.9,
        key_phrases=("mail bob",),
    ),
    ReadingFailed(outcome=Outcome.CORRUPT, reason="A reason."),
    LayoutFound(
        number=4,
        tables=(
            TableFound(
                parts=(TablePart(4, 72, 100, 300, 200),),
                row_count=1,
                column_count=2,
                method=TableMethod.RULED,
                confidence=0.9,
                caption="Table 1",
                cells=(TableCell(0, 0, 1, 2, "All", 4, 72, 100, 300, 200),),
            ),
        ),
        figures=(
            FigureFound(
                page=4,
                kind=FigureKind.IMAGE,
                left=72,
                top=300,
                right=200,
                bottom=400,
                width_pixels=640,
                height_pixels=480,
            ),
        ),
    ),
    TablesFound(cut=Outcome.TIMEOUT_DOCUMENT),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: repr(each)[:24])
def test_a_decoded_message_equals_the_encoded_one(message: Message) -> None:
    assert frames.decode(frames.encode(message)) == message


OPENING = Opening(
    path="/files/original",
    media_type="application/pdf",
    limits=READING_LIMITS,
    password="pw",  # noqa: S106
)

REQUESTS: list[Request] = [
    ReadPages(
        opening=OPENING,
        first_page=3,
        enricher_state=b"\x00",
        time_left=timedelta(seconds=30),
        cpu_share=timedelta(seconds=2.5),
    ),
    Describe(opening=OPENING, thumbnail_side=400, part_timeout=timedelta(seconds=2)),
    Render(opening=OPENING, page=3, side=400, part_timeout=timedelta(seconds=2)),
    Recognize(
        opening=OPENING,
        pages=(1, 3),
        engine=OcrEngineName.TESSERACT,
        data="/usr/share/tessdata",
        languages=("eng", "deu"),
        is_language_known=False,
        dpi=200.0,
        pixels_max=10_000_000,
        page_timeout=timedelta(seconds=30),
        confidence_min=0.5,
        time_left=timedelta(minutes=5),
    ),
    FindTables(
        opening=OPENING,
        first_page=3,
        last_page=9,
        limits=LayoutLimits(tables=5),
        page_timeout=timedelta(seconds=5),
        time_left=timedelta(minutes=1),
    ),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_a_decoded_request_equals_the_encoded_one(request_: Request) -> None:
    assert frames.decode_request(frames.encode(request_)) == request_


def test_metadata_as_builtins_is_json() -> None:
    metadata = DocumentMetadata(title="T", created=datetime(2024, 5, 1, 12, tzinfo=UTC))
    assert msgspec.to_builtins(metadata) == {
        "title": "T",
        "author": None,
        "subject": None,
        "keywords": None,
        "creator": None,
        "producer": None,
        "created": "2024-05-01T12:00:00Z",
        "modified": None,
        "extra": {},
    }
