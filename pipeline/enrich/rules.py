"""Rules that find addresses, dates and amounts without a trained model.

The rules are few and precise; names of people, places and companies need a
trained model. Patterns are spaCy's token patterns:
https://spacy.io/usage/rule-based-matching#matcher
"""

import re
from typing import Any, Final

_IBAN_FORM: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_IBAN_DIVISOR: Final = 97

_Token = dict[str, Any]
_Pattern = dict[str, Any]

_MONTHS: Final = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
)
_CURRENCIES: Final = "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|INR|JPY|NOK|NZD|PLN|SEK|SGD|USD|ZAR"


def _like(expression: str, *, repeat: str = "1") -> _Token:
    return {"TEXT": {"REGEX": f"^(?:{expression})$"}, "OP": repeat}


_SPACE: Final[_Token] = {"IS_SPACE": True, "OP": "?"}
_DAY: Final = _like(r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?")
_MONTH: Final = _like(rf"(?i:{_MONTHS})\.?")
_YEAR: Final = _like(r"(?:1[5-9]|2[01])\d\d")
_COMMA: Final[_Token] = {"ORTH": ",", "OP": "?"}
_HYPHEN: Final[_Token] = {"ORTH": "-"}
_NUMBER: Final = _like(r"\d+(?:[.,'\u2019]\d+)*")
_MAGNITUDE: Final = _like(r"(?i:thousand|million|billion|trillion|k|m|bn)", repeat="?")
_CURRENCY_BEFORE: Final = _like(rf"(?:[A-Z]{{1,3}})?[$€£¥₹]|{_CURRENCIES}")
_CURRENCY_AFTER: Final = _like(rf"[$€£¥₹]|{_CURRENCIES}|(?i:dollars?|euros?|yen|francs?)")


def _rule(label: str, *tokens: _Token) -> _Pattern:
    """Return a pattern of these tokens; a line may end between two of them."""
    pattern: list[_Token] = []
    for token in tokens:
        pattern += [token, _SPACE]
    return {"label": label, "pattern": pattern[:-1]}


PATTERNS: Final[list[_Pattern]] = [
    _rule("EMAIL", {"LIKE_EMAIL": True}),
    # spaCy's LIKE_URL also takes "README.md" and a missing space, "here.In".
    _rule("URL", _like(r"(?:(?i:https?|ftp)://|www\.)\S+\.\S+")),
    _rule("DATE", _DAY, _MONTH, _COMMA, _YEAR),
    _rule("DATE", _MONTH, _DAY, _COMMA, _YEAR),
    _rule("DATE", _MONTH, _COMMA, _YEAR),
    _rule("DATE", _like(r"(?:0?[1-9]|[12]\d|3[01])([./])(?:0?[1-9]|[12]\d|3[01])\1\d{4}")),
    _rule("DATE", _like(r"(?:1[5-9]|2[01])\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")),
    _rule("DATE", _YEAR, _HYPHEN, _like(r"0[1-9]|1[0-2]"), _HYPHEN, _DAY),
    _rule("MONEY", _CURRENCY_BEFORE, _NUMBER, _MAGNITUDE),
    _rule("MONEY", _NUMBER, _MAGNITUDE, _CURRENCY_AFTER),
    _rule("PERCENT", _NUMBER, _like(r"%|(?i:percent)")),
    _rule("PERCENT", _like(r"\d+(?:[.,]\d+)*%")),
    _rule("IBAN", _like(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}")),
    _rule(
        "IBAN",
        _like(r"[A-Z]{2}\d{2}"),
        _like(r"[A-Z0-9]{4}"),
        _like(r"[A-Z0-9]{3}\d", repeat="{1,6}"),
        _like(r"(?=.*\d)[A-Z0-9]{1,4}", repeat="?"),
    ),
]


def normal_form(label: str, found: str, *, lemmas: str) -> str | None:
    """Return the normal form, equal for all mentions of the same thing; None if `found` is invalid.

    Args:
        label: the kind of entity.
        found: its text, on one line.
        lemmas: its words in their dictionary form.
    """
    match label:
        case "EMAIL":
            return found.casefold()
        case "URL":
            return found
        case "IBAN":
            compact = found.replace(" ", "")
            return compact if is_iban(compact) else None
        case _:
            return lemmas.casefold()


def is_iban(candidate: str) -> bool:
    """Return whether `candidate`, without spaces, has the form and check digits of an IBAN (ISO 13616)."""
    if not _IBAN_FORM.fullmatch(candidate):
        return False
    rearranged = candidate[4:] + candidate[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % _IBAN_DIVISOR == 1
