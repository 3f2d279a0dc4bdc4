"""Text as it comes out of PDFs, made fit for a database, JSON and a language model."""

import re
from collections.abc import Iterator
from typing import Final

# Latin ligatures: without this a search for "file" misses what a typesetter set as "ﬁle".
_LIGATURES: Final = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"},
)
_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Postgres refuses NUL; the other controls and the two non-characters mean nothing in text.
_UNWANTED: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_WHITE_SPACE: Final = re.compile(r"\s+")

_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_IBAN_DIVISOR: Final = 97


def clean(raw: str) -> str:
    """Return `raw` as text that encodes to UTF-8 and has no carriage returns or control characters.

    Surrogate pairs become the character they mean; lone surrogates disappear.
    """
    text = raw
    if _SURROGATES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    text = _LINE_ENDS.sub("\n", text)
    return _UNWANTED.sub("", text).translate(_LIGATURES)


def clean_line(raw: str, *, longest: int) -> str | None:
    """Return `raw` cleaned, on one line and at most `longest` characters; None if nothing is left."""
    # Four times the length is enough to find it: cleaning 20 MB of title would take seconds.
    line = one_line(clean(raw[: 4 * longest]))
    return line[:longest].rstrip() or None


def one_line(text: str) -> str:
    return _WHITE_SPACE.sub(" ", text).strip()


def cut(text: str, *, size_bytes: int) -> str:
    """Return the longest start of `text` that is at most `size_bytes` of UTF-8."""
    if len(text) * 4 <= size_bytes:
        return text
    return text.encode()[:size_bytes].decode(errors="ignore")


def pieces(text: str, *, longest: int) -> Iterator[tuple[int, str]]:
    """Yield `text` in pieces of at most `longest` characters, each with its offset.

    A piece ends behind a line if it can, else behind a word, else anywhere.
    """
    start = 0
    while len(text) - start > longest:
        end = (
            text.rfind("\n", start, start + longest) + 1
            or text.rfind(" ", start, start + longest) + 1
            or start + longest
        )
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


def is_iban(candidate: str) -> bool:
    """Tell whether `candidate`, without spaces, has the form and check digits of an IBAN (ISO 13616)."""
    if not _IBAN.fullmatch(candidate):
        return False
    rearranged = candidate[4:] + candidate[:4]
    return int("".join(str(int(character, 36)) for character in rearranged)) % _IBAN_DIVISOR == 1
