"""Cleans text from PDFs for a database, JSON and a language model."""

import re
from typing import Final

# Latin ligatures: without this a search for "file" misses what a typesetter set as "ﬁle".
_LIGATURES: Final = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"},
)
_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# PostgreSQL refuses NUL; other controls and the two non-characters carry no meaning.
_UNWANTED: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def clean(raw: str) -> str:
    """Return `raw` without carriage returns, control characters and surrogates.

    A surrogate pair becomes its character; a lone surrogate is removed.
    """
    text = raw
    if _SURROGATES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    text = _LINE_ENDS.sub("\n", text)
    return _UNWANTED.sub("", text).translate(_LIGATURES)


def clean_line(raw: str, *, longest: int) -> str | None:
    """Return `raw` cleaned, on one line, at most `longest` characters; None if nothing is left."""
    # Four times the length is enough: cleaning a title of 20 MB would take seconds.
    line = " ".join(clean(raw[: 4 * longest]).split())
    return line[:longest].rstrip() or None


def cut(text: str, *, size_bytes: int) -> str:
    """Return the longest prefix of `text` that is at most `size_bytes` of UTF-8."""
    if len(text) * 4 <= size_bytes:
        return text
    return text.encode()[:size_bytes].decode(errors="ignore")
