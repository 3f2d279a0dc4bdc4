"""Cleans text of documents for a database, JSON and a language model."""

import re
import unicodedata
from typing import Final

_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")

# PostgreSQL refuses NUL; the others have no meaning outside of the layout of a page.
_REMOVED: Final = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # controls
    "\u00ad"  # a place where a word may be divided
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u200b\u2060-\u2065\ufeff\ufff9-\ufffb\ufffe\uffff"  # without width
    "\ue000-\uf8ff\U000f0000-\U0010ffff"  # private use: glyphs without a character
)
_SPACES: Final = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
# Characters that only fix the shape of others: without their replacement a search for "file"
# misses what a typesetter set as "ﬁle".
_SHAPES: Final = (
    "\u2e9f\u2ef3\u2f00-\u2fd5\uf900-\ufaff"  # radicals and duplicates of Chinese characters
    "\ufb00-\ufb06\ufb13-\ufb17\ufb1d-\ufb4f"  # Latin, Armenian and Hebrew
    "\ufb50-\ufdfb\ufe70-\ufefc"  # Arabic
    "\ufe30-\ufe4f\ufe50-\ufe6f"  # vertical and small punctuation
)
# Private use that fonts agree on: of Microsoft's symbol fonts, and of Adobe's glyph list.
KNOWN_PRIVATE: Final = {
    0xF0B7: "\u2022",
    0xF0A7: "\u25aa",
    0xF0D8: "\u27a2",
    0xF0FC: "\u2713",
    **dict(zip(range(0xF8E8, 0xF8EB), "\u00ae\u00a9\u2122", strict=True)),
    **dict(zip(range(0xF8EB, 0xF8F1), "\u239b\u239c\u239d\u23a1\u23a2\u23a3", strict=True)),
    **dict(zip(range(0xF8F1, 0xF8F6), "\u23a7\u23a8\u23a9\u23aa\u23ae", strict=True)),
    **dict(zip(range(0xF8F6, 0xF8FC), "\u239e\u239f\u23a0\u23a4\u23a5\u23a6", strict=True)),
    **dict(zip(range(0xF8FC, 0xF8FF), "\u23ab\u23ac\u23ad", strict=True)),
    **{0xF730 + digit: str(digit) for digit in range(10)},  # old-style figures
    **{0xF761 + letter: chr(ord("A") + letter) for letter in range(26)},  # small capitals
}
_UNCLEAN: Final = re.compile(f"[{_REMOVED}{_SPACES}{_SHAPES}]")
_CHANGED: Final = re.compile(
    f"[{_REMOVED}{_SPACES}{_SHAPES}\r\x0b\x0c\x85\u2028\u2029\ud800-\udfff]"
)


def clean(raw: str) -> str:
    """Return `raw` with line feeds, plain spaces and composed characters, and without the rest.

    Controls, surrogates and private use are removed; a surrogate pair becomes its character.
    """
    text = raw
    if _SURROGATES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    text = _LINE_ENDS.sub("\n", text)
    text = _UNCLEAN.sub(_replacement, text)
    return unicodedata.normalize("NFC", text)


def is_clean(raw: str) -> bool:
    """Whether `clean` changes nothing."""
    if is_plain(raw):
        return True
    return _CHANGED.search(raw) is None and unicodedata.is_normalized("NFC", raw)


def is_plain(raw: str) -> bool:
    """Whether `raw` is only printable ASCII and line feeds, as most text is; cheap to look for."""
    return raw.isascii() and raw.replace("\n", "").isprintable()


def _replacement(found: re.Match[str]) -> str:
    character = found[0]
    category = unicodedata.category(character)
    if category.startswith("C"):
        return KNOWN_PRIVATE.get(ord(character), "")
    return " " if category == "Zs" else unicodedata.normalize("NFKC", character)


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
