import pytest
from pypdf.errors import (
    DependencyError,
    EmptyFileError,
    FileNotDecryptedError,
    LimitReachedError,
    PdfReadError,
    PdfStreamError,
    WrongPasswordError,
)

from pipeline.ingest.errors import PdfEmpty, PdfEncrypted
from pipeline.ingest.extractors.pdf import pypdf_text
from pipeline.ingest.sandbox.fork import TimeLimitReached
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.errors import ErrorCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EmptyFileError(), ErrorCode.PDF_EMPTY),
        (PdfEmpty(), ErrorCode.PDF_EMPTY),
        (FileNotDecryptedError(), ErrorCode.PDF_ENCRYPTED),
        (WrongPasswordError(), ErrorCode.PDF_ENCRYPTED),
        (PdfEncrypted(), ErrorCode.PDF_ENCRYPTED),
        (LimitReachedError(), ErrorCode.PDF_LIMIT_EXCEEDED),
        (RecursionError(), ErrorCode.PDF_LIMIT_EXCEEDED),
        (MemoryError(), ErrorCode.PDF_OUT_OF_MEMORY),
        (TimeLimitReached(), ErrorCode.PDF_TIMEOUT),
        (PdfReadError(), ErrorCode.PDF_CORRUPT),
        (PdfStreamError(), ErrorCode.PDF_CORRUPT),
        (DependencyError(), ErrorCode.PDF_CORRUPT),
        (NotImplementedError(), ErrorCode.PDF_CORRUPT),
        (AttributeError(), ErrorCode.PDF_CORRUPT),
        (KeyError(), ErrorCode.PDF_CORRUPT),
    ],
    ids=lambda value: value.value if isinstance(value, ErrorCode) else type(value).__name__,
)
def test_an_exception_of_the_parser_has_a_code(
    error: BaseException, code: ErrorCode, limits: ReadingLimits
) -> None:
    assert pypdf_text.error_of(error, limits=limits).code == code


def test_the_reason_of_an_error_is_one_short_printable_line(limits: ReadingLimits) -> None:
    error = PdfReadError("Invalid\x00 object\r\n" + "A" * 10_000)
    reason = pypdf_text.error_of(error, limits=limits).reason
    assert reason.startswith("PdfReadError: Invalid object AAA")
    assert len(reason) < 250
    assert reason.isprintable()


def test_the_reason_of_an_exception_without_a_text_is_its_class(limits: ReadingLimits) -> None:
    assert pypdf_text.error_of(PdfReadError(), limits=limits).reason == "PdfReadError"


def test_the_reason_names_the_limit_that_was_reached(limits: ReadingLimits) -> None:
    assert pypdf_text.error_of(TimeLimitReached(), limits=limits).reason == "15 s"
    assert str(limits.memory_bytes) in pypdf_text.error_of(MemoryError(), limits=limits).reason
