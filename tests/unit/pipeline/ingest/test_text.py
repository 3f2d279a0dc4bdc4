import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest import text

ANY_TEXT = st.text(st.characters())  # surrogates, controls and all


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\x00b", "ab"),
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("page\x0cbreak", "page\nbreak"),
        ("a\ufffeb\uffffc", "abc"),
        ("lone \ud83d here", "lone  here"),
        ("pair \ud83d\ude00", "pair \N{GRINNING FACE}"),
        ("bell\x07 and \x1b[31mred", "bell and [31mred"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\N{LATIN SMALL LIGATURE FI}le \N{LATIN SMALL LIGATURE FFL}e", "file ffle"),
        ("naïve — 数学", "naïve — 数学"),
    ],
)
def test_what_a_database_or_a_reader_cannot_use_is_removed(raw: str, cleaned: str) -> None:
    assert text.clean(raw) == cleaned


@given(ANY_TEXT)
def test_clean_text_is_valid_everywhere_and_cleaning_it_changes_nothing(raw: str) -> None:
    cleaned = text.clean(raw)
    assert json.loads(json.dumps(cleaned).encode()) == cleaned
    assert cleaned.encode().decode() == cleaned
    assert not set(cleaned) & {"\x00", "\r", "\ufffe"}
    assert text.clean(cleaned) == cleaned


def test_a_line_of_metadata_is_short_and_on_one_line() -> None:
    assert text.clean_line("  A\r\n title\x00 ", longest=100) == "A title"
    assert text.clean_line("word " * 10_000, longest=9) == "word word"
    assert text.clean_line(" \x00 ", longest=9) is None


@given(st.text(), st.integers(min_value=0, max_value=50))
def test_cut_text_is_a_start_that_fits(whole: str, size_bytes: int) -> None:
    start = text.cut(whole, size_bytes=size_bytes)
    assert whole.startswith(start)
    assert len(start.encode()) <= size_bytes
    assert start == whole or len(whole[: len(start) + 1].encode()) > size_bytes


@given(st.text("ab \n"), st.integers(min_value=1, max_value=10))
def test_pieces_make_up_the_text_and_know_their_place(whole: str, longest: int) -> None:
    found = list(text.pieces(whole, longest=longest))
    assert "".join(piece for _, piece in found) == whole
    assert all(whole[offset:].startswith(piece) for offset, piece in found)
    assert all(0 < len(piece) <= longest for _, piece in found)


def test_pieces_end_behind_a_line_else_behind_a_word_else_anywhere() -> None:
    assert [piece for _, piece in text.pieces("one two\nthree", longest=10)] == [
        "one two\n",
        "three",
    ]
    assert [piece for _, piece in text.pieces("one two three", longest=10)] == ["one two ", "three"]
    assert [piece for _, piece in text.pieces("abcdefgh", longest=5)] == ["abcde", "fgh"]


@pytest.mark.parametrize(
    "iban", ["DE89370400440532013000", "GB82WEST12345698765432", "NO9386011117947"]
)
def test_an_iban_has_the_right_check_digits(iban: str) -> None:
    assert text.is_iban(iban)
    assert not text.is_iban(iban[:-1] + ("1" if iban[-1] != "1" else "2"))


@pytest.mark.parametrize("other", ["", "DE89", "de89370400440532013000", "89370400440532013000DE"])
def test_what_has_not_the_form_of_an_iban_is_none(other: str) -> None:
    assert not text.is_iban(other)
