"""Finds sentences by the rules of a language, and by the lines and blank lines of a page.

spaCy's sentencizer works on words of prose: it splits `Apt. no.`, joins a title with its authors,
and takes longer than all other rules together, because the page must be split into words first.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from pipeline.enrich.languages import Rules, word_set

WALL: Final = "\f"
"""Stands in the text for each character of a part that belongs to no sentence."""

SENTENCE_MAX: Final = 1_000
"""Characters of the longest sentence; a longer one is split at punctuation or white space."""
FRAGMENT_MAX: Final = 5
"""Characters that are too few for a sentence: they become part of a neighbouring one."""

_OPENERS: Final = "\"'“‘«‹([{¿¡„‚「『（【《"
_CLOSERS: Final = "\"'”’»›)\\]}」』）】》"
# Ends of sentences of scripts that need no space after them, or have no capital letters: those of
# `spacy.pipeline.Sentencizer.default_punct_chars` that are in use.
_ENDS: Final = "。｡！？．؟۔।॥։።፧။។៕༎꓿᙮᠃᠉‼⁇⁈⁉"
_END: Final = re.compile(
    # A number after it may be a footnote's: "as shown.12 The", "as shown.[12] The".
    rf"(?=[.!?…{_ENDS}])"  # lets the search skip from mark to mark
    rf"(?:(?P<stop>[.!?…]{{1,20}})[{_CLOSERS}]{{0,5}}(?:\[\d{{1,3}}\]|(?<=[^\W\d_]{{3}}\.)\d{{1,2}})?(?=\s)"
    # Japanese: 「はい。」と言った.
    rf"|[{_ENDS}]{{1,20}}(?:[{_CLOSERS}]{{1,5}}(?!と|って))?(?![{_CLOSERS}]))"
)
_GREEK_END: Final = re.compile(rf"(?:(?P<stop>[.!?;;…]{{1,20}})[{_CLOSERS}]{{0,5}}(?=\s))")
_NEXT_WORD: Final = re.compile(rf"\s*[{re.escape(_OPENERS)}]*([^\W_]*)")
_SPACE: Final = re.compile(r"\s*")
_FIRST_WORD: Final = re.compile(r"\S+")
_LEADER: Final = 4  # dots in a row that lead the eye to a page number
_BULLET: Final = re.compile(
    r"[•●○■□▪▫◦‣⁃➢➤✓∙·*–—-]\s|\(?(?:\d{1,2}|[A-Za-z])\)\s|\d{1,2}(?:\.\d{1,2})*\.?\s+\S"
)
_ROMAN: Final = re.compile(r"[ivxlc]+")
_ACRONYM: Final = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_CONTINUING: Final = frozenset(",-–—(/&")
_DASHES: Final = frozenset("-–—")  # before a number: an empty cell of a table
_STOPS: Final = frozenset(".!?…:;" + _ENDS)

# Ends of phrases that may end the sentence too: it does if another one begins.
_MAY_END: Final = word_set(
    "a.d a.m al b.c b.v co corp d.c e.v ff fl gmbh inc jr ltd m.a m.d n.v o.j p.a p.m ph.d plc pty s.a"
    " s.l s.p.a s.r.l ss u.k u.n u.s u.s.a z.o.o"
)
_ENDS_BEFORE_ANY: Final = word_set("atd ecc enz etc itd itp osv usf usw uvm т.д т.п")
_LOOK_BACK: Final = 40  # characters: no abbreviation is longer
_SHORT: Final = 0.8  # of the width of its neighbours: a line that was not filled
_HEADINGS_MIN: Final = 3


class _Line(NamedTuple):
    start: int
    end: int
    is_after_break: bool

    @property
    def width(self) -> int:
        return self.end - self.start


def sentences(text: str, *, rules: Rules) -> Iterator[tuple[int, int]]:
    """Yield start and end of each sentence, in order, without surrounding white space.

    Together they cover all of the text except white space, walls, and a fragment without a
    neighbour.
    """
    last: tuple[int, int] | None = None
    held: tuple[int, int] | None = None  # a fragment that becomes part of the next sentence
    for block_start, block_end in _blocks(text, rules):
        for begin, end in _of_block(text, block_start, block_end, rules):
            joins = held is not None and _may_join(text, held[0], end)
            start = held[0] if held is not None and joins else begin
            held = None
            if end - start > FRAGMENT_MAX:
                if last is not None:
                    yield last
                last = (start, end)
            elif last is not None and last[0] >= block_start and _may_join(text, last[0], end):
                last = last[0], end
            else:
                held = start, end
    if held is not None and last is not None and _may_join(text, last[0], held[1]):
        last = last[0], held[1]
    if last is not None:
        yield last


def _may_join(text: str, start: int, end: int) -> bool:
    return end - start <= SENTENCE_MAX and text.find(WALL, start, end) == -1


def _blocks(text: str, rules: Rules) -> Iterator[tuple[int, int]]:
    """Yield start and end of each group of lines that may share sentences."""
    lines = list(_lines(text))
    if not lines:
        return
    start = lines[0].start
    for position, (line, following) in enumerate(pairwise(lines)):
        if following.is_after_break or _ends_block(text, lines, position, rules):
            yield start, line.end
            start = following.start
    yield start, lines[-1].end


def _lines(text: str) -> Iterator[_Line]:
    is_after_break = True
    position = 0
    for raw in text.split("\n"):
        content = raw.strip()  # walls too
        if not content:
            is_after_break = True
        elif WALL in raw:
            for part in re.finditer(rf"[^{WALL}]+", raw):
                if stripped := part.group().strip():
                    start = position + part.start() + part.group().index(stripped)
                    yield _Line(start, start + len(stripped), is_after_break=True)
            is_after_break = raw.rstrip(" \t").endswith(WALL)
        else:
            start = position + raw.index(content[0])
            yield _Line(start, start + len(content), is_after_break)
            is_after_break = False
        position += len(raw) + 1


def _ends_block(text: str, lines: list[_Line], position: int, rules: Rules) -> bool:
    """Return whether no sentence goes on from the line at `position` to the next one."""
    line, following = lines[position], lines[position + 1]
    last, first = text[line.end - 1], text[following.start]
    if first.islower() or (last in _CONTINUING and not (last in _DASHES and first.isdigit())):
        return False
    if last.isalpha():
        word = text[max(line.start, line.end - _LOOK_BACK) : line.end].rsplit(None, 1)[-1]
        if word.islower() and word in rules.stop_words:
            return False
    if _BULLET.match(text, following.start, following.end) and last != ".":
        return True
    window = lines[max(0, position - 2) : position + 3]
    width = max(each.width for each in window)
    word_match = _FIRST_WORD.match(text, following.start, following.end)
    room = line.width + 1 + (word_match.end() - word_match.start() if word_match else 0)
    if first.isalnum() and not first.isupper() and not first.isdigit():
        room = line.width + 2  # a script without capitals, maybe without spaces
    if room <= _SHORT * width:
        return True
    return last not in _STOPS and not rules.capitalises_nouns and _is_heading(text, window)


def _is_heading(text: str, window: list[_Line]) -> bool:
    """Return whether the lines look like a title, names and addresses: each begins anew."""
    return (
        len(window) >= _HEADINGS_MIN
        and all(text[each.start].isupper() or text[each.start].isdigit() for each in window)
        and not any(text[each.end - 1] in _STOPS for each in window)
        and not all(text[each.start : each.end].isupper() for each in window)
    )


def _of_block(text: str, start: int, end: int, rules: Rules) -> Iterator[tuple[int, int]]:
    """Yield the sentences of one block."""
    expression = _GREEK_END if rules.code == "el" else _END
    for match in expression.finditer(text, start, end):
        if match.end() < end and _is_end(text, match, block_start=start, rules=rules):
            yield from _in_bounds(text, start, match.end())
            start = _after_space(text, match.end())
    yield from _in_bounds(text, start, end)


def _is_end(text: str, match: re.Match[str], *, block_start: int, rules: Rules) -> bool:
    stop = match["stop"]
    if stop is None:
        return True
    following = _NEXT_WORD.match(text, match.end())
    word = following[1] if following else ""
    if word[:1].islower() or len(stop) >= _LEADER:
        return False
    return stop != "." or not _is_abbreviation(
        text[max(block_start, match.start() - _LOOK_BACK) : match.start()],
        following=word,
        rules=rules,
    )


def _is_abbreviation(before: str, *, following: str, rules: Rules) -> bool:  # noqa: PLR0911  # one rule a line
    """Return whether a full stop between `before` and the word `following` is inside a sentence."""
    words = before.split()
    word = words[-1].lstrip(_OPENERS) if words and not before[-1].isspace() else ""
    lower = word.casefold()
    begins_anew = following[:1].isupper() and following.casefold() in rules.stop_words
    if not lower or "@" in lower or "/" in lower:
        return False
    if lower.isdigit():
        is_number_of_item = len(words) == 1 and len(before) < _LOOK_BACK
        return is_number_of_item or (
            rules.has_ordinal_stops and len(lower) <= 2 and not begins_anew  # noqa: PLR2004  # digits
        )
    if lower in _ENDS_BEFORE_ANY:
        return not following[:1].isupper()
    if lower in _MAY_END:
        return not begins_anew
    if lower in rules.abbreviations:
        return not (begins_anew and len(words) > 1 and words[-2][-1].isdigit())
    if (len(lower) == 1 and lower.isalpha()) or _ACRONYM.fullmatch(lower):
        return not begins_anew
    if lower in rules.before_numbers:
        return following[:1].isdigit() or bool(_ROMAN.fullmatch(following.casefold()))
    is_after_abbreviation = len(words) > 1 and words[-2].endswith(".")
    return is_after_abbreviation and len(lower) <= 2 and word.istitle()  # noqa: PLR2004  # letters: "Bs. As."


def _in_bounds(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the sentence, in parts if it is too long."""
    while end - start > SENTENCE_MAX:
        cut = _cut(text, start)
        yield start, start + len(text[start:cut].rstrip())
        start = _after_space(text, cut)
    if start < end:
        yield start, end


def _after_space(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _cut(text: str, start: int) -> int:
    least, most = start + SENTENCE_MAX // 2, start + SENTENCE_MAX
    for mark in ("\n", "; ", ": ", "、", "，", ", ", " "):
        found = text.rfind(mark, least, most)
        if found != -1:
            return found + len(mark)
    return most
