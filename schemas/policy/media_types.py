"""The media type of a file, from its first bytes.

A short table in the code: of the available libraries, one reports plain text as a word processor's
document, the other is unmaintained, and both find PDF only at
offset 0.
"""

import re
from typing import Final

PDF: Final = "application/pdf"
ZIP: Final = "application/zip"
UNKNOWN: Final = "application/octet-stream"

# PDF Reference 1.7, appendix H, implementation note 13: the header may appear
# anywhere within the first 1024 bytes.
PDF_HEADER: Final = b"%PDF-"
SNIFFED_BYTES: Final = 1024

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

# Files of these types always begin with their signature. PostScript files may not.
_ALWAYS_SNIFFED: Final = frozenset(media_type for _, media_type in SIGNATURES) - {
    "application/postscript"
}

# The types that a client may declare for a ZIP archive.
_ARCHIVES: Final = re.compile(
    r"application/(?:[\w.-]+\+zip|java-archive|vnd\.android\.package-archive"
    r"|vnd\.openxmlformats-officedocument\.[\w.-]+|vnd\.oasis\.opendocument\.[\w.-]+)",
    re.ASCII,
)

# A declared type becomes a Content-Type header of the store, so it must be a valid one.
MEDIA_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;[\x20-\x7e]*)?", re.ASCII)


def sniff(first_bytes: bytes) -> str | None:
    """Return the media type that the first `SNIFFED_BYTES` of a file prove, or None."""
    for signature, media_type in SIGNATURES:
        if first_bytes.startswith(signature):
            return media_type
    # Last, because a PDF near the start of an archive does not make the archive a PDF.
    return PDF if PDF_HEADER in first_bytes[:SNIFFED_BYTES] else None


def of_object(sniffed: str | None, *, declared: str | None) -> str:
    """Return the media type of the stored object."""
    if declared and MEDIA_TYPE.fullmatch(declared) and is_plausible(declared, sniffed=sniffed):
        return declared
    return sniffed or UNKNOWN


def is_plausible(declared: str, *, sniffed: str | None) -> bool:
    """Return whether a file with this sniffed type may have the declared type.

    Many formats are ZIP archives; the client knows which. If sniffing is
    inconclusive, every type is plausible that sniffing does not always find.
    """
    essence = essence_of(declared)
    if sniffed == ZIP:
        return _ARCHIVES.fullmatch(essence) is not None
    return sniffed is None and essence not in _ALWAYS_SNIFFED


def essence_of(media_type: str) -> str:
    """Return a media type without parameters, in lower case, for comparison."""
    return media_type.partition(";")[0].strip().lower()


def is_pdf_candidate(sniffed: str | None, *, declared: str | None, filename: str) -> bool:
    """Return whether ingest reads the file as a PDF.

    A file that is declared or named as a PDF counts, so that a damaged one is
    reported as corrupt and not ignored.
    """
    return PDF in (sniffed, essence_of(declared or "")) or filename.lower().endswith(".pdf")
