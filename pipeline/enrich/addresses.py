"""Finds e-mail addresses, web addresses and account numbers (IBAN), with their normal forms."""

import re
from collections.abc import Iterator
from typing import Final

from pipeline.enrich.annotations import Found
from pipeline.enrich.languages import word_set

_LOCAL: Final = re.compile(r"[\w.!#$%&*+/=?^`{|}~'-]{1,64}\Z")
_LOCAL_FORM: Final = re.compile(r"\w(?:[\w+%'-]|\.(?=\w)){0,63}")
_DOMAIN: Final = re.compile(
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:xn--[a-z0-9-]{2,50}|[^\W\d_]{2,24})"
)

_URL_START: Final = re.compile(r"(?:[hH][tT][tT][pP][sS]?|[fF][tT][pP])://|[wW]{3}\.")
_URL_REST: Final = re.compile(r"[^\s<>\"“”„«»‹›\\^`{|}\f]{1,2000}")
_URL_FORM: Final = re.compile(
    r"(?P<scheme>[a-z]+://)?(?P<host>(?:[\w.%+-]+(?::[^@/]*)?@)?"
    r"(?:(?:[\w-]+\.)+[^\W\d_]{2,24}|\d{1,3}(?:\.\d{1,3}){3}|localhost)(?::\d{1,5})?)"
    r"(?P<path>[/?#].*)?",
    re.IGNORECASE | re.DOTALL,
)
_URL_TRAILING: Final = ".,;:!?'’‘…*&|~·•-–—"
_BRACKETS: Final = {")": "(", "]": "["}
_URL_LINES_MAX: Final = 5
_URL_MAX: Final = 2_000
_LINE_END: Final = re.compile(r"[^\S\n\f]*\n[^\S\n\f]*")
# The second half of an address that was cut looks like one: it has a mark of addresses inside.
_URL_MARK: Final = re.compile(
    r"[^\s]*[/?=&%#_~]|[\w-]+(?:\.[\w-]+)*\.(?:html?|php|aspx?|pdf|com|org|net|edu|gov)\b"
)

_IBAN: Final = re.compile(
    r"[A-Z]{2}\d{2}(?:[ \u00a0\n]?[A-Z0-9]{4}){2,7}(?:[ \u00a0\n]?[A-Z0-9]{1,4})?"
)
_IBAN_FORM: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_IBAN_DIVISOR: Final = 97

# https://data.iana.org/TLD/tlds-alpha-by-domain.txt: those of two letters. Garbage such as
# `x@Q.FG` has the form of an address, but rarely the name of a country.
_COUNTRIES: Final = word_set(
    """
    ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs
    bt bv bw by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec
    ee eg er es et eu fi fj fk fm fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy
    hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke kg kh ki km kn kp kr kw ky kz
    la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms mt mu mv mw mx
    my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re
    ro rs ru rw sa sb sc sd se sg sh si sj sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th
    tj tk tl tm tn to tr tt tv tw tz ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw
    """
)
_COUNTRY: Final = 2


def emails(text: str) -> Iterator[Found]:
    """Yield e-mail addresses; the normal form has the domain in lower case."""
    at = text.find("@")
    while at != -1:
        if found := _email_at(text, at):
            yield found
        at = text.find("@", at + 1)


def _email_at(text: str, at: int) -> Found | None:
    before = _LOCAL.search(text[max(0, at - 64) : at])
    domain = _DOMAIN.match(text, at + 1)
    if before is None or domain is None or text[domain.end() : domain.end() + 1] in {"@", "_"}:
        return None
    name = before.group().lstrip("'.-_!#$%&*+/=?^`{|}~").rstrip("'")
    host = domain.group()
    if text[domain.end() : domain.end() + 1].isalnum():  # the last label is longer than any domain
        return None
    while not _is_top_level(host.rpartition(".")[2]):
        host = host.rpartition(".")[0]
        if "." not in host:
            return None
    if not _LOCAL_FORM.fullmatch(name) or not any(map(str.isalpha, name + host)):
        return None
    return Found("EMAIL", at - len(name), at + 1 + len(host), f"{name}@{host.lower()}")


