from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from pipeline.ingest import outcome
from pipeline.ingest.outcome import (
    DocumentMetadata,
    DocumentOpened,
    DocumentRead,
    Entity,
    Message,
    PageReading,
    Passage,
    PdfCrashed,
    ReadingFailed,
    Truncation,
)
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import ErrorCode

MESSAGES: list[Message] = [
    DocumentOpened(
        page_count=2,
        metadata=DocumentMetadata(title="T", created=datetime(2024, 5, 1, tzinfo=UTC)),
        language="en",
        encrypted=False,
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
    PageReading(number=2, error_code=ErrorCode.PDF_TIMEOUT, error_reason="TimeLimitReached"),
    DocumentRead(
        pages_read=2,
        pages_failed=1,
        characters=21,
        passages=1,
        entities=1,
        truncated=(Truncation.PAGE_TEXT, Truncation.PAGES),
        parser_warnings=3,
    ),
    ReadingFailed(code=ErrorCode.PDF_CORRUPT, reason="PdfStreamError"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=["opened", "page", "bad page", "read", "failed"])
def test_what_the_child_sends_is_what_the_parent_gets(message: Message) -> None:
    assert outcome.decode(outcome.encode(message)) == message


def test_metadata_is_json_once_made_of_builtins() -> None:
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


@pytest.mark.parametrize(
    "code",
    [
        ErrorCode.PDF_EMPTY,
        ErrorCode.PDF_CORRUPT,
        ErrorCode.PDF_ENCRYPTED,
        ErrorCode.PDF_LIMIT_EXCEEDED,
        ErrorCode.PDF_TIMEOUT,
        ErrorCode.PDF_OUT_OF_MEMORY,
    ],
)
def test_a_failure_becomes_the_error_of_its_code(code: ErrorCode, limits: ReadingLimits) -> None:
    error = outcome.error_of(ReadingFailed(code=code, reason="why"), limits=limits)
    assert error.code == code
    assert not error.retryable
    assert str(error)


def test_only_a_reader_killed_from_outside_is_worth_another_try() -> None:
    assert PdfCrashed(signal_number=9, exit_status=None).retryable
    assert not PdfCrashed(signal_number=11, exit_status=None).retryable
    assert not PdfCrashed(signal_number=None, exit_status=1).retryable


def test_errors_say_what_was_allowed(limits: ReadingLimits) -> None:
    assert "1.5 s" in str(outcome.PdfTimeout(allowed=timedelta(seconds=1.5)))
    failed = ReadingFailed(code=ErrorCode.PDF_OUT_OF_MEMORY)
    assert str(limits.memory_bytes) in str(outcome.error_of(failed, limits=limits))
