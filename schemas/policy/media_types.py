"""What a file is, by its first bytes.

A short list of our own: of the libraries at hand one takes plain text for a
word processor's document, the other is no longer kept, and both know PDF only
at offset 0.
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
    (b"PK\x05\x06", ZIP),  # with nothing in it
    (b"PK\x07\x08", ZIP),  # in several volumes
    (b"\x1f\x8b", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
)

# Always known by their first bytes, so not believed without them; PostScript may begin otherwise.
_SHOWN: Final = frozenset(media_type for _, media_type in SIGNATURES) - {"application/postscript"}

# What a ZIP archive may claim to be; a client that declares any other type of one is not believed.
_ARCHIVES: Final = re.compile(
    r"application/(?:[\w.-]+\+zip|java-archive|vnd\.android\.package-archive"
    r"|vnd\.openxmlformats-officedocument\.[\w.-]+|vnd\.oasis\.opendocument\.[\w.-]+)",
    re.ASCII,
)

# What a Content-Type header can carry; a client may have declared anything.
MEDIA_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;[\x20-\x7e]*)?", re.ASCII)


def sniff(first_bytes: bytes) -> str | None:
    """Return the media type that the first `SNIFFED_BYTES` of a file show, or None."""
    for signature, media_type in SIGNATURES:
        if first_bytes.startswith(signature):
            return media_type
    # Last, because a PDF near the start of an archive does not make the archive a PDF.
    return PDF if PDF_HEADER in first_bytes[:SNIFFED_BYTES] else None


def of_object(sniffed: str | None, *, declared: str | None) -> str:
    """Return the media type to store the object with."""
    if declared and MEDIA_TYPE.fullmatch(declared) and is_believable(declared, sniffed=sniffed):
        return declared
    return sniffed or UNKNOWN


def is_believable(declared: str, *, sniffed: str | None) -> bool:
    """Whether a file whose first bytes show `sniffed` may be what a client declares.

    Many formats are ZIP archives inside; the client knows which. Of what nothing is
    known it may be anything but a type that would have been recognised.
    """
    essence = essence_of(declared)
    if sniffed == ZIP:
        return _ARCHIVES.fullmatch(essence) is not None
    return sniffed is None and essence not in _SHOWN


def essence_of(media_type: str) -> str:
    """Return a media type without its parameters, as it is compared."""
    return media_type.partition(";")[0].strip().lower()


def is_pdf_candidate(sniffed: str | None, *, declared: str | None, filename: str) -> bool:
    """Whether the file is to be read as a PDF.

    A file that only claims to be one is included: it has to be reported as
    corrupt, not passed over.
    """
    return PDF in (sniffed, essence_of(declared or "")) or filename.lower().endswith(".pdf")
