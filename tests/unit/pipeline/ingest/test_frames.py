from datetime import UTC, datetime

import msgspec
import pytest

from pipeline.enrich.annotations import Entity
from pipeline.ingest import frames
from pipeline.ingest.frames import (
    DocumentMetadata,
    DocumentOpened,
    DocumentRead,
    Message,
    PageReading,
    Passage,
    ReadingFailed,
    Truncation,
)
from schemas.errors import ErrorCode

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
        passages=(Passage(0, 0, 21),),
        entities=(Entity("EMAIL", "bob@example.com", "bob@example.com", 5, 20),),
        truncated=(Truncation.PAGE_TEXT,),
    ),
    PageReading(number=2, error_code=ErrorCode.PDF_TIMEOUT, error_reason="15 s"),
    DocumentRead(
        pages_read=2,
        pages_failed=1,
        passages=1,
        entities=1,
        truncated=(Truncation.PAGE_TEXT, Truncation.PAGES),
        parser_warnings=3,
        language="en",
        language_confidence=0.9,
        key_phrases=("mail bob",),
    ),
    ReadingFailed(code=ErrorCode.PDF_CORRUPT, reason="PdfStreamError"),
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
    }
