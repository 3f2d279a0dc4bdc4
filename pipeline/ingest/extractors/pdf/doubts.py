"""Where PDFium itself doubts the text of a page, or has cut it without an error."""

from typing import Any, Final

import pypdfium2.raw as c

from pipeline.ingest.extractors.pdf.shown import text_objects

_SAMPLES: Final = 48
# PDFium keeps the first 32,767 bytes of a string; a character is one byte or two.
_STRING_CHARACTERS_MAX: Final = 32_767 // 2


def doubted_text(text_page: Any, *, count: int) -> str:  # noqa: ANN401  # a ctypes handle
    """Return the characters without a map to Unicode, with spaces for the others.

    For such a character PDFium yields the code of its glyph. A sample is looked at first, because
    most pages have none.
    """
    has_no_map = c.FPDFText_HasUnicodeMapError
    sample = range(0, count, max(1, count // _SAMPLES))
    if not any(has_no_map(text_page, index) == 1 for index in sample):
        return ""
    return "".join(
        chr(c.FPDFText_GetUnicode(text_page, index)) if has_no_map(text_page, index) == 1 else " "
        for index in range(count)
    )


def may_be_cut(page: Any, text_page: Any, *, count: int) -> bool:  # noqa: ANN401
    """Return whether a string is so long that PDFium may have dropped its end."""
    if count < _STRING_CHARACTERS_MAX:
        return False
    return any(
        # The size is in bytes of UTF-16, with a NUL.
        c.FPDFTextObj_GetText(each, text_page, None, 0) > 2 * _STRING_CHARACTERS_MAX
        for each in text_objects(page)
    )
