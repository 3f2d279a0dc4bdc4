"""The characters of a file of text: its encoding is found in a bounded sample."""

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from charset_normalizer import CharsetMatch, from_bytes

from pipeline.ingest.errors import DocumentCorrupt

# Longest first: the mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf_32_le"),
    (codecs.BOM_UTF32_BE, "utf_32_be"),
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF16_LE, "utf_16_le"),
    (codecs.BOM_UTF16_BE, "utf_16_be"),
)

# The detection looks at 5 kB of its input, so a larger sample adds only time.
_SAMPLE_BYTES: Final = 64 * 1024
_NOT_ASCII: Final = re.compile(rb"[^\n]*[\x80-\xff][^\n]*\n?")
# No second byte of a Chinese, Japanese or Korean character is one of these.
_BETWEEN_CHARACTERS: Final = re.compile(rb"[\t\n\r ,.]")

# Encodings of files of the last thirty years. Others, which charset-normalizer prefers for a French
# or Polish sentence, are so rare that they are mostly wrong.
_ENCODINGS: Final = (
    "cp1252",
    "cp932",
    "euc_jp",
    "gb18030",
    "big5hkscs",
    "cp949",
    "cp1251",
    "koi8_r",
    "cp866",
    "iso8859_5",
    "cp1255",
    "cp1256",
    "iso8859_6",
    "cp1250",
    "iso8859_2",
    "cp1253",
    "iso8859_7",
    "cp1254",
    "tis_620",
    "cp850",
    "mac_roman",
)
_WESTERN: Final = "cp1252"
_LATIN: Final = (_WESTERN, "cp1250", "cp1254", "iso8859_2", "cp850", "mac_roman")
# Letters beyond ASCII of languages with Latin letters. The right encoding of a text is the one that
# yields letters of a single language: "ação" in the encoding of Poland is "açăo".
_ALPHABETS: Final = tuple(
    frozenset(letters + letters.upper() + "ß")
    for letters in (
        "àâæçéèêëîïôœùûüÿ",
        "äöü",
        "áéíñóúü",
        "áâãàçéêíóôõúü",
        "àèéìíîòóùú",
        "åäöæøéü",
        "áéíóúýðþæö",
        "àçèéíïòóúü",
        "éèëïóöü",
        "ąćęłńóśźż",
        "áčďéěíňóřšťúůýž",
        "áäčďéíĺľňóôŕšťúýž",
        "áéíóöőúüű",
        "čćđšž",
        "ăâîșțşţ",
        "âçğ\u0131iîöşüû",
        "äõöüšž",
    )
)
# Letters, and signs behind a letter that end no word: "Płatno¶ć".
_BEYOND_ASCII: Final = re.compile(
    r"(?![\x00-\x7f])(?:[^\W\d_]|(?<=[^\W\d_])[^\w\s\u00a0\u2018-\u201f\u2013\u2014\u2026»\u203a°])"
)
# Windows-1255 has the Hebrew letters here, where Cyrillic encodings have letters too. A Cyrillic
# text of some words has capitals, or one of the last letters of the alphabet, which lie elsewhere.
_HEBREW_BYTES: Final = re.compile(rb"[\xe0-\xfa]")
_CYRILLIC_BYTES: Final = re.compile(rb"[\xc0-\xdf\xfb-\xff]")
_HEBREW: Final = "cp1255"
_HEBREW_MIN: Final = 40

# Python has more codecs, of which some decode no text.
_DECLARABLE: Final = (
    "big5", "cp", "euc", "gb18030", "iso2022_jp", "iso8859", "koi8", "mac-", "shift_jis", "utf-8",
)  # fmt: skip

_NULS: Final = re.compile("\0+")
# Not those of a terminal: bell, backspace, escape.
_CONTROLS: Final = re.compile("[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")
_CONTROLS_PERCENT: Final = 1


@dataclass(frozen=True, kw_only=True)
class DecodedText:
    """A decoded text.

    Attributes:
        text: without a byte order mark.
        encoding: Python's name of the encoding.
        replaced: bytes that are no character, each replaced by U+FFFD.
    """

    text: str
    encoding: str
    replaced: int


