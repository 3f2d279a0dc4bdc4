import pytest

from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.extractor import Extractor

UNKNOWN = "application/octet-stream"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@pytest.mark.parametrize(
    ("content_type", "declared", "filename"),
    [
        ("application/pdf", None, "scan"),
        ("application/pdf", "image/png", "scan.png"),
        (UNKNOWN, "application/pdf", "scan"),
        (UNKNOWN, "Application/PDF; version=1.7", "scan"),
        (UNKNOWN, None, "SCAN.PDF"),
        ("image/png", None, "scan.pdf"),
        ("application/gzip", None, "scan.pdf"),
    ],
)
def test_a_file_with_the_content_the_type_or_the_name_of_a_pdf_is_read(
    content_type: str, declared: str | None, filename: str
) -> None:
    assert registry.will_be_read(content_type, declared=declared, filename=filename)


@pytest.mark.parametrize(
    ("content_type", "declared", "filename"),
    [
        (UNKNOWN, None, "pdf"),
        (UNKNOWN, None, "data.bin"),
        (UNKNOWN, UNKNOWN, "data"),
        ("application/zip", None, "archive.zip"),
        ("application/gzip", "text/plain", "notes.txt"),
        ("video/mp4", "video/mp4", "film.mp4"),
        ("text/x-python", "text/x-python", "notes.txt"),
    ],
)
def test_other_files_are_not_read(content_type: str, declared: str | None, filename: str) -> None:
    assert not registry.will_be_read(content_type, declared=declared, filename=filename)


@pytest.mark.parametrize(
    ("content_type", "filename", "media_type"),
    [
        ("application/pdf", "a.docx", "application/pdf"),
        (DOCX, "a", DOCX),
        ("application/vnd.ms-word.document.macroEnabled.12", "a.docm", DOCX),
        ("application/zip", "a.docx", DOCX),
        (UNKNOWN, "encrypted.DOCX", DOCX),
        ("image/jpeg", "a.pdf", "image/png"),
        (UNKNOWN, "broken.tif", "image/png"),
        ("text/html; charset=utf-8", "a.txt", "text/html"),
        ("application/xhtml+xml", "a", "text/html"),
        ("text/plain", "page.html", "text/plain"),
        ("text/csv; header=present", "table", "text/plain"),
        ("application/json", "a", "text/plain"),
        (UNKNOWN, "server.log", "text/plain"),
        (UNKNOWN, "README.md", "text/plain"),
        (UNKNOWN, "index.htm", "text/html"),
    ],
)
def test_the_content_decides_before_the_name(
    content_type: str, filename: str, media_type: str
) -> None:
    assert registry.will_be_read(content_type, declared=None, filename=filename)
    assert registry.media_type_of(content_type, filename=filename) == media_type


def test_a_file_that_only_its_declared_type_makes_readable_is_read_as_a_pdf() -> None:
    assert registry.media_type_of(UNKNOWN, filename="scan") == "application/pdf"


def test_media_types_and_suffixes_are_registered_once() -> None:
    media_types = [each for kind in registry.FORMATS for each in kind.media_types]
    suffixes = [each for kind in registry.FORMATS for each in kind.suffixes]

    assert len(media_types) == len(set(media_types))
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize("kind", registry.FORMATS, ids=lambda kind: kind.media_types[0])
def test_every_format_has_an_extractor(kind: registry.Format) -> None:
    for media_type in kind.media_types:
        assert isinstance(registry.extractor_for(media_type), Extractor)
