"""Finds amounts of money and percentages, with their normal forms."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from pipeline.enrich.annotations import Found
from pipeline.enrich.languages import Rules, word_set

_DIGITS: Final = r"\d{1,3}(?:[.,'’\u00a0\u202f\u2009]\d{3})+(?:[.,]\d{1,2}(?!\d))?"
_INDIAN: Final = r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d{1,2}(?!\d))?"
_PLAIN: Final = r"\d{1,15}(?:[.,]\d{1,6}(?!\d))?"
# The look ahead lets the search skip from digit to digit.
_NUMBER: Final = re.compile(rf"(?=\d)(?:{_DIGITS}|{_INDIAN}|{_PLAIN})(?![\d])")
_SPACED: Final = re.compile(
    rf"(?=\d)(?:\d{{1,3}}(?:[ \u00a0\u202f\u2009]\d{{3}})+(?:[.,]\d{{1,2}}(?!\d))?|{_DIGITS}|{_PLAIN})(?![\d])"
)

_SIGNS: Final = {
    "€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "₩": "KRW", "₪": "ILS", "₺": "TRY", "₴": "UAH",
    "₫": "VND", "฿": "THB", "₦": "NGN", "₱": "PHP", "₡": "CRC", "元": "CNY", "円": "JPY", "원": "KRW",
    "US$": "USD", "U$S": "USD", "C$": "CAD", "CA$": "CAD", "A$": "AUD", "AU$": "AUD", "HK$": "HKD",
    "NZ$": "NZD", "S$": "SGD", "R$": "BRL", "NT$": "TWD", "MX$": "MXN", "zł": "PLN", "Kč": "CZK",
    "Ft": "HUF", "SFr": "CHF", "Fr": "CHF", "лв": "BGN", "руб": "RUB",
}  # fmt: skip
_CODES: Final = word_set(
    """
    AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES
    KRW MAD MXN MYR NGN NOK NZD PEN PHP PKR PLN RON RSD RUB SAR SEK SGD THB TRY TWD UAH USD UYU
    VND ZAR
    """
)
_NAMES: Final = {
    "dollar": "USD", "dollars": "USD", "euro": "EUR", "euros": "EUR", "yen": "JPY", "yuan": "CNY",
    "rupees": "INR", "złotych": "PLN", "рублей": "RUB", "евро": "EUR", "kronor": "SEK",
}  # fmt: skip
_MAGNITUDES: Final = {
    3: "k thousand tausend tsd mille mil tys тыс",
    6: "m mn mio million millions millionen millón millones milione milioni milhão milhões miljoen miljoner"
    " mln miljon млн",
    9: "bn billion billions mrd milliarde milliarden milliard milliards miliardo miliardi miljard miljarder"
    " bilhão bilhões mld млрд",
    12: "trillion trillions tn",
}
_POWERS: Final = {word: power for power, words in _MAGNITUDES.items() for word in words.split()}
# The long scale: the German "Billion" is a million millions.
_LONG_SCALE: Final = {"billion": 12, "billionen": 12, "billions": 12, "billones": 12, "billón": 12}
_SHORT_SCALE: Final = frozenset({"en", "pt", "xx"})

_SIGN_BEFORE: Final = re.compile(
    r"(?:(?P<code>(?<![^\W\d_])[A-Z]{3})|(?P<sign>(?:(?<![^\W\d_])(?:[A-Z]{1,2}|U\$S?|US))?[$€£¥₹₽₩₪₺₴₫฿₦₱₡]S?|(?<![^\W\d_])S?Fr))"
    r"\.?[^\S\n\f]{0,2}\n?[^\S\n\f]{0,2}\Z"
)
_GAP: Final = r"[^\S\n\f]{0,2}\n?[^\S\n\f]{0,2}"
_WORD_AFTER: Final = re.compile(
    rf"{_GAP}(?:d['’]|de\s|di\s)?([$€£¥₹₽₩₪₺₴₫฿₦₱₡元円원]|[^\W\d_]{{1,12}}(?![^\W_]))"
)
_PERCENT_AFTER: Final = re.compile(
    rf"{_GAP}(?:%|(?i:per\s?cent|prozent|pour\s?cent|por\s?(?:ciento|cento)|per\s?cento"
    r"|procento?|procenta?|процент\w{0,3}|パーセント)\b)"
)
_SIGNS_BEFORE: Final = frozenset("$€£¥₹₽₩₪₺₴₫฿₦₱₡")
_MINUS: Final = frozenset("-−\u2010\u2011")
_LOOK_BACK: Final = 10
_NOT_BEFORE: Final = frozenset(".,'’/_")


def amounts(text: str, *, rules: Rules) -> Iterator[Found]:
    """Yield amounts of money as `1234.56 EUR` and percentages as `12.5%`."""
    expression = _SPACED if rules.groups_by_space else _NUMBER
    for match in expression.finditer(text):
        start, end = match.span()
        before = text[max(0, start - 1) : start]
        if (before and (before.isdigit() or before in _NOT_BEFORE)) or text.startswith("00", start):
            continue
        if found := _percent(text, start, end, rules) or _money(text, start, end, rules):
            yield found


def _percent(text: str, start: int, end: int, rules: Rules) -> Found | None:
    after = _PERCENT_AFTER.match(text, end)
    if after is None or text[max(0, start - 1) : start].isalpha():
        return None
    sign, begin = _sign(text, start)
    value = _value(text[start:end], rules).normalize()
    return Found("PERCENT", begin, after.end(), f"{sign}{value:f}%")


def _money(text: str, start: int, end: int, rules: Rules) -> Found | None:
    before = None
    last = text[max(0, start - 4) : start].rstrip()[-1:]
    if last in _SIGNS_BEFORE or last.isalpha() or last == ".":  # most numbers stand alone
        before = _SIGN_BEFORE.search(text[max(0, start - _LOOK_BACK) : start])
    currency = _currency(before["code"] or before["sign"], rules) if before else None
    word = _WORD_AFTER.match(text, end)
    power = _power(word[1], rules) if word else 0
    if before and currency:
        sign, begin = _sign(text, start - len(before.group()))
        stop = word.end() if word and power else end
    elif text[max(0, start - 1) : start].isalpha():
        return None
    else:
        if power and word:
            word = _WORD_AFTER.match(text, word.end() + (text[word.end() : word.end() + 1] == "."))
        currency = _currency(word[1], rules) if word else None
        if currency is None or word is None:
            return None
        sign, begin = _sign(text, start)
        stop = word.end()
    value = _value(text[start:end], rules).scaleb(power)
    return Found("MONEY", begin, stop, f"{sign}{_plain(value)} {currency}")


def _sign(text: str, start: int) -> tuple[str, int]:
    """Return `-` and its place if a minus that is no hyphen stands before `start`."""
    if start and text[start - 1] in _MINUS and not text[max(0, start - 2) : start - 1].isalnum():
        return "-", start - 1
    return "", start


def _currency(written: str, rules: Rules) -> str | None:
    """Return the ISO 4217 code, the sign itself if it is ambiguous, or None if it is no currency."""
    if written in _CODES:
        return written
    if written in rules.currencies:
        return rules.currencies[written]
    if written in _SIGNS:
        return _SIGNS[written]
    if written.casefold() in _NAMES:
        return _NAMES[written.casefold()]
    return written if written in {"$", "¥", "kr"} else None


def _power(word: str, rules: Rules) -> int:
    lower = word.casefold()
    if rules.code not in _SHORT_SCALE and lower in _LONG_SCALE:
        return _LONG_SCALE[lower]
    return _POWERS.get(lower, 0)


def _plain(value: Decimal) -> str:
    """Return the number without an exponent: no decimals, or two, or more if it has more."""
    if value == value.to_integral_value():
        return f"{value:.0f}"
    plain = f"{value.normalize():f}"
    return plain + "0" if len(plain.partition(".")[2]) == 1 else plain


def _value(number: str, rules: Rules) -> Decimal:
    """Return the value of a number as the language writes it."""
    compact = "".join(number.translate(_GROUPS).split())
    point, comma = compact.rfind("."), compact.rfind(",")
    decimal = "." if point > comma else ","
    if point != -1 and comma != -1:
        pass  # the last one is the decimal mark
    elif compact.count(decimal) > 1:
        decimal = ""
    elif len(compact) - max(point, comma) - 1 == 3 and compact[0] != "0":  # noqa: PLR2004  # digits of a group
        decimal = "," if rules.has_decimal_comma else "."
    whole, _, fraction = (
        compact.rpartition(decimal) if decimal and decimal in compact else (compact, "", "")
    )
    digits = whole.replace(".", "").replace(",", "")
    return Decimal(f"{digits or '0'}.{fraction or '0'}")


_GROUPS: Final = dict.fromkeys(map(ord, "'’"))
