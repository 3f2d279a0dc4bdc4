"""One small PDF for each kind of fault that real files have."""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import reportlab
from fontTools.ttLib import TTFont
from pypdf import PdfReader, PdfWriter
from pypdf.constants import PageLabelStyle
from pypdf.generic import NameObject, NumberObject, TextStringObject

from tests.factories import pdfs
from tests.factories.pdfs import file_of, page_of, page_tree, stream, stream_of

SENTENCE = "This is a sentence of letters that nobody reads without a map to characters."

_VERA = Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"


# Text that cannot be mapped, or that one engine maps and the other one does not


def without_a_unicode_map(*lines: str) -> bytes:
    """Text in glyph numbers: the font has no map to Unicode, and every letter is shifted by 29."""
    shown = b" ".join(b"<%s> Tj 0 -14 Td" % _glyphs(line).hex().encode() for line in lines)
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            page_tree([4]),
            (
                b"<</Type/Font/Subtype/Type0/BaseFont/AAAAAA+Vera/Encoding/Identity-H"
                b"/DescendantFonts[6 0 R]>>"
            ),
            page_of(5),
            stream(b"BT /F1 12 Tf 72 700 Td " + shown + b" ET"),
            (
                b"<</Type/Font/Subtype/CIDFontType2/BaseFont/AAAAAA+Vera/DW 600/CIDToGIDMap/Identity"
                b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"
                b"/FontDescriptor 7 0 R>>"
            ),
            (
                b"<</Type/FontDescriptor/FontName/AAAAAA+Vera/Flags 4/FontBBox[0 0 1000 1000]"
                b"/ItalicAngle 0/Ascent 800/Descent -200/CapHeight 700/StemV 80/FontFile2 8 0 R>>"
            ),
            stream(_VERA.read_bytes()),
        ]
    )


def with_a_private_unicode_map(text: str) -> bytes:
    """Text whose font maps every character to a private one."""
    entries = b" ".join(
        b"<%02x> <%04x>" % (code, 0xE000 + code) for code in sorted(set(text.encode("latin-1")))
    )
    count = len(set(text))
    return _with_map(
        text,
        b"begincmap 1 begincodespacerange <00> <ff> endcodespacerange "
        b"%d beginbfchar %s endbfchar endcmap" % (count, entries),
    )


def with_numbered_glyphs(text: str) -> bytes:
    """A font that draws its glyphs itself and names them `/g18`, `/g152`.

    The codes of the glyphs are the characters of the text.
    """
    codes = sorted(set(text.encode("latin-1")))
    names = b"".join(b"/g%d" % code for code in codes)
    differences = b"".join(b" %d /g%d" % (code, code) for code in codes)
    glyphs = names.replace(b"/", b" 6 0 R/").removeprefix(b" 6 0 R") + b" 6 0 R"
    font = (
        b"<</Type/Font/Subtype/Type3/FontBBox[0 0 10 10]/FontMatrix[.1 0 0 .1 0 0]/Resources<<>>"
        b"/FirstChar 0/LastChar 255/Widths[%s]/Encoding<</Type/Encoding/Differences[%s]>>"
        b"/CharProcs<<%s>>>>" % (b"6 " * 256, differences, glyphs)
    )
    return _with_font(text, font, stream(b"6 0 0 0 5 5 d1 0 0 5 5 re f"))


def without_a_font_map_in_chinese() -> bytes:
    """Chinese text in a standard encoding without a map to Unicode."""
    font = (
        b"<</Type/Font/Subtype/Type0/BaseFont/SimHei/Encoding/GBK-EUC-H/DescendantFonts["
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/SimHei/DW 1000"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 2>>"
        b"/FontDescriptor<</Type/FontDescriptor/FontName/SimHei/Flags 4/FontBBox[0 0 1000 1000]"
        b"/ItalicAngle 0/Ascent 800/Descent -200/StemV 80>>>>]>>"
    )
    return _with_font("我们都是黑体字", font, encoding="gbk")


