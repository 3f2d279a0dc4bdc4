import io
import zipfile

import pytest

from schemas.policy import media_types

PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
DOCM = "application/vnd.ms-word.document.macroEnabled.12"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def zip_of(*names: str) -> bytes:
    """Return the first bytes of an archive with files of these names."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 300)
    return content.getvalue()[: media_types.SNIFFED_BYTES]


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
        (zip_of("[Content_Types].xml", "_rels/.rels", "word/document.xml"), DOCX),
        (zip_of("word/document.xml", "[Content_Types].xml"), DOCX),
        (zip_of("_rels/.rels", "docProps/core.xml", "word/styles.xml"), DOCX),
        (zip_of("[Content_Types].xml", "xl/workbook.xml"), "application/zip"),
        (zip_of("letters/word/document.xml"), "application/zip"),
        (zip_of("notes.txt", "word/list.txt"), "application/zip"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", None),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "image/bmp"),
        (b"BMI is the weight divided by the square", None),
        (b"<!DOCTYPE html>\n<title>x</title>", "text/html"),
        (b"\xef\xbb\xbf\r\n <HTML lang=de>", "text/html"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<html xmlns="x">', "text/html"),
        ("<!doctype html><p>".encode("utf-16"), "text/html"),
        ("<html>".encode("utf-16-be"), None),
        (b"<p align=center>A heading of Markdown</p>", None),
        (b"<htmlx>", None),
        (b'<?xml version="1.0"?><svg>', None),
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
        (DOCX, None, DOCX),
        (DOCX, DOCM, DOCM),
        (DOCX, "application/zip", DOCX),
        (DOCX, XLSX, DOCX),
        ("application/zip", DOCM, DOCM),
        (None, DOCX, DOCX),
        ("text/html", None, "text/html"),
        ("text/html", "text/plain", "text/plain"),
        ("text/html", "application/xhtml+xml", "application/xhtml+xml"),
        ("text/html", "application/vnd.ms-excel", "text/html"),
        (None, "image/webp", "application/octet-stream"),
    ],
)
def test_a_declared_type_is_stored_only_if_it_is_plausible(
    sniffed: str | None, declared: str | None, stored_as: str
) -> None:
    assert media_types.of_object(sniffed, declared=declared) == stored_as
