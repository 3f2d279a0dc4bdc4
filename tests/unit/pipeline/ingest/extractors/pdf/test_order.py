from itertools import chain
from pathlib import Path

from tests.factories.drawn_pdfs import Shown
from tests.unit.pipeline.ingest.extractors.pdf.reading import paragraph, read

LEFT = [
    "The left column has words",
    "that fill its whole width",
    "in most of its many lines",
    "so that a reader can see",
    "a column of prose in this",
    "and reads it to its lower",
    "end before the first line",
    "of the other column comes",
    "and then goes on up there",
]
RIGHT = [
    "Here the right one starts",
    "with lines of such length",
    "as the left one has, too,",
    "so that both look alike,",
    "and no line of this side",
    "belongs to the line that",
    "stands on the left of it",
    "although the file draws",
    "both of them as one row.",
]


def text_of(*lines: str) -> str:
    return " ".join(" ".join(lines).split())


def rows(*columns: list[str], shift: float = 0) -> list[Shown]:
    """Columns that are drawn row by row, the right ones a little lower."""
    drawn = [
        paragraph(*column, x=40 + 270 * number, y=700 - shift * number)
        for number, column in enumerate(columns)
    ]
    return list(chain.from_iterable(zip(*drawn, strict=True)))


def read_words(directory: Path, *shown: Shown) -> str:
    return text_of(read(directory, *shown).text)


def test_columns_that_are_drawn_row_by_row_are_read_one_after_another(tmp_path: Path) -> None:
    shown = [
        Shown(text="A title across both of the columns", x=40, y=740),
        *rows(LEFT, RIGHT),
        Shown(text="A line below both of the columns of this page", x=40, y=550),
    ]
    assert read_words(tmp_path, *shown) == text_of(
        "A title across both of the columns",
        *LEFT,
        *RIGHT,
        "A line below both of the columns of this page",
    )


def test_columns_whose_lines_stand_at_other_heights_are_read_one_after_another(
    tmp_path: Path,
) -> None:
    assert read_words(tmp_path, *rows(LEFT, RIGHT, shift=6)) == text_of(*LEFT, *RIGHT)


def test_columns_in_the_order_of_reading_keep_it(tmp_path: Path) -> None:
    shown = [*paragraph(*LEFT, x=40), *paragraph(*RIGHT, x=310)]
    assert read_words(tmp_path, *shown) == text_of(*LEFT, *RIGHT)


def test_the_right_column_is_read_last_when_it_is_drawn_first(tmp_path: Path) -> None:
    shown = [
        *paragraph(*RIGHT, x=310),
        *paragraph(*LEFT, x=40),
        Shown(text="A title across both of the columns", x=40, y=740),
    ]
    assert read_words(tmp_path, *shown) == text_of(
        "A title across both of the columns", *LEFT, *RIGHT
    )


def test_a_table_is_read_row_by_row(tmp_path: Path) -> None:
    names = [f"Item {number}" for number in range(12)]
    amounts = [f"{number}00.00 EUR" for number in range(12)]
    assert read_words(tmp_path, *rows(names, amounts)) == text_of(
        *chain.from_iterable(zip(names, amounts, strict=True))
    )


def test_a_footer_that_is_drawn_first_is_read_last(tmp_path: Path) -> None:
    shown = [
        Shown(text="Page 7", y=30),
        Shown(text="A running header", y=810),
        *paragraph("The text", "of the page"),
    ]
    assert read_words(tmp_path, *shown) == "A running header The text of the page Page 7"


def test_a_header_that_is_drawn_last_is_read_first(tmp_path: Path) -> None:
    shown = [*paragraph("The text", "of the page"), Shown(text="A running header", y=810)]
    assert read_words(tmp_path, *shown) == "A running header The text of the page"


def test_a_short_last_column_stays_the_last(tmp_path: Path) -> None:
    shown = [
        *paragraph(*LEFT, x=40, y=800),
        *paragraph("and only two lines", "in the last column.", x=310, y=800),
    ]
    assert read_words(tmp_path, *shown) == text_of(
        *LEFT, "and only two lines", "in the last column."
    )


def test_paragraphs_that_are_drawn_from_the_bottom_to_the_top_are_put_in_order(
    tmp_path: Path,
) -> None:
    blocks = [
        paragraph(f"Block {n} has one line", "and a second one.", y=700 - 80 * n) for n in range(4)
    ]
    shown = chain.from_iterable(reversed(blocks))
    assert read_words(tmp_path, *shown) == text_of(
        *(f"Block {n} has one line and a second one." for n in range(4))
    )
