"""Snippets and their highlights."""

import html
import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.snippets import (
    LENGTH,
    Highlight,
    Pattern,
    Snippet,
    beginning_of,
    highlights_of,
    snippet_of,
    words_of,
    words_to_check,
)


def marked(text: str, *sequences: str) -> list[str]:
    """Return the highlighted parts of a text for words, or for words that follow each other."""
    numbers: dict[str, int] = {}
    patterns = [
        Pattern(
            term=term,
            conditions=tuple(numbers.setdefault(word, len(numbers)) for word in each.split()),
        )
        for term, each in enumerate(sequences)
    ]
    matches = {
        word: {numbers[word.casefold()]}
        for word in words_to_check(words_of(text), beginnings=None)
        if word.casefold() in numbers
    }
    return [
        text[each.start : each.end]
        for each in highlights_of(text, words_of(text), patterns=patterns, matches=matches)
    ]


@pytest.mark.parametrize(
    ("text", "sequences", "expected"),
    [
        ("The Report, (report).", ["report"], ["Report", "report"]),
        ("An annual\nreport is annual.", ["annual report"], ["annual\nreport"]),
        ("Annual and report.", ["annual report"], ["Annual", "report"]),
        ("It cost 1,234.56 and 1.", ["1,234.56"], ["1,234.56"]),
        ("a well-known fact", ["well-known"], ["well-known"]),
        ("a well-known fact", ["known"], ["known"]),
        ("the law of the sea", ["law", "law of"], ["law of"]),
        ("nothing", ["law"], []),
    ],
)
def test_words_are_highlighted(text: str, sequences: list[str], expected: list[str]) -> None:
    assert marked(text, *sequences) == expected


@pytest.mark.parametrize(
    ("word", "lexeme"),
    [
        ("Äpfel", "apfel"),
        ("Straße", "strass"),
        ("ÉTÉ", "ete"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER X}1", "x1"),
        ("1,845.00", "1"),
        ("l'été", "l"),
    ],
)
def test_a_word_and_its_normal_form_begin_alike(word: str, lexeme: str) -> None:
    assert beginning_of(word) == beginning_of(lexeme)


def highlight(text: str, word: str, *, term: int = 0) -> Highlight:
    start = text.index(word)
    return Highlight(start=start, end=start + len(word), term=term)


def test_a_snippet_has_the_rarest_terms() -> None:
    text = "a common word. " * 40 + "Here is the rare thing. " + "a common word. " * 40
    common = Highlight(start=2, end=8, term=0)

    snippet = snippet_of(text, [common, highlight(text, "rare", term=1)], weights=[0.1, 5.0])

    assert "Here is the rare thing." in snippet.text
    assert snippet.html.startswith("… ")
    assert snippet.html.endswith(" …")
    assert "<mark>rare</mark>" in snippet.html
    assert len(snippet.text) <= LENGTH


def test_a_snippet_is_safe_in_a_page_of_html() -> None:
    text = "<script>alert(\"x\")</script> & <mark>law</mark>\x00\n'law'"

    snippet = snippet_of(text, [highlight(text, "law")], weights=[1.0])

    assert snippet.html == (
        "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &lt;mark&gt;<mark>law</mark>"
        "&lt;/mark&gt;  &#x27;law&#x27;"
    )


def test_without_highlights_a_snippet_is_the_beginning() -> None:
    snippet = snippet_of("word " * 200, [], weights=[])

    assert snippet.start == 0
    assert snippet.text == ("word " * (LENGTH // 5)).rstrip()


@st.composite
def texts_with_highlights(draw: st.DrawFn) -> tuple[str, Sequence[Highlight]]:
    words = draw(
        st.lists(
            st.one_of(
                st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12),
                st.just("x" * 400),
            ),
            max_size=60,
        )
    )
    text = " ".join(words)
    bounds = sorted(draw(st.sets(st.integers(min_value=0, max_value=len(text)), max_size=12)))
    return text, [
        Highlight(start=start, end=end, term=number % 3)
        for number, (start, end) in enumerate(zip(bounds[::2], bounds[1::2], strict=False))
    ]


@given(texts_with_highlights())
def test_a_snippet_is_a_part_of_the_text(case: tuple[str, Sequence[Highlight]]) -> None:
    text, highlights = case

    snippet = snippet_of(text, highlights, weights=[1.0, 2.0, 3.0])

    source = text[snippet.start : snippet.start + len(snippet.text)]
    assert len(snippet.text) == len(source)
    assert all(
        shown in {original, " "} for shown, original in zip(snippet.text, source, strict=True)
    )
    assert shown_text(snippet) == snippet.text
    assert len(snippet.text) <= LENGTH
    for start, end in snippet.highlights:
        assert 0 <= start < end <= len(snippet.text)


@given(st.text(max_size=300))
def test_highlights_are_ordered_and_apart(text: str) -> None:
    numbers = {
        word: place for place, word in enumerate(words_to_check(words_of(text), beginnings=None))
    }
    patterns = [Pattern(term=0, conditions=(place,)) for place in numbers.values()]

    found = highlights_of(
        text,
        words_of(text),
        patterns=patterns,
        matches={word: {place} for word, place in numbers.items()},
    )

    assert all(first.end <= second.start for first, second in pairwise(found))
    assert all(any(map(str.isalnum, text[each.start : each.end])) or "_" in text for each in found)


def shown_text(snippet: Snippet) -> str:
    """Return what a browser shows of the HTML, without its marks of cuts."""
    plain = html.unescape(re.sub("</?mark>", "", snippet.html))
    has_lead = snippet.start > 0
    plain = plain[2:] if has_lead else plain
    return plain[: len(snippet.text)]
