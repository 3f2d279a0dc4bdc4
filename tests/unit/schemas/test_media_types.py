import pytest

from schemas.policy import media_types

PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("first_bytes", "expected"),
    [
        (PDF, "application/pdf"),
        (b"\xef\xbb\xbf" + PDF, "application/pdf"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + PDF, "application/pdf"),
        (b"\x00" * 1019 + b"%PDF-", "application/pdf"),
        (b"\x00" * 1020 + b"%PDF-", None),
        (b"PK\x03\x04" + PDF, "application/zip"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00+\x00\x08", "image/tiff"),
        (b"PK\x05\x06", "application/zip"),
        (b"\x1f\x8b\x08", "application/gzip"),
        (b"plain text that talks about PDF", None),
        (b"", None),
    ],
)
def test_the_first_bytes_prove_the_media_type(first_bytes: bytes, expected: str | None) -> None:
    assert media_types.sniff(first_bytes) == expected


@pytest.mark.parametrize(
    ("sniffed", "declared", "stored_as"),
    [
        ("application/pdf", None, "application/pdf"),
        ("application/pdf", "text/plain", "application/pdf"),
        ("application/zip", DOCX, DOCX),
        ("application/zip", None, "application/zip"),
        ("application/zip", "text/html", "application/zip"),
        (None, "application/pdf", "application/octet-stream"),
        (None, "IMAGE/PNG; name=x", "application/octet-stream"),
        (None, "text/csv; charset=utf-8", "text/csv; charset=utf-8"),
        (None, None, "application/octet-stream"),
        (None, "", "application/octet-stream"),
        (None, "no media type", "application/octet-stream"),
        (None, "text/plain\r\nX-Injected: 1", "application/octet-stream"),
        (None, "text/pläin", "application/octet-stream"),
    ],
)
def test_a_declared_type_is_stored_only_if_it_is_plausible(
    sniffed: str | None, declared: str | None, stored_as: str
) -> None:
    assert media_types.of_object(sniffed, declared=declared) == stored_as


@pytest.mark.parametrize(
    ("sniffed", "declared", "filename", "is_candidate"),
    [
        ("application/pdf", None, "scan", True),
        ("application/pdf", "image/png", "scan.png", True),
        (None, "application/pdf", "scan", True),
        (None, "Application/PDF; version=1.7", "scan", True),
        (None, None, "SCAN.PDF", True),
        ("image/png", None, "scan.pdf", True),
        ("image/png", "image/png", "scan.png", False),
        (None, None, "pdf", False),
        (None, "text/plain", "notes.pdf.txt", False),
    ],
)
def test_a_file_with_the_content_the_type_or_the_name_of_a_pdf_is_read(
    sniffed: str | None, declared: str | None, filename: str, *, is_candidate: bool
) -> None:
    assert (
        media_types.is_pdf_candidate(sniffed, declared=declared, filename=filename) is is_candidate
    )
