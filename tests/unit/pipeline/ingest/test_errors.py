import pytest

from pipeline.ingest import errors
from pipeline.ingest.errors import PdfCrashed, PdfError
from schemas.errors import ErrorCode


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
def test_every_code_of_the_child_has_an_error(code: ErrorCode) -> None:
    error = errors.BY_CODE[code]("the reason")
    assert error.code == code
    assert not error.retryable
    assert str(error).endswith(": the reason")


@pytest.mark.parametrize("kind", errors.BY_CODE.values())
def test_an_error_without_a_reason_has_a_detail(kind: type[PdfError]) -> None:
    assert str(kind()) == kind.summary


def test_only_a_crash_by_sigkill_is_retryable() -> None:
    assert PdfCrashed(signal_number=9, exit_status=None).retryable
    assert not PdfCrashed(signal_number=11, exit_status=None).retryable
    assert not PdfCrashed(signal_number=None, exit_status=1).retryable