def _is_top_level(label: str) -> bool:
    if len(label) == _COUNTRY and label.isascii():
        return label.lower() in _COUNTRIES and label[0].isupper() == label[1].isupper()
    return (
        label.islower()
        or label.isupper()
        or not label.isascii()
        or label.lower().startswith("xn--")
    )


def urls(text: str) -> Iterator[Found]:
    """Yield web addresses, also those that a line end or a hyphen at a line end cuts.

    The normal form is on one line, with scheme and host in lower case.
    """
    if "://" not in text and "www." not in text.lower():
        return
    position = 0
    while match := _URL_START.search(text, position):
        position = match.end()
        if match.start() and (
            text[match.start() - 1].isalnum() or text[match.start() - 1] in "/@."
        ):
            continue
        end = _url_end(text, match.start())
        joined = "".join(text[match.start() : end].split())
        url = _URL_FORM.fullmatch(joined)
        if url is None:
            continue
        normal = f"{(url['scheme'] or '').lower()}{url['host'].lower()}{url['path'] or ''}"
        yield Found(
            "URL", match.start(), end, normal.removesuffix("/") if url["path"] == "/" else normal
        )
        position = end


def _url_end(text: str, start: int) -> int:
    end = _run_end(text, start)
    for _ in range(_URL_LINES_MAX):
        line_end = _LINE_END.match(text, end)
        if line_end is None or end - start > _URL_MAX:
            break
        following = line_end.end()
        if not _goes_on(text, start, end, following):
            break
        end = _run_end(text, following)
    while end > start:
        last = text[end - 1]
        opening = _BRACKETS.get(last)
        is_unbalanced = opening is not None and (
            text.count(last, start, end) > text.count(opening, start, end)
        )
        if (
            last not in _URL_TRAILING
            and not last.isspace()
            and not is_unbalanced
            and last not in "(["
        ):
            break
        end -= 1
    return end


def _run_end(text: str, start: int) -> int:
    run = _URL_REST.match(text, start)
    return run.end() if run else start


def _goes_on(text: str, start: int, end: int, following: int) -> bool:
    """Return whether the address that a line ends at `end` goes on at `following`."""
    last, first = text[end - 1], text[following : following + 1]
    if _URL_START.match(text, following) or not first:
        return False
    if first in "/?&=#%_":
        return last not in ".,;:!?)"
    if not first.isascii() or not (first.isdigit() or first.islower() or first.isupper()):
        return False
    if last == "-":
        return True
    has_mark = _URL_MARK.match(text, following) is not None
    if last in "/=&?_%#.":
        return has_mark or (last != "." and first.isdigit())
    # Cut inside a word: only a path goes on, and only if it is clear that the rest is one.
    return last.isalnum() and has_mark and text.find("/", start + len("https://"), end) != -1


def ibans(text: str) -> Iterator[Found]:
    """Yield account numbers with right check digits; the normal form has no spaces."""
    for match in _IBAN.finditer(text):
        start, end = match.span()
        if text[max(0, start - 1) : start].isalnum() or text[end : end + 1].isalnum():
            continue
        # Words in capital letters may follow.
        while end > start:
            compact = "".join(text[start:end].split())
            if is_iban(compact):
                yield Found("IBAN", start, end, compact)
                break
            end = max(
                text.rfind(" ", start, end),
                text.rfind("\n", start, end),
                text.rfind("\u00a0", start, end),
            )


def is_iban(candidate: str) -> bool:
    """Return whether `candidate`, without spaces, has the form and check digits of an IBAN (ISO 13616)."""
    if not _IBAN_FORM.fullmatch(candidate):
        return False
    rearranged = candidate[4:] + candidate[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % _IBAN_DIVISOR == 1
