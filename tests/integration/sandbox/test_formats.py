"""Documents that are no PDFs, in a real reader."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from PIL import Image

from pipeline.ingest.errors import DocumentError
from pipeline.ingest.extractors import registry
from pipeline.ingest.frames import PageReading
from schemas.outcomes import Outcome
from tests.factories.docx import paragraph, write_docx
from tests.integration.sandbox.conftest import Bench, NewChildren, Reading

GERMAN = "Die Prüfung der Unterlagen ergab größere Beträge. Bitte schreiben Sie an amt@example.de."


def docx(body: str) -> bytes:
    with TemporaryDirectory() as directory:
        return write_docx(Path(directory) / "a.docx", body).read_bytes()


def docx_of_noise() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("word/document.xml", Random(1).randbytes(100_000))
    return content.getvalue()


def png(*, width: int, height: int) -> bytes:
    """Return a PNG whose header states this size and that has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def picture() -> bytes:
    content = io.BytesIO()
    Image.effect_noise((200, 100), 80).save(content, "JPEG")
    return content.getvalue()


def read(
    reader: Bench, content: bytes, *, filename: str, timeout: timedelta | None = None
) -> Reading:
    media_type = registry.media_type_of("application/octet-stream", filename=filename)
    limits = reader.limits() if timeout is None else reader.limits(timeout=timeout)
    reading = reader.reading(content, media_type=media_type, limits=limits)
    pages = [each for each in reading.run() if isinstance(each, PageReading)]
    return Reading(pages, reading.ending)


@pytest.fixture(autouse=True)
def a_good_file_is_still_read(reader: Bench, children: NewChildren) -> Iterator[None]:
    yield
    (page,) = read(reader, b"Still here.", filename="a.txt").pages
    assert page.text == "Still here."
    reader.reader.close()
    assert children() == []


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("a.txt", GERMAN.encode("cp1252")),
        ("a.csv", GERMAN.encode("utf-16")),
        ("a.html", f"<p>{GERMAN}".encode()),
        ("a.docx", docx(paragraph(GERMAN))),
    ],
)
def test_the_text_has_sentences_entities_and_a_language(
    reader: Bench, filename: str, content: bytes
) -> None:
    (page,), ending = read(reader, content, filename=filename)

    assert (page.text, page.outcome) == (GERMAN, Outcome.COMPLETE)
    assert len(page.sentences) == 2
    assert [page.text[each.start : each.end] for each in page.entities] == ["amt@example.de"]
    assert (page.language, ending.read.language) == ("de", "de")


def test_a_picture_needs_ocr(reader: Bench) -> None:
    (page,), ending = read(reader, picture(), filename="scan.jpg")

    assert (page.text, page.outcome) == ("", Outcome.NEEDS_OCR)
    assert page.reason == "The page is a picture; its text has to be recognised."
    assert ending.page_count == 1


HOSTILE: dict[str, tuple[str, Callable[[], bytes], Outcome]] = {
    "binary text": ("a.txt", partial(Random(1).randbytes, 5_000_000), Outcome.CORRUPT),
    "zip bomb": ("a.docx", lambda: docx(paragraph("x") * 2_000_000), Outcome.LIMIT_PAGE_CONTENT),
    "deep XML": ("a.docx", lambda: docx("<w:sdt>" * 100_000), Outcome.CORRUPT),
    "noise in a DOCX": ("a.docx", docx_of_noise, Outcome.CORRUPT),
    "truncated DOCX": ("a.docx", lambda: docx(paragraph("x"))[:-30], Outcome.CORRUPT),
    "too many elements": ("a.html", lambda: b"<i>" * 2_000_000, Outcome.LIMIT_PAGE_CONTENT),
    "too many pixels": ("a.png", partial(png, width=60_000, height=60_000), Outcome.LIMIT_PAGE_CONTENT),
    "picture without pixels": ("a.png", partial(png, width=6_000, height=6_000), Outcome.CORRUPT),
    "picture larger than the memory": ("a.png", partial(png, width=9_900, height=9_900), Outcome.OUT_OF_MEMORY),
    "truncated picture": ("a.jpg", lambda: picture()[:-500], Outcome.CORRUPT),
}  # fmt: skip


@pytest.mark.parametrize(("filename", "make", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_ends_with_its_outcome(
    reader: Bench, filename: str, make: Callable[[], bytes], expected: Outcome
) -> None:
    try:
        (page,), _ = read(reader, make(), filename=filename)
    except DocumentError as error:
        found = error.outcome
    else:
        found = page.outcome
    assert found is expected


def test_markup_that_takes_too_long_ends_in_time(reader: Bench) -> None:
    with pytest.raises(DocumentError) as raised:
        read(reader, b"<p>a<b>b</b></p>" * 200_000, filename="a.html", timeout=timedelta(seconds=1))

    assert raised.value.outcome is Outcome.TIMEOUT_DOCUMENT
