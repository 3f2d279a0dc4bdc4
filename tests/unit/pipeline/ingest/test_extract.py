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

from pipeline.ingest.extractors import pdf
from pipeline.ingest.extractors.pdf import EncryptionNotSupported, NoPages, PasswordNeeded
from pipeline.ingest.sandbox.fork import TimeLimitReached
from schemas.errors import ErrorCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EmptyFileError(), ErrorCode.PDF_EMPTY),
        (NoPages(), ErrorCode.PDF_EMPTY),
        (FileNotDecryptedError(), ErrorCode.PDF_ENCRYPTED),
        (WrongPasswordError(), ErrorCode.PDF_ENCRYPTED),
        (PasswordNeeded(), ErrorCode.PDF_ENCRYPTED),
        (EncryptionNotSupported(), ErrorCode.PDF_ENCRYPTED),
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
def test_whatever_a_parser_raises_has_a_code(error: BaseException, code: ErrorCode) -> None:
    assert pdf.code_of(error) == code


def test_a_reason_is_one_short_line_without_what_a_file_could_smuggle_in() -> None:
    error = PdfReadError("Invalid\x00 object\r\n" + "A" * 10_000)
    reason = pdf.reason_of(error)
    assert reason.startswith("PdfReadError: Invalid object AAA")
    assert len(reason) < 250
    assert reason.isprintable()


def test_an_error_without_words_is_named() -> None:
    assert pdf.reason_of(PdfReadError()) == "PdfReadError"