def decode(content: bytes, *, declared: str | None = None, is_cut: bool = False) -> DecodedText:
    """Decode a text by its byte order mark, as UTF-8, as declared, or by detection.

    Args:
        content: the file, or its beginning.
        declared: encoding that the file itself names.
        is_cut: whether the last character may be incomplete.

    Raises:
        DocumentCorrupt: the content is no text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return _decoded(content[len(mark) :], encoding, is_cut=is_cut)
    decoded = _without_mark(content, declared=declared, is_cut=is_cut)
    if _is_binary(decoded.text):
        raise DocumentCorrupt("The content is not text.")
    return decoded


def of_label(label: str, replacements: Mapping[str, str]) -> str | None:
    """Return Python's name of the encoding that a document names; None for an unknown one.

    Args:
        label: name in the document.
        replacements: from Python's name of an encoding to that of the one to use.
    """
    try:
        name = codecs.lookup(label).name
    except (LookupError, ValueError):
        return None
    name = replacements.get(name, name)
    return name if name.startswith(_DECLARABLE) else None


def _without_mark(content: bytes, *, declared: str | None, is_cut: bool) -> DecodedText:
    wide = _wide_encoding(content[:_SAMPLE_BYTES])
    if wide is not None:
        return _decoded(content, wide, is_cut=is_cut)
    if content.isascii():
        encoding = "iso2022_jp" if b"\x1b$" in content else "ascii"
        return _decoded(content, encoding, is_cut=is_cut)
    with suppress(UnicodeDecodeError):
        return _decoded(content, "utf_8", is_cut=is_cut, errors="strict")
    sample = _sample(content)
    encoding = "utf_8" if _is_mostly_utf8(sample) else declared or _detected(sample)
    return _decoded(content, encoding, is_cut=is_cut)


def _wide_encoding(sample: bytes) -> str | None:
    """Return UTF-16 for a text without a byte order mark whose characters are mostly ASCII."""
    pairs = len(sample) // 2
    high_first, low_first = sample[: 2 * pairs : 2].count(0), sample[1 : 2 * pairs : 2].count(0)
    if low_first > pairs // 2 and high_first == 0:
        return "utf_16_le"
    if high_first > pairs // 2 and low_first == 0:
        return "utf_16_be"
    return None


def _is_mostly_utf8(sample: bytes) -> bool:
    """Return whether the bytes are UTF-8 with a few broken characters, as a log may have."""
    text = sample.decode(errors="replace")
    broken = text.count("\ufffd")
    # One character of UTF-8 takes several bytes; texts in other encodings hardly ever have those.
    return sum(each > "\x7f" for each in text) - broken > 10 * broken


def _sample(content: bytes) -> bytes:
    """Return lines that are not ASCII: the other lines do not show the encoding."""
    lines: list[bytes] = []
    missing = _SAMPLE_BYTES
    for line in _NOT_ASCII.finditer(content):
        if line.end() - line.start() > missing:
            lines.append(_cut(line[0], missing))
            break
        lines.append(line[0])
        missing -= len(lines[-1])
    return b"".join(lines)


def _cut(line: bytes, size: int) -> bytes:
    """Return the beginning of a line, cut between two characters where that is possible."""
    start = line[:size]
    ends = [found.start() for found in _BETWEEN_CHARACTERS.finditer(start)]
    return start[: ends[-1]] if ends else start


def _detected(sample: bytes) -> str:
    matches = from_bytes(sample, cp_isolation=list(_ENCODINGS))
    best = matches.best()
    if best is None or best.encoding in _LATIN:
        return _latin_encoding(sample, matches)
    if (
        len(_HEBREW_BYTES.findall(sample)) >= _HEBREW_MIN
        and not _CYRILLIC_BYTES.search(sample)
        and any(match.encoding == _HEBREW for match in matches)
    ):
        return _HEBREW
    return best.encoding


def _latin_encoding(sample: bytes, matches: Iterable[CharsetMatch]) -> str:
    """Return the encoding that yields most letters of one language; among equals the best match."""
    likely = [match.encoding for match in matches if match.encoding in _LATIN]
    best = max(
        (*likely, *_LATIN), key=lambda name: _share_of_one_alphabet(sample.decode(name, "replace"))
    )
    is_western = sample.decode(best, "replace") == sample.decode(_WESTERN, "replace")
    return _WESTERN if is_western else best


def _share_of_one_alphabet(text: str) -> float:
    """Return the largest share of the letters beyond ASCII that are of one language."""
    letters = Counter(_BEYOND_ASCII.findall(text))
    most = max(sum(letters[each] for each in letters if each in kept) for kept in _ALPHABETS)
    return most / letters.total() if letters else 1.0


def _decoded(
    content: bytes, encoding: str, *, is_cut: bool, errors: str = "replace"
) -> DecodedText:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    text = decoder.decode(content, final=not is_cut)
    replaced = text.count("\ufffd")
    return DecodedText(text=text, encoding=encoding, replaced=replaced)


def _is_binary(text: str) -> bool:
    # A power failure leaves blocks of zeros in a log: one run counts once.
    controls = len(_CONTROLS.findall(_NULS.sub("\0", text)))
    return controls > 1 + len(text) * _CONTROLS_PERCENT // 100