def with_letters_apart(text: str) -> bytes:
    """Letters that are placed one by one, each far from the next one."""
    shown = b" ".join(b"(%s) Tj 26 0 Td" % bytes([code]) for code in text.encode("latin-1"))
    return pdfs.with_page_contents(b"BT /F1 12 Tf 72 700 Td " + shown + b" ET")


# Pages that show text without having any


def scan(*, stamp: str = "") -> bytes:
    """A page that is an image; a stamp is text on it."""
    return _with_image(b"q 612 0 0 792 0 0 cm /I Do Q " + (pdfs.shown(stamp) if stamp else b""))


def with_a_logo(text: str) -> bytes:
    """A page with a small image."""
    return _with_image(b"q 60 0 0 40 500 700 cm /I Do Q " + (pdfs.shown(text) if text else b""))


def with_outlined_letters(count: int) -> bytes:
    """A page whose letters are filled shapes."""
    letter = (
        b"%d %d m %d %d %d %d %d %d c %d %d l %d %d l %d %d %d %d %d %d c %d %d l %d %d l "
        b"%d %d l %d %d l h f "
    )
    shapes = []
    for number in range(count):
        x, y = 72 + number % 40 * 10, 700 - number // 40 * 14
        points = [
            (0, 0), (1, 3), (2, 6), (3, 8), (5, 8), (6, 6), (5, 4), (4, 3), (3, 2), (5, 1),
            (6, 0), (4, 0), (2, 0),
        ]  # fmt: skip
        shapes.append(letter % tuple(v for px, py in points for v in (x + px, y + py)))
    return pdfs.with_page_contents(b"".join(shapes))


def with_ruled_lines() -> bytes:
    """A blank form: lines and frames, no text."""
    return pdfs.with_page_contents(
        b"".join(b"72 %d m 540 %d l S " % (y, y) for y in range(100, 700, 20))
        + b"".join(b"100 %d 20 10 re f " % y for y in range(100, 700, 20))
    )


# Encryption


def with_an_encrypted_attachment(text: str) -> bytes:
    """Only the attachment is encrypted: its filter is for embedded files alone."""
    attachment = stream_of(b"secret bytes", entries=b"/Type/EmbeddedFile")
    filters = (
        b"/Encrypt<</Filter/Standard/V 4/R 4/Length 128/P -1/StmF/Identity/StrF/Identity/EFF/StdCF"
        b"/CF<</StdCF<</AuthEvent/EFOpen/CFM/AESV2/Length 16>>>>"
        b"/O<%s>/U<%s>>>/ID[<00><00>]" % (b"11" * 32, b"22" * 32)
    )
    return file_of(
        [
            (
                b"<</Type/Catalog/Pages 2 0 R/Names<</EmbeddedFiles<</Names[(a.txt)"
                b"<</Type/Filespec/F(a.txt)/UF(a.txt)/EF<</F 6 0 R>>>>]>>>>>>"
            ),
            page_tree([4]),
            pdfs.FONT,
            page_of(5),
            stream(pdfs.shown(text)),
            attachment,
        ],
        trailer=filters,
    )


# Damage that one engine does not get over


def with_an_operator_in_an_array(text: str) -> bytes:
    """A page that pypdf does not read."""
    shown = text.encode("latin-1")
    return pdfs.with_page_contents(b"BT /F1 12 Tf 72 700 Td [(%s) 0 Tc -250 () ] TJ ET" % shown)


def without_an_offset_of_the_table(text: str) -> bytes:
    """A file that pypdf does not open."""
    whole = pdfs.with_pages(text)
    return whole[: whole.rindex(b"startxref")] + b"startxref\n%%EOF\n"


# Forms and annotations


