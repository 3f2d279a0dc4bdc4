from datetime import UTC, datetime

import msgspec
import pytest

from pipeline.enrich.annotations import Entity
from pipeline.ingest import frames
from pipeline.ingest.extractors.extractor import DocumentMetadata, Line, Span, SpanKind
from pipeline.ingest.frames import (
    DocumentOpened,
    DocumentRead,
    Message,
    PageReading,
    ReadingFailed,
)
from schemas.outcomes import Outcome

MESSAGES: list[Message] = [
    DocumentOpened(
        page_count=2,
        metadata=DocumentMetadata(title="T", created=datetime(2024, 5, 1, tzinfo=UTC)),
    ),
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
]


@pytest.mark.parametrize("message", MESSAGES, ids=["opened", "page", "bad page", "read", "failed"])
def test_a_decoded_message_equals_the_encoded_one(message: Message) -> None:
    assert frames.decode(frames.encode(message)) == message


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
