from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ingest import text
from pipeline.ingest.extractors.pdf.pdfium import PdfiumDocument
from tests.factories.drawn_pdfs import Shown, pdf
from tests.unit.pipeline.ingest.extractors.pdf.reading import read

ANYWHERE = st.builds(
    Shown,
    text=st.text("aAb.-1 \u05d0\u0627\u4e00\ufb01\u00a0\u00a8", min_size=1, max_size=12),
    x=st.integers(-50, 650),
    y=st.integers(-50, 900),
    size=st.sampled_from([1, 9, 12, 40]),
    spacing=st.sampled_from([-3, 0, 5]),
)


@contextmanager
def opened(directory: Path, content: bytes) -> Iterator[PdfiumDocument]:
    file = directory / "drawn.pdf"
    file.write_bytes(content)
    document = PdfiumDocument(file)
    try:
        yield document
    finally:
        document.close()


@given(st.lists(ANYWHERE, max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_page_has_clean_text_whose_lines_follow_each_other(
    tmp_path: Path, shown: list[Shown]
) -> None:
    content = read(tmp_path, *shown)
    assert text.is_clean(content.text)
    assert content.text == content.text.strip()
    end = 0
    for line in content.lines:
        assert end <= line.start < line.end <= len(content.text)
        assert content.text[end : line.start].strip() == ""
        assert (
            content.text[line.start : line.end].strip("\n") == content.text[line.start : line.end]
        )
        assert line.left <= line.right
        assert line.top <= line.bottom
        end = line.end


@pytest.mark.parametrize(("grey", "channels"), [(True, 1), (False, 3)])
def test_the_image_of_a_page_has_a_byte_for_each_channel_of_a_pixel(
    tmp_path: Path, *, grey: bool, channels: int
) -> None:
    with opened(tmp_path, pdf([Shown(text="Seen")])) as document:
        image = document.image(1, dpi=100, pixels_max=10_000_000, grey=grey)
    assert (image.width, image.height) == (827, 1170)
    assert image.channels == channels
    assert len(image.pixels) == image.width * image.height * channels
    assert image.dpi == 100
    assert image.pixels[0] == 255  # the paper
    assert min(image.pixels) < 50  # the text


def test_the_image_of_a_large_page_has_a_lower_resolution(tmp_path: Path) -> None:
    content = pdf([Shown(text="Huge")], width=14_400, height=14_400)
    with opened(tmp_path, content) as document:
        image = document.image(1, dpi=300, pixels_max=1_000_000, grey=True)
    assert 900_000 < image.width * image.height <= 1_000_000
    assert image.dpi == pytest.approx(5, abs=0.1)


def test_a_turned_page_is_turned_in_its_image(tmp_path: Path) -> None:
    content = pdf([Shown(text="Turned")], entries=b"/Rotate 90")
    with opened(tmp_path, content) as document:
        image = document.image(1, dpi=72, pixels_max=10_000_000, grey=True)
    assert (image.width, image.height) == (842, 595)


def test_the_characters_of_a_page_are_cut_at_a_limit(tmp_path: Path) -> None:
    with (
        opened(tmp_path, pdf([Shown(text="Twelve signs")])) as document,
        document.page(1) as page,
    ):
        assert page.characters(longest=6) == "Twelve"
        assert page.character_count == 12
