"""The part of a passage that a hit shows, with its highlights.

PostgreSQL's `ts_headline` drops what looks like markup and gives no offsets; here the text stays as
it is, and PostgreSQL only says which words match.
"""

import html
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Final

LENGTH: Final = 300
"""Characters of a snippet, about two lines of a result page."""

LEAD: Final = 60
"""Characters before the first highlight of a snippet."""

ALIKE: Final = 2
"""A word and its normal form begin with the same letters; so many are compared, without accents."""

PREFIXING: Final = frozenset({"arabic", "hungarian", "indonesian", "irish"})
"""Configurations whose normal forms may lack the beginning of a word."""

_RUN: Final = re.compile(r"\w(?:\S*\w)?")
_PIECE: Final = re.compile(r"\w+")
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Word = tuple[str, int, int]
"""A word with its start and end in the text."""

Matches = Mapping[str, Collection[int]]
"""The conditions that each word meets, by their numbers; only words that meet some."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Conditions on words that follow each other.

    Attributes:
        term: the number of the term that the pattern belongs to.
        conditions: the numbers of the conditions, one for each word.
    """

    term: int
    conditions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Highlight:
    """A part of a text that matches a term."""

    start: int
    end: int
    term: int


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """A part of a passage.

    Attributes:
        start: offset of the first character in the text of the passage.
        text: as in the passage, with spaces for line breaks and other control characters.
        html: the text for a page of HTML, with `<mark>` around the highlights and `…` where it is cut.
        highlights: start and end in `text`.
    """

    start: int
    text: str
    html: str
    highlights: Sequence[tuple[int, int]]


def words_to_check(words: Sequence[Word], *, beginnings: Collection[str] | None) -> set[str]:
    """Return the words of a text that may match.

    Args:
        words: those of the text.
        beginnings: from `beginning_of` for each lexeme; None takes every word.
    """
    different = {word for word, _, _ in words}
    if beginnings is None:
        return different
    return {word for word in different if beginning_of(word) in beginnings}


def beginning_of(word: str) -> str:
    """Return the first letters of a word, without case and accents.

    They end before a sign: PostgreSQL takes "1,845.00" as the words "1" and "845.00".
    """
    if word[:ALIKE].isalnum() and word.isascii():
        return word[:ALIKE].lower()
    plain = unicodedata.normalize("NFKD", word[: 2 * ALIKE].casefold())
    letters = "".join(each for each in plain if not unicodedata.combining(each))
    return "".join(takewhile(str.isalnum, letters[:ALIKE])) or letters[:ALIKE]


def highlights_of(
    text: str, words: Sequence[Word], *, patterns: Sequence[Pattern], matches: Matches
) -> list[Highlight]:
    """Return the highlights of a text in their order; no two overlap.

    Args:
        text: the text of a passage.
        words: from `words_of` the text.
        patterns: what is highlighted.
        matches: the conditions that the words meet.
    """
    matching = [(start, end, matches[word]) for word, start, end in words if word in matches]
    found = [
        highlight for pattern in patterns for highlight in _found(matching, pattern, text=text)
    ]
    chosen: list[Highlight] = []
    for each in sorted(found, key=lambda one: (one.start, -one.end)):
        if not chosen or each.start >= chosen[-1].end:
            chosen.append(each)
    return chosen


def snippet_of(
    text: str, highlights: Sequence[Highlight], *, weights: Sequence[float], length: int = LENGTH
) -> Snippet:
    """Return the part of a text with the most and rarest terms; without any, its beginning.

    Args:
        text: the text of a passage.
        highlights: those of the text.
        weights: how much each term counts.
        length: characters of the snippet, if no highlight is longer.
    """
    start = _best_start(text, highlights, weights=weights, length=length)
    end = _word_end(text, min(len(text), start + length), start=start)
    inside = [each for each in highlights if start <= each.start and each.end <= end]
    shown = _CONTROLS.sub(" ", text[start:end])
    ranges = [(each.start - start, each.end - start) for each in inside]
    return Snippet(
        start=start,
        text=shown,
        html=_html(shown, ranges, is_cut_before=start > 0, is_cut_after=end < len(text)),
        highlights=ranges,
    )


def words_of(text: str) -> list[Word]:
    """Return what spaces separate, each followed by its parts if it has several."""
    words: list[Word] = []
    for run in _RUN.finditer(text):
        word, (start, end) = run[0], run.span()
        words.append((word, start, end))
        if not word.isalnum():
            pieces = [piece.span() for piece in _PIECE.finditer(text, start, end)]
            if len(pieces) > 1:
                words += [(text[first:last], first, last) for first, last in pieces]
    return words


def _found(
    words: Sequence[tuple[int, int, Collection[int]]], pattern: Pattern, *, text: str
) -> Iterator[Highlight]:
    """Yield the words of a pattern where they follow each other; if they never do, each by itself."""
    has_sequence = False
    count = len(pattern.conditions)
    for place in range(len(words) - count + 1):
        sequence = words[place : place + count]
        is_match = all(
            condition in met
            for condition, (_, _, met) in zip(pattern.conditions, sequence, strict=True)
        ) and all(
            not _PIECE.search(text[before[1] : after[0]]) and before[1] <= after[0]
            for before, after in pairwise(sequence)
        )
        if is_match:
            has_sequence = True
            yield Highlight(start=sequence[0][0], end=sequence[-1][1], term=pattern.term)
    if not has_sequence:
        wanted = set(pattern.conditions)
        for start, end, met in words:
            if wanted & set(met):
                yield Highlight(start=start, end=end, term=pattern.term)


def _best_start(
    text: str, highlights: Sequence[Highlight], *, weights: Sequence[float], length: int
) -> int:
    """Return where the snippet begins: before the highlight whose neighbourhood has most terms."""
    best, best_value = None, -1.0
    for place, first in enumerate(highlights):
        near = [each for each in highlights[place:] if each.end <= first.start - LEAD + length]
        value = sum(weights[term] for term in {each.term for each in near})
        if value > best_value + 1e-9:
            best, best_value = first, value
    if best is None or best.end <= length:
        return 0
    start = max(0, min(best.start - LEAD, len(text) - length))
    # The next word that is whole, but not beyond the highlight.
    space = re.compile(r"\s\S").search(text, max(0, start - 1), best.start + 1)
    return space.end() - 1 if space and start > 0 else best.start if start > 0 else 0


def _word_end(text: str, end: int, *, start: int) -> int:
    """Return the end of the last word that is whole; `end` itself if there is only one word."""
    whole = end
    if end < len(text) and not text[end].isspace():
        while whole > start and not text[whole - 1].isspace():
            whole -= 1
    length = len(text[start:whole].rstrip())
    return start + length if length else end


def _html(
    text: str, ranges: Sequence[tuple[int, int]], *, is_cut_before: bool, is_cut_after: bool
) -> str:
    parts = ["… " if is_cut_before else ""]
    done = 0
    for start, end in ranges:
        parts += [html.escape(text[done:start]), "<mark>", html.escape(text[start:end]), "</mark>"]
        done = end
    parts += [html.escape(text[done:]), " …" if is_cut_after else ""]
    return "".join(parts)
