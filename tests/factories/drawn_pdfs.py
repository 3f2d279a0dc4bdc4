"""PDFs whose text is drawn at given places, in a font that shows any character."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.factories import pdfs

A4_WIDTH = 595
A4_HEIGHT = 842
CHARACTER_WIDTH = 0.6
"""Advance of every character, as a fraction of the size."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A string and where it starts; `y` is the distance of its base line from the lower edge.

    Attributes:
        text: one glyph for each character.
        x: in 1/72 inch from the left edge.
        y: in 1/72 inch from the lower edge.
        size: of the font.
        spacing: added to the advance of each character.
    """

    text: str
    x: float = 72
    y: float = 700
    size: float = 12
    spacing: float = 0


def pdf(
    *pages: Sequence[Shown],
    unicode_values: Mapping[str, str] | None = None,
    entries: bytes = b"",
    width: int = A4_WIDTH,
    height: int = A4_HEIGHT,
) -> bytes:
    """A PDF that draws the strings of each page in their order.

    Args:
        pages: what each page shows.
        unicode_values: what the font says that a glyph stands for, instead of its character.
        entries: further entries of each page.
        width: of each page, in 1/72 inch.
        height: as `width`.
    """
    characters = sorted({character for page in pages for shown in page for character in shown.text})
    # A space is a space in every encoding; the other codes are free.
    free = iter([*range(33, 127), *range(161, 256)])
    codes = {character: 32 if character == " " else next(free) for character in characters}
    values = {
        code: (unicode_values or {}).get(character, character) for character, code in codes.items()
    }
    first = 5
    count = len(pages)
    kids = b" ".join(b"%d 0 R" % (first + 2 * index) for index in range(count))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (count, kids),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding/ToUnicode 4 0 R"
        b"/FirstChar 32/LastChar 255/Widths[%s]>>" % (b"600 " * 224),
        pdfs.stream(_unicode_map(values)),
    ]
    for index, page in enumerate(pages):
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]%s"
            b"/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>"
            % (width, height, entries, first + 2 * index + 1)
        )
        objects.append(pdfs.stream(b"\n".join(_drawing(shown, codes) for shown in page)))
    return pdfs.file_of(objects)


def _drawing(shown: Shown, codes: Mapping[str, int]) -> bytes:
    string = "".join(f"{codes[character]:02x}" for character in shown.text)
    return (
        f"BT /F1 {shown.size} Tf {shown.spacing} Tc {shown.x} {shown.y} Td <{string}> Tj ET"
    ).encode()


def _unicode_map(values: Mapping[int, str]) -> bytes:
    lines = [
        f"<{code:02x}> <{value.encode('utf-16-be', 'surrogatepass').hex()}>"
        for code, value in values.items()
    ]
    # A block has at most 100 lines.
    blocks = [lines[start : start + 100] for start in range(0, len(lines), 100)]
    return "\n".join(
        [
            "/CIDInit /ProcSet findresource begin 12 dict begin begincmap",
            "/CMapName /Map def /CMapType 2 def",
            "1 begincodespacerange <00> <ff> endcodespacerange",
            *(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar" for block in blocks),
            "endcmap end end",
        ]
    ).encode()
