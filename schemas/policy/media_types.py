"""The media type of a file, from its first bytes.

A short table in the code: of the available libraries, one reports plain text as a word processor's
document, the other is unmaintained, and both find PDF only at
offset 0.
"""

import re
from collections.abc import Mapping
from typing import Final

from schemas.lifecycle import ExportFormat

PDF: Final = "application/pdf"
ZIP: Final = "application/zip"
HTML: Final = "text/html"
XHTML: Final = "application/xhtml+xml"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
DOCM: Final = "application/vnd.ms-word.document.macroenabled.12"
UNKNOWN: Final = "application/octet-stream"

EXPORTED: Final[Mapping[ExportFormat, str]] = {
    ExportFormat.CSV: "text/csv; charset=utf-8; header=present",
    ExportFormat.JSONL: "application/jsonl",
}
"""The media types of exports."""

TEXT_TYPES: Final = frozenset(
    {XHTML, "application/json", "application/jsonl", "application/x-ndjson"}
)
"""Types that are read as text, besides those of `text/`."""

WORD_TYPES: Final = frozenset(
    {
        DOCX,
        DOCM,
        "application/vnd.openxmlformats-officedocument.wordprocessingml.template",
        "application/vnd.ms-word.template.macroenabled.12",
    }
)
"""Documents and templates of Word; the first bytes do not tell them apart."""

# Word writes two other parts before `word/document.xml` and pads each by 0.5 kB.
SNIFFED_BYTES: Final = 4096

# PDF Reference 1.7, appendix H, implementation note 13: the header may appear
# anywhere within the first 1024 bytes.
PDF_HEADER: Final = b"%PDF-"
_PDF_HEADER_WITHIN: Final = 1024

SIGNATURES: Final = (
    (PDF_HEADER, PDF),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),  # BigTIFF
    (b"MM\x00+", "image/tiff"),
    (b"%!PS", "application/postscript"),
    (b"{\\rtf", "application/rtf"),
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", ZIP),  # empty
    (b"PK\x07\x08", ZIP),  # in several volumes
    (b"\x1f\x8b", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
)

# Signatures with a gap, or so short that more of the header must fit.
_HEADERS: Final = (
    (re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL), "image/webp"),
    # File size, four reserved bytes, offset of the pixels, size of one of the known headers.
    (
        re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
        "image/bmp",
    ),
)

# Shorter than the table of the WHATWG standard, which finds HTML in `<p>` and `<b>`: Markdown may
# begin with these.
_HTML: Final = re.compile(
    rb"\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_UTF8_BOM: Final = b"\xef\xbb\xbf"
_UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")

# Local file headers of a ZIP archive: signature, 22 bytes, length of the name, 2 bytes, the name.
_WORD_DOCUMENT: Final = re.compile(rb"PK\x03\x04.{22}\x11\0.{2}word/document\.xml", re.DOTALL)
_WORD_PART: Final = re.compile(rb"PK\x03\x04.{26}word/", re.DOTALL)
_PACKAGE_START: Final = re.compile(
    rb"PK\x03\x04.{26}(?:\[Content_Types\]\.xml|_rels/\.rels|docProps/)", re.DOTALL
)

# Files of these types always begin with their signature. PostScript files may not.
_ALWAYS_SNIFFED: Final = frozenset(media_type for _, media_type in (*SIGNATURES, *_HEADERS)) - {
    "application/postscript"
}

# The types that a client may declare for a ZIP archive.
_ARCHIVES: Final = re.compile(
    r"application/(?:[\w.-]+\+zip|java-archive|vnd\.android\.package-archive"
    r"|vnd\.openxmlformats-officedocument\.[\w.-]+|vnd\.oasis\.opendocument\.[\w.-]+"
    r"|vnd\.ms-(?:word|excel|powerpoint)\.[\w.-]+\.macroenabled\.12)",
    re.ASCII,
)

# A declared type becomes a Content-Type header of the store, so it must be a valid one.
MEDIA_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;[\x20-\x7e]*)?", re.ASCII)


def sniff(first_bytes: bytes) -> str | None:
    """Return the media type that the first `SNIFFED_BYTES` of a file prove, or None."""
    for signature, media_type in SIGNATURES:
        if first_bytes.startswith(signature):
            return DOCX if media_type == ZIP and _is_word_package(first_bytes) else media_type
    for header, media_type in _HEADERS:
        if header.match(first_bytes):
            return media_type
    # After the signatures, because a PDF near the start of an archive does not make it a PDF.
    if PDF_HEADER in first_bytes[:_PDF_HEADER_WITHIN]:
        return PDF
    return HTML if _HTML.match(_as_ascii(first_bytes)) else None


def _is_word_package(first_bytes: bytes) -> bool:
    """Return whether a ZIP archive is a document of Word; False if its parts come in another order."""
    if _WORD_DOCUMENT.search(first_bytes):
        return True
    starts_as_package = _PACKAGE_START.match(first_bytes) is not None
    return starts_as_package and _WORD_PART.search(first_bytes) is not None


def _as_ascii(first_bytes: bytes) -> bytes:
    """Return the bytes of a text as ASCII, without a byte order mark."""
    if first_bytes.startswith(_UTF16_BOMS):
        return first_bytes.decode("utf-16", "ignore").encode("ascii", "replace")
    return first_bytes.removeprefix(_UTF8_BOM)


def of_object(sniffed: str | None, *, declared: str | None) -> str:
    """Return the media type of the stored object."""
    if declared and MEDIA_TYPE.fullmatch(declared) and is_plausible(declared, sniffed=sniffed):
        return declared
    return sniffed or UNKNOWN


def is_plausible(declared: str, *, sniffed: str | None) -> bool:
    """Return whether a file with this sniffed type may have the declared type.

    Many formats are ZIP archives, and HTML is text; the client knows which. If sniffing is
    inconclusive, every type is plausible that sniffing does not always find.
    """
    essence = essence_of(declared)
    match sniffed:
        case None:
            return essence not in _ALWAYS_SNIFFED
        case str() if sniffed == ZIP:
            return _ARCHIVES.fullmatch(essence) is not None
        case str() if sniffed == DOCX:
            return essence in WORD_TYPES
        case str() if sniffed == HTML:
            return essence.startswith("text/") or essence == XHTML
        case _:
            return False


def may_have_images(content_type: str) -> bool:
    """Return whether pages of a file may have images: not those of texts and of Word.

    A file of an unknown type may be read as a PDF, because of its name.
    """
    essence = essence_of(content_type)
    return not (essence.startswith("text/") or essence in TEXT_TYPES or essence in WORD_TYPES)


def essence_of(media_type: str) -> str:
    """Return a media type without parameters, in lower case, for comparison."""
    return media_type.partition(";")[0].strip().lower()