def with_fields(label: str, *fields: bytes, annotations: Sequence[bytes] = ()) -> bytes:
    """A page with a label at the left and form fields, which are dictionaries without a frame.

    A field's place in the sequence is its line, from the top.
    """
    kids = [b"%d 0 R" % number for number in range(6, 6 + len(fields))]
    page = page_of(5).removesuffix(b">>") + b"/Annots[%s %s]>>" % (
        b" ".join(kids),
        b" ".join(annotations),
    )
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[%s]>>>>" % b" ".join(kids),
            page_tree([4]),
            pdfs.FONT,
            page,
            stream(pdfs.shown(label)),
            *(
                b"<</Type/Annot/Subtype/Widget/F 4/T(f%d)/Rect[200 %d 500 %d]%s>>"
                % (line, 696 - 30 * line, 714 - 30 * line, field)
                for line, field in enumerate(fields)
            ),
        ]
    )


def free_text(words: str, *, flags: int = 4) -> bytes:
    return b"<</Type/Annot/Subtype/FreeText/F %d/Rect[72 100 400 120]/Contents(%s)>>" % (
        flags,
        words.encode("latin-1"),
    )


def comment(words: str) -> bytes:
    return b"<</Type/Annot/Subtype/Text/F 4/Rect[72 100 90 120]/Contents(%s)>>" % words.encode(
        "latin-1"
    )


# Structure


def with_structure() -> bytes:
    """Three pages with outline, labels and an attachment."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(pdfs.with_pages("one", "two", "three"))))
    chapter = writer.add_outline_item(title="Chapter\x00 one", page_number=0)
    writer.add_outline_item(title="Section", page_number=1, parent=chapter)
    writer.add_outline_item(title="Chapter two", page_number=2)
    writer.set_page_label(0, 1, PageLabelStyle.LOWERCASE_ROMAN)
    attachment = writer.add_attachment("data.csv", b"1,2\n3,4\n")
    attachment.size = NumberObject(8)
    attachment.subtype = NameObject("/text/csv")
    attachment.description = TextStringObject("Two lines")
    file = BytesIO()
    writer.write(file)
    return file.getvalue()


def with_xmp(xmp: str) -> bytes:
    data = xmp.encode()
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R/Metadata 6 0 R>>",
            page_tree([4]),
            pdfs.FONT,
            page_of(5),
            stream(pdfs.shown("text")),
            stream_of(data, entries=b"/Type/Metadata/Subtype/XML"),
        ]
    )


def with_an_outline(count: int) -> bytes:
    first = 6
    items = [
        b"<</Title(entry %d)/Parent 6 0 R/Dest[4 0 R/Fit]%s>>"
        % (number, b"/Next %d 0 R" % (first + number + 1) if number < count else b"")
        for number in range(1, count + 1)
    ]
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R/Outlines 6 0 R>>",
            page_tree([4]),
            pdfs.FONT,
            page_of(5),
            stream(pdfs.shown("text")),
            b"<</Type/Outlines/Count %d/First 7 0 R/Last %d 0 R>>" % (count, first + count),
            *items,
        ]
    )


@cache
def _vera() -> TTFont:
    return TTFont(_VERA)


def _glyphs(text: str) -> bytes:
    font = _vera()
    names = font.getBestCmap()
    return b"".join(font.getGlyphID(names[ord(each)]).to_bytes(2, "big") for each in text)


def _with_map(text: str, unicode_map: bytes) -> bytes:
    font = b"<</Type/Font/Subtype/Type1/BaseFont/AAAAAA+Odd/ToUnicode 6 0 R>>"
    return _with_font(text, font, stream(unicode_map))


def _with_font(text: str, font: bytes, *more: bytes, encoding: str = "latin-1") -> bytes:
    content = b"BT /F1 12 Tf 72 700 Td <%s> Tj ET" % text.encode(encoding).hex().encode()
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            page_tree([4]),
            font,
            page_of(5),
            stream(content),
            *more,
        ]
    )


def _with_image(content: bytes) -> bytes:
    image = stream_of(
        b"\x80" * 64,
        entries=b"/Type/XObject/Subtype/Image/Width 8/Height 8/BitsPerComponent 8"
        b"/ColorSpace/DeviceGray",
    )
    page = page_of(5).replace(b"/Resources<<", b"/Resources<</XObject<</I 6 0 R>>")
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            page_tree([4]),
            pdfs.FONT,
            page,
            stream(content),
            image,
        ]
    )
