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

from pipeline.ingest.errors import DocumentCorrupt, DocumentEmpty, DocumentEncrypted
from pipeline.ingest.extractors.pdf.failures import clearest, error_of
from schemas.errors import ErrorCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EmptyFileError(), ErrorCode.DOCUMENT_EMPTY),
        (DocumentEmpty(), ErrorCode.DOCUMENT_EMPTY),
        (FileNotDecryptedError(), ErrorCode.DOCUMENT_ENCRYPTED),
        (WrongPasswordError(), ErrorCode.DOCUMENT_ENCRYPTED),
        (DocumentEncrypted(), ErrorCode.DOCUMENT_ENCRYPTED),
        (LimitReachedError(), ErrorCode.DOCUMENT_LIMIT),
        (RecursionError(), ErrorCode.DOCUMENT_LIMIT),
        (PdfReadError(), ErrorCode.DOCUMENT_CORRUPT),
        (PdfStreamError(), ErrorCode.DOCUMENT_CORRUPT),
        (DependencyError(), ErrorCode.DOCUMENT_CORRUPT),
        (NotImplementedError(), ErrorCode.DOCUMENT_CORRUPT),
        (AttributeError(), ErrorCode.DOCUMENT_CORRUPT),
        (KeyError(), ErrorCode.DOCUMENT_CORRUPT),
    ],
    ids=lambda value: value.value if isinstance(value, ErrorCode) else type(value).__name__,
)
def test_an_exception_of_the_parser_has_a_code_and_no_words_of_the_parser(
    error: Exception, code: ErrorCode
) -> None:
    found = error_of(error)
    assert (found.code, found.reason) == (code, "")


def test_of_two_failures_the_one_that_says_more_is_reported() -> None:
    assert isinstance(clearest([ValueError(), DocumentEncrypted()]), DocumentEncrypted)
    assert isinstance(clearest([DocumentEncrypted(), ValueError()]), DocumentEncrypted)
    assert isinstance(clearest([ValueError(), KeyError()]), DocumentCorrupt)
