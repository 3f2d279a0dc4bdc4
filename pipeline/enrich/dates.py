"""Finds dates and returns them in ISO 8601."""

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

from pipeline.enrich.annotations import Found
from pipeline.enrich.languages import Rules, word_set

_ISO: Final = re.compile(
    r"(?P<year>(?:1[5-9]|2[01])\d\d)(?P<separator>[./-]\n?)(?P<month>\d{1,2})(?P=separator)(?P<day>\d{1,2})"
)
_NUMERIC: Final = re.compile(
    r"(?P<first>\d{1,2})(?P<separator>[./-])(?P<space>[^\S\n\f]?)(?P<second>\d{1,2})"
    r"(?P=separator)(?P=space)(?P<year>\d{4}|\d{2})"
)
_EAST_ASIAN: Final = re.compile(
    r"(?P<year>\d{4})\s?[年년]\s?(?P<month>\d{1,2})\s?[月월](?:\s?(?P<day>\d{1,2})\s?[日일])?"
)
_DIGIT: Final = re.compile(r"\d")
_YEAR: Final = re.compile(r"[12]\d\d\d")
_TOKEN: Final = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|[\n\f]")
_LOOK_BACK: Final = 40
_DAY_SUFFIXES: Final = word_set("st nd rd th er re º ª °")
_LINKS: Final = word_set("of de del di do d den")
_SEPARATORS: Final = frozenset({",", ".", "\n", "'", "’"})
_MONTHS: Final = 12
_YEARS: Final = range(1500, 2200)
# Two digits: 69 to 99 are of the 1900s, as in POSIX.
_CENTURY_TURN: Final = 69
# Words of English that are no month unless a day stands beside it.
_WORDS: Final = frozenset({"may", "mar", "march"})
_NOT_BEFORE: Final = frozenset("./-,")


class DateOrder:
    """Whether `3/5/2024` has the month first: what other dates of the document show, else its language.

    Attributes:
        day_first: dates that have the day first, such as `13/5/2024`.
        month_first: dates that have the month first.
    """

    def __init__(self, *, day_first: int = 0, month_first: int = 0) -> None:
        self.day_first = day_first
        self.month_first = month_first

    def has_month_first(self, rules: Rules) -> bool:
        if self.day_first == self.month_first:
            return rules.has_month_first
        return self.month_first > self.day_first

    def learn(self, text: str) -> None:
        """Count the dates of `text` that can be read in one way only."""
        for match in _NUMERIC.finditer(text):
            if match["separator"] == "/" and len(match["year"]) == len("2024"):
                first, second = int(match["first"]), int(match["second"])
                self.day_first += first > _MONTHS >= second > 0
                self.month_first += second > _MONTHS >= first > 0


def dates(text: str, *, rules: Rules, order: DateOrder) -> Iterator[Found]:
    """Yield dates; the normal form is `2024-05-03`, or `2024-05` without a day."""
    if not _DIGIT.search(text):
        return
    yield from _written(text, rules)
    yield from _iso(text)
    if "/" in text or "." in text or "-" in text:
        yield from _numeric(text, rules, order)
    if "年" in text or "년" in text:
        for match in _EAST_ASIAN.finditer(text):
            normal = _normal(int(match["year"]), int(match["month"]), int(match["day"] or 0))
            if normal:
                yield Found("DATE", match.start(), match.end(), normal)


def _iso(text: str) -> Iterator[Found]:
    for match in _ISO.finditer(text):
        if _is_apart(text, match.start(), match.end()):
            normal = _normal(int(match["year"]), int(match["month"]), int(match["day"]))
            is_iso = match["separator"][0] == "-" and len(match["month"]) == len(match["day"]) == 2  # noqa: PLR2004
            if normal and (is_iso or match["separator"] in {"/", "."}):
                yield Found("DATE", match.start(), match.end(), normal)


def _numeric(text: str, rules: Rules, order: DateOrder) -> Iterator[Found]:
    for match in _NUMERIC.finditer(text):
        if not _is_apart(text, match.start(), match.end()):
            continue
        first, second, separator = int(match["first"]), int(match["second"]), match["separator"]
        if len(match["year"]) == 2:  # noqa: PLR2004  # digits
            # `1.2.34` is a section more often than a date.
            has_two_digits = len(match["first"]) == len(match["second"]) == 2  # noqa: PLR2004
            if separator == "-" or (separator == "." and not has_two_digits) or match["space"]:
                continue
        if match["space"] and separator != ".":
            continue
        month_first = separator == "/" and order.has_month_first(rules)
        if first > _MONTHS or second > _MONTHS:
            month_first = second > _MONTHS
        day, month = (second, first) if month_first else (first, second)
        normal = _normal(_full_year(match["year"]), month, day)
        if normal:
            yield Found("DATE", match.start(), match.end(), normal)


