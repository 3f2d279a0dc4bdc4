import pytest

from pipeline.ingest.summary import LINE_CHARACTERS, first_lines_of, missing_of
from schemas.outcomes import Outcome, Reason


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        (" \n\t\n", []),
        ("Invoice\n\n  No.   7 \r\nHamburg\nthe fourth line", ["Invoice", "No. 7", "Hamburg"]),
        ("x" * LINE_CHARACTERS, ["x" * LINE_CHARACTERS]),
        ("x" * (LINE_CHARACTERS + 1), ["x" * (LINE_CHARACTERS - 1) + "…"]),
    ],
)
def test_the_first_lines_are_those_that_are_not_blank(text: str, lines: list[str]) -> None:
    assert first_lines_of(text) == lines


@pytest.mark.parametrize(
    ("pages", "page_count", "sentence"),
    [
        ((), 0, "It is cut."),
        (((4, 4),), 1, "Page 4: It is cut."),
        (((4, 6), (9, 9)), 4, "Pages 4-6, 9: It is cut."),
        (((4, 6),), 70, "Pages 4-6 and others: It is cut."),
    ],
)
def test_a_sentence_names_the_pages_that_are_missing(
    pages: tuple[tuple[int, int], ...], page_count: int, sentence: str
) -> None:
    reason = Reason(
        outcome=Outcome.LIMIT_PAGES, pages=pages, page_count=page_count, reason="It is cut."
    )

    assert missing_of([reason]) == [sentence]
