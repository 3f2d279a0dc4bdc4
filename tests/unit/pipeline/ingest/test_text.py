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
        ("no\u00a0break\u2009space", "no break space"),
        ("soft\u00adhyphen, zero\u200bwidth", "softhyphen, zerowidth"),
        ("\u202emirrored\u202c", "mirrored"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("\u2f08\u2f54", "\u4eba\u6c34"),  # radicals for characters
        ("\ufedf\ufe8e", "\u0644\u0627"),  # shapes of Arabic letters
        ("\uf0b7 item, \ue123glyph, \uf73112", "\u2022 item, glyph, 112"),
    ],
)
def test_characters_that_a_database_or_reader_cannot_use_are_removed(
    raw: str, cleaned: str
) -> None:
    assert text.clean(raw) == cleaned


@given(ANY_TEXT)
def test_clean_text_is_valid_json_and_utf_8_and_cleaning_it_again_changes_nothing(raw: str) -> None:
    cleaned = text.clean(raw)
    assert json.loads(json.dumps(cleaned).encode()) == cleaned
    assert cleaned.encode().decode() == cleaned
    assert not set(cleaned) & {"\x00", "\r", "\ufffe"}
    assert text.clean(cleaned) == cleaned
    assert text.is_clean(raw) <= (cleaned == raw)


def test_a_cleaned_line_is_short_and_has_no_line_break() -> None:
    assert text.clean_line("  A\r\n title\x00 ", longest=100) == "A title"
    assert text.clean_line("word " * 10_000, longest=9) == "word word"
    assert text.clean_line(" \x00 ", longest=9) is None


@given(st.text(), st.integers(min_value=0, max_value=50))
def test_cut_text_is_the_longest_prefix_that_fits(whole: str, size_bytes: int) -> None:
    start = text.cut(whole, size_bytes=size_bytes)
    assert whole.startswith(start)
    assert len(start.encode()) <= size_bytes
    assert start == whole or len(whole[: len(start) + 1].encode()) > size_bytes