def _is_apart(text: str, start: int, end: int) -> bool:
    """Return whether no number, path or version goes on before or after the date."""
    before, after = text[max(0, start - 1) : start], text[end : end + 2]
    if before and (before.isalnum() or before in _NOT_BEFORE or before == "_"):
        return False
    return not (
        after[:1].isdigit()
        or after[:1] in {"/", "-", "_"}
        or (after[:1] == "." and after[1:].isdigit())
    )


def _written(text: str, rules: Rules) -> Iterator[Found]:
    """Yield dates with the name of a month, found from their year backwards."""
    for match in _YEAR.finditer(text):
        if text[match.end() : match.end() + 1].isalnum() or int(match.group()) not in _YEARS:
            continue
        if found := _before_year(text, match.start(), match.end(), rules):
            yield found


class _Words:
    """The words before a year, from the last one backwards."""

    def __init__(self, text: str, end: int) -> None:
        self.tokens = list(_TOKEN.finditer(text, max(0, end - _LOOK_BACK), end))
        self.words = [token.group().casefold() for token in self.tokens]

    def before(self, position: int, *, skipped: frozenset[str]) -> int:
        """Return the place of the last word before `position` that is not skipped; -1 for none."""
        position -= 1
        while position >= 0 and self.words[position] in skipped:
            position -= 1
        return position

    def day(self, position: int) -> int:
        """Return the number at `position` if it has the form of a day, else 0."""
        word = self.words[position] if position >= 0 else ""
        return int(word) if word.isdecimal() and len(word) <= len("31") else 0


def _before_year(text: str, year_at: int, year_end: int, rules: Rules) -> Found | None:
    words = _Words(text, year_at)
    last = words.before(len(words.words), skipped=_SEPARATORS | _LINKS)
    if last < 0:
        return None
    year = int(text[year_at:year_end])
    month = rules.months.get(words.words[last])
    start, normal = (
        _day_first(text, words, last, year=year, month=month)
        if month
        else _month_first(words, last, year=year, months=rules.months)
    )
    return Found("DATE", start, year_end, normal) if normal else None


def _day_first(
    text: str, words: _Words, month_at: int, *, year: int, month: int
) -> tuple[int, str | None]:
    """Return start and normal form of `3 June 2013` or `June 2013`."""
    token = words.tokens[month_at]
    day_at = words.before(month_at, skipped=_SEPARATORS | _LINKS | _DAY_SUFFIXES)
    if day := words.day(day_at):
        start = words.tokens[day_at].start()
        normal = _normal(year, month, day) if _is_apart_left(text, start) else None
        if normal:
            return start, normal
    return token.start(), None if token.group() in _WORDS else _normal(year, month, 0)


def _month_first(
    words: _Words, last: int, *, year: int, months: Mapping[str, int]
) -> tuple[int, str | None]:
    """Return start and normal form of `June 3, 2013`."""
    day_at = last - 1 if words.words[last] in _DAY_SUFFIXES else last
    month_at = words.before(day_at, skipped=_SEPARATORS)
    month = months.get(words.words[month_at]) if month_at >= 0 else None
    day = words.day(day_at)
    return words.tokens[month_at].start(), _normal(year, month, day) if month and day else None


def _is_apart_left(text: str, start: int) -> bool:
    before = text[max(0, start - 1) : start]
    return not before or not (before.isalnum() or before in {".", ",", "/"})


def _full_year(digits: str) -> int:
    year = int(digits)
    if len(digits) > 2:  # noqa: PLR2004
        return year
    return year + (1900 if year >= _CENTURY_TURN else 2000)


def _normal(year: int, month: int, day: int) -> str | None:
    """Return the date in ISO 8601; None if there is no such day."""
    if year not in _YEARS:
        return None
    try:
        found = date(year, month, day or 1)
    except ValueError:
        return None
    return found.isoformat() if day else f"{year:04}-{month:02}"
