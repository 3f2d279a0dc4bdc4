from pathlib import Path

import pytest

from tests.factories.drawn_pdfs import Shown
from tests.unit.pipeline.ingest.extractors.pdf.reading import read

WIDTH = 0.6 * 12
HEBREW = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd"  # two words, in logical order


def letters(text: str, *, prints: int = 1, advance: float = WIDTH, x: float = 72) -> list[Shown]:
    """Each letter alone, printed several times with a small shift."""
    return [
        Shown(text=letter, x=x + advance * index + 0.3 * shift)
        for index, letter in enumerate(text)
        for shift in range(prints)
        if letter != " "
    ]


@pytest.mark.parametrize("prints", [2, 3, 4])
def test_letters_that_are_printed_several_times_are_read_once(tmp_path: Path, prints: int) -> None:
    content = read(tmp_path, *letters("A bold little title", prints=prints))
    assert content.text == "A bold little title"


def test_a_line_that_is_printed_several_times_is_read_once(tmp_path: Path) -> None:
    shown = [Shown(text="Fake bold", x=72 + shift, y=700 - shift) for shift in (0, 0.4, 0.8)] + [
        Shown(text="next line", y=680)
    ]
    assert read(tmp_path, *shown).text == "Fake bold\nnext line"


def test_a_whole_page_that_is_printed_twice_is_read_once(tmp_path: Path) -> None:
    lines = [Shown(text=f"Line {number} of it", y=700 - 14 * number) for number in range(5)]
    assert read(tmp_path, *lines, *lines).text == "\n".join(
        f"Line {number} of it" for number in range(5)
    )


def test_the_same_words_at_two_places_are_read_twice(tmp_path: Path) -> None:
    shown = [Shown(text="Yes"), Shown(text="Yes", y=686), Shown(text="Yes Yes", y=672)]
    assert read(tmp_path, *shown).text == "Yes\nYes\nYes Yes"


def test_a_ligature_of_two_equal_letters_is_two_letters(tmp_path: Path) -> None:
    content = read(
        tmp_path,
        *letters("o* set, a**air, wa*e"),
        unicode_values={"*": "ff"},
    )
    assert content.text == "off set, affffair, waffe"


def test_spaced_letters_are_joined_to_words(tmp_path: Path) -> None:
    spaced = letters("INTRODUCTION", advance=1.6 * WIDTH)
    spaced += letters("TO", advance=1.6 * WIDTH, x=72 + 13.5 * 1.6 * WIDTH)
    assert read(tmp_path, *spaced).text == "INTRODUCTION TO"


def test_a_line_of_spaced_prose_is_joined_to_words(tmp_path: Path) -> None:
    shown = [Shown(text="An ordinary line of prose", y=720)]
    x = 40.0
    for word in ["the", "rain", "in", "Spain", "stays", "mainly", "there"]:
        shown += letters(word, x=x, advance=1.45 * WIDTH)
        x += (1.45 * len(word) + 0.8) * WIDTH
    content = read(tmp_path, *shown)
    assert "the rain in Spain stays mainly there" in content.text.split("\n")


def test_letters_far_apart_stay_apart(tmp_path: Path) -> None:
    columns = letters("ABCDEF", advance=40)
    assert read(tmp_path, *columns).text == "A B C D E F"


def test_short_words_stay_apart(tmp_path: Path) -> None:
    words = ["Normal", "an", "S", "in", "s", "ist", "da"]
    starts = [sum(len(word) + 0.8 for word in words[:number]) for number in range(len(words))]
    shown = [
        Shown(text=word, x=72 + WIDTH * start) for word, start in zip(words, starts, strict=True)
    ]
    assert read(tmp_path, *shown).text == "Normal an S in s ist da"


def test_digits_apart_stay_apart(tmp_path: Path) -> None:
    assert read(tmp_path, *letters("123456", advance=1.6 * WIDTH)).text == "1 2 3 4 5 6"


def test_an_exponent_stays_on_its_line_and_its_word(tmp_path: Path) -> None:
    end = 72 + WIDTH * len("an area of 5 km")
    shown = [
        Shown(text="an area of 5 km"),
        Shown(text="2", x=end, y=706, size=7),
        Shown(text=") of land", x=end + 0.6 * 7),
    ]
    assert read(tmp_path, *shown).text == "an area of 5 km2) of land"


@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_an_accent_is_combined_with_its_letter(tmp_path: Path, *, is_first: bool) -> None:
    head = Shown(text="B")
    accent = Shown(text="\u00a8", x=72 + WIDTH)
    letter = Shown(text="o", x=72 + WIDTH)
    tail = Shown(text="rsch", x=72 + 2 * WIDTH)
    pair = [accent, letter] if is_first else [letter, accent]
    assert read(tmp_path, head, *pair, tail).text == "B\u00f6rsch"


def test_hebrew_is_read_in_logical_order(tmp_path: Path) -> None:
    assert read(tmp_path, Shown(text=HEBREW[::-1])).text == HEBREW


def test_hebrew_words_inside_of_english_are_read_in_logical_order(tmp_path: Path) -> None:
    shown = Shown(text=f"In English {HEBREW[::-1]} means 42")
    assert read(tmp_path, shown).text == f"In English {HEBREW} means 42"


def test_shapes_of_arabic_letters_become_letters(tmp_path: Path) -> None:
    shown = Shown(text="\ufee1\ufefc\ufeb3")  # as it stands on the page
    assert read(tmp_path, shown).text == "\u0633\u0644\u0627\u0645"
