import pytest

from pipeline.ingest.extractors.extractor import ExtractedPage, Line, Span, SpanKind
from pipeline.ingest.extractors.pdf.running_headers import RunningHeaders
from pipeline.ingest.sandbox.fork import TimeLimitReached

HEIGHT = 800


def page(number: int, *, header: str = "", footer: str = "", body: str = "") -> ExtractedPage:
    """A page of three lines; the middle line differs on each page unless `body` is given."""
    texts = [header, body or "text of its own " + "x" * number, footer]
    lines, start = [], 0
    for text, top in zip(texts, (30, 400, 770), strict=True):
        lines.append(Line(start, start + len(text), 72, top, 500, top + 10))
        start += len(text) + 1
    return ExtractedPage(
        number=number,
        text="\n".join(texts),
        lines=tuple(line for line in lines if line.start < line.end),
        height_points=HEIGHT,
    )


class Pages:
    """Pages of a document; counts how often each is read."""

    def __init__(self, *pages: ExtractedPage | BaseException) -> None:
        self._pages = pages
        self.read: list[int] = []
        self.headers = RunningHeaders(self._read, page_count=len(pages))

    def _read(self, number: int) -> ExtractedPage:
        self.read.append(number)
        page = self._pages[number - 1]
        if isinstance(page, BaseException):
            raise page
        return page

    def marked(self, number: int) -> list[tuple[SpanKind, str]]:
        found = self.headers.page(number)
        return [(span.kind, found.text[span.start : span.end]) for span in found.spans]


def test_lines_that_the_next_page_repeats_are_marked() -> None:
    pages = Pages(*(page(n, header="Annual report", footer=f"Page {n} of 3") for n in (1, 2, 3)))
    for number in (1, 2, 3):
        assert pages.marked(number) == [
            (SpanKind.HEADER, "Annual report"),
            (SpanKind.FOOTER, f"Page {number} of 3"),
        ]


def test_headers_of_left_and_right_pages_are_marked() -> None:
    pages = Pages(*(page(n, header=("Left", "Right")[n % 2]) for n in range(1, 6)))
    for number in range(1, 6):
        assert pages.marked(number) == [(SpanKind.HEADER, ("Left", "Right")[number % 2])]


def test_page_numbers_are_marked() -> None:
    pages = Pages(
        page(1, footer="ix"), page(2, footer="x"), page(3, footer="- 1 -"), page(4, footer="- 2 -")
    )
    assert [pages.marked(number)[0][1] for number in (1, 2, 3, 4)] == ["ix", "x", "- 1 -", "- 2 -"]


def test_lines_of_the_text_are_not_marked() -> None:
    pages = Pages(
        *(page(n, header=f"chapter {'abc'[n]}", body="The same line.") for n in (0, 1, 2))
    )
    for number in (1, 2, 3):
        assert pages.marked(number) == []


def test_rows_of_numbers_are_not_marked() -> None:
    pages = Pages(page(1, footer="12 345 67"), page(2, footer="89 123 45"))
    assert pages.marked(1) == []


def test_a_header_is_marked_when_reading_starts_at_the_last_page() -> None:
    pages = Pages(*(page(n, header="Annual report") for n in (1, 2, 3)))
    assert pages.marked(3) == [(SpanKind.HEADER, "Annual report")]


def test_the_spans_of_a_page_are_kept_in_order() -> None:
    first = page(1, header="Header", footer="Footer")
    span = Span(SpanKind.FORM_FIELD, 8, 12)
    first = ExtractedPage(
        number=1, text=first.text, lines=first.lines, height_points=HEIGHT, spans=(span,)
    )
    found = Pages(first, page(2, header="Header", footer="Footer")).headers.page(1)
    assert [found.kind for found in found.spans] == [
        SpanKind.HEADER,
        SpanKind.FORM_FIELD,
        SpanKind.FOOTER,
    ]


def test_each_page_is_read_once() -> None:
    pages = Pages(*(page(n, header=f"Title {'abcdef'[n]}") for n in range(6)))
    for number in range(1, 7):
        pages.marked(number)
    assert sorted(pages.read) == [1, 2, 3, 4, 5, 6]


def test_an_error_of_a_page_is_raised_for_that_page_alone() -> None:
    pages = Pages(page(1, header="One"), ValueError("damaged"), page(3, header="One"))
    assert pages.marked(1) == [(SpanKind.HEADER, "One")]
    with pytest.raises(ValueError, match="damaged"):
        pages.headers.page(2)
    assert pages.marked(3) == [(SpanKind.HEADER, "One")]
    assert pages.read == [1, 2, 3]


@pytest.mark.parametrize("error", [MemoryError(), TimeLimitReached()])
def test_a_page_that_exceeds_a_limit_when_it_is_read_ahead_is_read_again(
    error: BaseException,
) -> None:
    pages = Pages(page(1, header="One"), error)
    assert pages.marked(1) == []
    with pytest.raises(type(error)):
        pages.headers.page(2)
    assert pages.read == [1, 2, 2]
