import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, PngImagePlugin, UnidentifiedImageError

from pipeline.ingest.errors import DocumentLimitExceeded
from pipeline.ingest.extractors.extractor import PageImage
from pipeline.ingest.extractors.image import ImageExtractor
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome
from tests.factories.documents import Extracted, extract
from tests.factories.reading_limits import READING_LIMITS

EXTRACTOR = ImageExtractor()
LEFT_DARK = (400, 200)
ORIENTATION, TURNED_RIGHT = 0x0112, 6


def picture(mode: str = "RGB", size: tuple[int, int] = LEFT_DARK) -> Image.Image:
    """Return a white picture whose left quarter is black."""
    image = Image.new("L", size, 255)
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 4 - 1, size[1]), fill=0)
    return image.convert(mode)


def saved(tmp_path: Path, image: Image.Image, kind: str, **options: object) -> Path:
    file = tmp_path / f"picture.{kind.lower()}"
    image.save(file, kind, **options)
    return file


def read(file: Path, *, limits: ReadingLimits = READING_LIMITS) -> Extracted:
    return extract(EXTRACTOR, file, limits=limits)


def image_of(
    file: Path,
    *,
    number: int = 1,
    dpi: float = 300,
    pixels_max: int = 10_000_000,
    grey: bool = True,
) -> PageImage:
    with EXTRACTOR.open(file, limits=READING_LIMITS, password=None) as document:
        image = document.image(number, dpi=dpi, pixels_max=pixels_max, grey=grey)
    assert image is not None
    assert len(image.pixels) == image.width * image.height * image.channels
    return image


def shade(image: PageImage, *, across: float, down: float) -> int:
    """Return the first channel of the pixel at these shares of width and height."""
    row, column = int(image.height * down), int(image.width * across)
    return image.pixels[(row * image.width + column) * image.channels]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_picture_is_a_page_that_needs_ocr(tmp_path: Path, kind: str) -> None:
    found = read(saved(tmp_path, picture(), kind))

    (page,) = found.pages
    assert (page.outcome, page.text) == (Outcome.NEEDS_OCR, "")
    assert page.engine == "pillow"


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "1"),
        ("PNG", "L"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("PNG", "LA"),
        ("PNG", "I;16"),
        ("TIFF", "CMYK"),
        ("TIFF", "1"),
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("GIF", "P"),
        ("WEBP", "RGB"),
    ],
)
def test_every_mode_becomes_pixels(tmp_path: Path, kind: str, mode: str, *, grey: bool) -> None:
    image = (
        picture("L").convert("I").point(lambda value: value * 257).convert("I;16")
        if mode == "I;16"
        else picture(mode)
    )

    pixels = image_of(saved(tmp_path, image, kind), grey=grey)

    assert (pixels.width, pixels.height, pixels.channels) == (400, 200, 1 if grey else 3)
    assert shade(pixels, across=0.1, down=0.5) < 20
    assert shade(pixels, across=0.9, down=0.5) > 235


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((0, 0, 50, 100), fill=(0, 0, 0, 255))

    pixels = image_of(saved(tmp_path, image, "PNG"))

    assert shade(pixels, across=0.1, down=0.5) == 0
    assert shade(pixels, across=0.9, down=0.5) == 255


def test_the_resolution_gives_the_size_of_the_page(tmp_path: Path) -> None:
    (page,) = read(saved(tmp_path, picture(), "PNG", dpi=(200, 200))).pages

    assert page.width_points == pytest.approx(400 / 200 * 72, abs=0.1)
    assert page.height_points == pytest.approx(200 / 200 * 72, abs=0.1)


