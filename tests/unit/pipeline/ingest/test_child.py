import pytest

from pipeline.enrich.annotations import DocumentSummary
from pipeline.ingest.child import Tally
from pipeline.ingest.frames import DocumentRead, PageReading, ReadingFailed, Truncation
from schemas.errors import ErrorCode

LIMIT = ErrorCode.PDF_LIMIT_EXCEEDED
TIMEOUT = ErrorCode.PDF_TIMEOUT


def result_of(*pages: PageReading, pages_left_out: bool = False) -> DocumentRead | ReadingFailed:
    tally = Tally()
    for page in pages:
        tally.add(page)
    return tally.result(
        pages_left_out=pages_left_out, parser_warnings=0, enriched=DocumentSummary()
    )


def bad(number: int, code: ErrorCode, *, text: str = "") -> PageReading:
    return PageReading(number=number, text=text, error_code=code, error_reason=f"why {number}")


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([LIMIT], LIMIT),
        ([LIMIT, LIMIT], LIMIT),
        ([LIMIT, TIMEOUT], ErrorCode.PDF_CORRUPT),
    ],
)
def test_a_document_without_a_readable_page_fails_with_the_common_code_of_its_pages(
    codes: list[ErrorCode], code: ErrorCode
) -> None:
    result = result_of(*(bad(number, each) for number, each in enumerate(codes, start=1)))
    assert result == ReadingFailed(code=code, reason="no page can be read; page 1: why 1")


def test_a_document_with_one_readable_page_is_read() -> None:
    result = result_of(bad(1, LIMIT), PageReading(number=2))
    assert isinstance(result, DocumentRead)
    assert (result.pages_read, result.pages_failed) == (2, 1)


def test_a_page_with_text_but_without_sentences_is_readable() -> None:
    assert isinstance(result_of(bad(1, TIMEOUT, text="Some text.")), DocumentRead)


def test_the_summary_lists_each_truncation_once() -> None:
    cut = PageReading(number=1, text="a", truncated=(Truncation.PAGE_TEXT,))
    result = result_of(cut, cut, pages_left_out=True)
    assert isinstance(result, DocumentRead)
    assert result.truncated == (Truncation.PAGE_TEXT, Truncation.PAGES)
