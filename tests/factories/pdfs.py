"""Ordinary, broken and hostile PDFs, made at run time."""

import random
import re
import zlib
from collections.abc import Iterable, Sequence
from io import BytesIO

from pypdf import PdfReader, PdfWriter
from pypdf.generic import TextStringObject
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

MB = 1_000_000
ADLER = 65_521
"""The modulus of Adler-32, the checksum of deflated data."""


# Ordinary PDFs


def with_pages(*texts: str, title: str | None = None, author: str | None = None) -> bytes:
    """A PDF with one A4 page per text; line breaks stay, long lines are not wrapped."""
    file = BytesIO()
    canvas = Canvas(file, pagesize=A4)
    if title is not None:
        canvas.setTitle(title)
    if author is not None:
        canvas.setAuthor(author)
    for text in texts:
        lines = canvas.beginText(72, A4[1] - 72)
        lines.textLines(text, trim=0)
        canvas.drawText(lines)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def merged(*documents: bytes) -> bytes:
    """A PDF with the pages of all documents."""
    writer = PdfWriter()
    for document in documents:
        writer.append(BytesIO(document))
    return _written(writer)


def with_information(information: dict[str, str]) -> bytes:
    """A PDF of one page with this information dictionary; keys are names such as `/Title`."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(with_pages("A page."))))
    writer.add_metadata(information)
    return _written(writer)


def with_page_contents(*contents: bytes) -> bytes:
    """A PDF with one page per content stream; the font is `/F1`, text is not escaped."""
    return _document(*(stream(content) for content in contents))


def rotated(text: str, *, degrees: int) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(with_pages(text))))
    writer.pages[0].rotate(degrees)
    return _written(writer)


def locked(text: str, *, opened_with: str) -> bytes:
    """A PDF that needs a password to open."""
    return _encrypted(text, opened_with)


def owner_locked(text: str) -> bytes:
    """A PDF that anyone may open and only its owner may change."""
    return _encrypted(text, "")


# Broken PDFs


def empty() -> bytes:
    return b""


def without_pages() -> bytes:
    return file_of([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 0/Kids[]>>"])


def not_a_pdf() -> bytes:
    return b"Something else that is not a PDF. " * 100


def truncated(text: str = "Half of this file is missing.") -> bytes:
    whole = with_pages(text)
    return whole[: len(whole) // 2]


def garbage(size_bytes: int) -> bytes:
    """The first line of a PDF, followed by noise."""
    return b"%PDF-1.7\n" + random.Random(0).randbytes(size_bytes)  # reproducible


def with_a_bad_page(*texts: str) -> bytes:
    """A PDF with good pages and a second page whose content cannot be decoded."""
    good = [stream(shown(text)) for text in texts]
    bad = b"<</Length 9/Filter/NoSuchDecode>>stream\nnot zlib!\nendstream"
    return _document(good[0], bad, *good[1:])


def with_a_deflated_page(content: bytes) -> bytes:
    """A PDF with one page, whose content is declared as deflated."""
    return _document(stream_of(content, filters=b"/FlateDecode"))


def with_a_missing_page(*texts: str) -> bytes:
    """A PDF with good pages and a second page whose object is not a page."""
    good = [
        page
        for number, text in enumerate(texts)
        for page in (page_of(5 + 2 * number), stream(shown(text)))
    ]
    pages = [4 + 2 * number for number in range(len(texts))]
    damaged = 4 + len(good)
    tree = page_tree([pages[0], damaged, *pages[1:]])
    return file_of([b"<</Type/Catalog/Pages 2 0 R>>", tree, FONT, *good, b"(damaged)"])


def with_damaged_page(content: bytes, *, number: int) -> bytes:
    """Return a PDF whose page `number`, from 1, is replaced by an object that is no page."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(content)))
    reference = writer.pages[number - 1].indirect_reference
    assert reference is not None
    writer._objects[reference.idnum - 1] = TextStringObject("damaged")  # noqa: SLF001  # a fault on purpose
    return _written(writer)


def with_wrong_offsets(text: str) -> bytes:
    """A PDF with a wrong offset of its cross-reference table; every reader repairs it."""
    return re.sub(rb"startxref\s+\d+", b"startxref\n11", with_pages(text))


def with_a_page_tree_loop() -> bytes:
    return file_of(
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[2 0 R]>>"],
    )