@pytest.mark.parametrize("dpi", [None, (1, 1), (40_000, 40_000)])
def test_a_picture_without_a_possible_resolution_is_taken_for_a4(
    tmp_path: Path, dpi: tuple[int, int] | None
) -> None:
    (page,) = read(
        saved(tmp_path, picture(size=(1_654, 2_339)), "PNG", **({"dpi": dpi} if dpi else {}))
    ).pages

    assert page.width_points == pytest.approx(595, abs=3)
    assert page.height_points == pytest.approx(842, abs=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_turned_picture_is_shown_upright(tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    file = saved(tmp_path, picture(), kind, exif=exif)

    (page,) = read(file).pages
    pixels = image_of(file)

    assert page.width_points is not None
    assert page.height_points is not None
    assert page.width_points < page.height_points
    assert (pixels.width, pixels.height) == (200, 400)
    assert shade(pixels, across=0.5, down=0.1) < 20
    assert shade(pixels, across=0.5, down=0.9) > 235


def test_every_page_of_a_tiff_is_a_page(tmp_path: Path) -> None:
    pages = [picture(size=(400, 100 * number)) for number in (1, 2, 3)]
    file = saved(tmp_path, pages[0], "TIFF", save_all=True, append_images=pages[1:])

    assert read(file).page_count == 3
    assert [image_of(file, number=number).height for number in (3, 1, 2)] == [300, 100, 200]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_only_the_first_picture_of_an_animation_is_read(tmp_path: Path, kind: str) -> None:
    others = [Image.new("RGB", LEFT_DARK, "red"), Image.new("RGB", LEFT_DARK, "blue")]
    file = saved(tmp_path, picture(), kind, save_all=True, append_images=others)

    assert read(file).page_count == 1
    assert shade(image_of(file), across=0.1, down=0.5) < 20


def test_a_page_of_one_colour_has_no_text(tmp_path: Path) -> None:
    (page,) = read(saved(tmp_path, Image.new("RGB", (800, 600), "white"), "PNG")).pages

    assert page.outcome is Outcome.NO_TEXT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_lower_resolution_makes_a_smaller_picture(tmp_path: Path, kind: str) -> None:
    file = saved(tmp_path, picture(size=(1_200, 600)), kind, dpi=(600, 600))

    pixels = image_of(file, dpi=150)

    assert (pixels.width, pixels.height) == (300, 150)
    assert pixels.dpi == pytest.approx(150, abs=1)


def test_a_picture_is_never_enlarged(tmp_path: Path) -> None:
    file = saved(tmp_path, picture(), "PNG", dpi=(100, 100))

    assert image_of(file, dpi=300).width == 400


def test_a_picture_has_at_most_the_pixels_asked_for(tmp_path: Path) -> None:
    pixels = image_of(saved(tmp_path, picture(size=(1_200, 600)), "JPEG"), pixels_max=20_000)

    assert pixels.width * pixels.height <= 20_000
    assert pixels.width == pytest.approx(200, abs=1)


def test_the_first_page_can_be_decoded_again_at_full_size(tmp_path: Path) -> None:
    file = saved(tmp_path, picture(size=(2_400, 1_200)), "JPEG", dpi=(300, 300))
    with EXTRACTOR.open(file, limits=READING_LIMITS, password=None) as document:
        document.page(1)
        document.image(1, dpi=20, pixels_max=10_000_000, grey=True)
        full = document.image(1, dpi=300, pixels_max=10_000_000, grey=True)

    assert full is not None
    assert full.width == 2_400


def test_texts_of_a_png_are_metadata(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("Title", "Größe")
    texts.add_text("Author", "Eva")

    metadata = read(saved(tmp_path, picture(), "PNG", pnginfo=texts)).structure.metadata

    assert (metadata.title, metadata.author) == ("Größe", "Eva")


def test_the_camera_and_its_time_are_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Maker", "Model 1", "2024:03:01 08:30:00"

    metadata = read(saved(tmp_path, picture(), "JPEG", exif=exif)).structure.metadata

    assert metadata.extra == {"camera": "Maker Model 1"}
    assert metadata.modified == datetime(2024, 3, 1, 8, 30)  # noqa: DTZ001  # EXIF has no zone


def with_size(content: bytes, width: int, height: int) -> bytes:
    """Return a PNG whose header states another size."""
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    content = io.BytesIO()
    picture("L").save(content, "PNG")
    file = tmp_path / "bomb.png"
    file.write_bytes(with_size(content.getvalue(), 60_000, 60_000))

    with pytest.raises(DocumentLimitExceeded, match="3600000000 pixels"):
        read(file)


def test_a_thumbnail_of_a_picture_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, picture(), "BMP")
    limits = replace(READING_LIMITS, image_pixels=1_000)

    with (
        EXTRACTOR.open(file, limits=limits, password=None) as document,
        pytest.raises(DocumentLimitExceeded),
    ):
        document.image(1, dpi=20, pixels_max=100, grey=True)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_picture_is_damaged(tmp_path: Path, kind: str, kept: float) -> None:
    noise = Image.effect_noise((300, 300), 80).convert("RGB")
    file = saved(tmp_path, noise, kind)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])

    with pytest.raises((OSError, SyntaxError, ValueError)):
        read(file)


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"no picture", lambda content: content[:20], lambda content: b"x" + content],
    ids=["other content", "a part of the header", "shifted"],
)
def test_a_file_that_is_no_picture_is_damaged(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    file = saved(tmp_path, picture(), "PNG")
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises((UnidentifiedImageError, OSError)):
        read(file)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_page_of_a_tiff_does_not_lose_the_pages_before_it(tmp_path: Path) -> None:
    pages = [picture(), picture(), picture()]
    file = saved(tmp_path, pages[0], "TIFF", save_all=True, append_images=pages[1:])
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])

    with EXTRACTOR.open(file, limits=READING_LIMITS, password=None) as document:
        assert document.page(1).outcome is Outcome.NEEDS_OCR
        with pytest.raises((OSError, TypeError, ValueError)):
            document.page(3)