def encrypted_by_an_unknown_handler() -> bytes:
    return file_of(
        [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 0/Kids[]>>"],
        trailer=b"/Encrypt<</Filter/Acme.Rights/V 1>>/ID[<00><00>]",
    )


# Hostile PDFs; sizes are those after decompression


def flate_bomb(size_bytes: int) -> bytes:
    """A content stream that inflates a thousandfold."""
    return _document(_deflated_zeros(size_bytes))


def double_flate_bomb(size_bytes: int) -> bytes:
    """A content stream that inflates a millionfold."""
    once = _zeros(size_bytes)
    return _document(stream_of(zlib.compress(once, 9), filters=b"[/FlateDecode/FlateDecode]"))


def page_of_tokens(count: int) -> bytes:
    """A page of about `count` numbers and operators."""
    return _document(stream(b"1 0 0 1 0 0 cm " * (count // 7) + shown("end")))


def page_of_text(text: bytes) -> bytes:
    """A page that shows one string, which has no parentheses or backslashes."""
    return _document(stream(b"BT /F1 12 Tf 72 700 Td (" + text + b") Tj ET"))


def pages_sharing_a_stream(pages: int, *, tokens: int) -> bytes:
    """Many pages with the same content stream, which a reader parses for each page."""
    count = tokens // 9
    shared = stream(b"BT /F1 1 Tf " + b"(a) Tj 1 0 0 1 0 0 Tm " * count + b"ET")
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents 4 0 R>>"
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            page_tree(range(5, 5 + pages)),
            FONT,
            shared,
            *[page] * pages,
        ],
    )


def pages_of_text_matrices(pages: int, *, matrices: int) -> bytes:
    return _document(
        *[stream(b"BT /F1 1 Tf " + b"1 0 0 1 5 5 Tm (a) Tj " * matrices + b"ET")] * pages
    )


def tiny_pages(count: int) -> bytes:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<<>>>>"
    return file_of(
        [b"<</Type/Catalog/Pages 2 0 R>>", page_tree(range(3, 3 + count)), *[page] * count],
    )


def form_fan_out(*, width: int, depth: int, words: int) -> bytes:
    """Forms that each show the next form `width` times: the last is shown `width ** depth` times."""
    first = 5
    forms = [
        stream_of(
            b"/X Do " * width,
            entries=b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</Font<</F1 3 0 R>>/XObject<</X %d 0 R>>>>"
            % (first + level + 1),
        )
        for level in range(depth)
    ]
    last = stream_of(
        b"BT /F1 12 Tf (" + b"boom " * words + b") Tj ET",
        entries=b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</Font<</F1 3 0 R>>>>",
    )
    page = (
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 6 0 R"
        b"/Resources<</Font<</F1 3 0 R>>/XObject<</X 5 0 R>>>>>>"
    )
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            page_tree([4]),
            FONT,
            page.replace(b"6 0 R", b"%d 0 R" % (first + depth + 1)),
            *forms,
            last,
            stream_of(b"/X Do"),
        ],
    )


def nested_arrays(depth: int) -> bytes:
    return _document(stream(b"[" * depth + b"]" * depth + b" TJ"))


def unicode_map_bomb(size_bytes: int) -> bytes:
    """A font whose map to Unicode inflates a thousandfold."""
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>"
    return file_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            page_tree([4]),
            font,
            page_of(5),
            stream(shown("mapped")),
            _deflated_zeros(size_bytes),
        ],
    )


# Writing

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


def _written(writer: PdfWriter) -> bytes:
    file = BytesIO()
    writer.write(file)
    return file.getvalue()


def _encrypted(text: str, user_password: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(with_pages(text))))
    writer.encrypt(user_password, "the owner's", algorithm="AES-256")
    return _written(writer)


def shown(text: str) -> bytes:
    return b"BT /F1 12 Tf 72 700 Td (" + text.encode("latin-1") + b") Tj ET"


def _zeros(size_bytes: int) -> bytes:
    """Deflated spaces; the repeated block is compressed once, so that gigabytes take no time."""
    compressor = zlib.compressobj(9)
    first, repeated = (
        compressor.compress(b" " * MB) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    blocks = size_bytes // MB
    size = blocks * MB
    low = (1 + 32 * size) % ADLER
    high = (size + 32 * size * (size + 1) // 2) % ADLER
    end = b"\x03\x00" + (high << 16 | low).to_bytes(4, "big")  # an empty last block, and Adler-32
    return first + repeated * (blocks - 1) + end


def _deflated_zeros(size_bytes: int) -> bytes:
    return stream_of(_zeros(size_bytes), filters=b"/FlateDecode")


def stream(content: bytes) -> bytes:
    return stream_of(zlib.compress(content, 1), filters=b"/FlateDecode")


def stream_of(data: bytes, *, filters: bytes = b"", entries: bytes = b"") -> bytes:
    declared = b"/Filter" + filters if filters else b""
    return b"<</Length %d%s%s>>stream\n%s\nendstream" % (len(data), declared, entries, data)


def page_of(contents: int) -> bytes:
    return (
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]"
        b"/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>" % contents
    )


def page_tree(pages: Sequence[int]) -> bytes:
    kids = b" ".join(b"%d 0 R" % number for number in pages)
    return b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(pages), kids)


def _document(*streams: bytes) -> bytes:
    """A PDF with one page per content stream; the font is object 3."""
    first = 4
    pages = range(first, first + 2 * len(streams), 2)
    bodies = [
        part
        for number, content in zip(pages, streams, strict=True)
        for part in (page_of(number + 1), content)
    ]
    return file_of([b"<</Type/Catalog/Pages 2 0 R>>", page_tree(pages), FONT, *bodies])


def file_of(objects: Iterable[bytes], *, trailer: bytes = b"") -> bytes:
    """Number the objects from 1 and add header, cross-reference table and trailer.

    The first object is the catalog.
    """
    file = BytesIO()
    file.write(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(file.tell())
        file.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = file.tell()
    file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1))
    file.writelines(b"%010d 00000 n \n" % offset for offset in offsets)
    file.write(b"trailer<</Size %d/Root 1 0 R%s>>\n" % (len(offsets) + 1, trailer))
    file.write(b"startxref\n%d\n%%%%EOF\n" % start)
    return file.getvalue()
