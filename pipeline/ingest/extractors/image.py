"""Images: every page is a picture whose text only OCR can read."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final, cast

import PIL
from PIL import (  # noqa: F401  # the plugins: else every child imports those of its image
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.Image import Resampling

from pipeline.ingest import text
from pipeline.ingest.errors import DocumentLimitExceeded
from pipeline.ingest.extractors.extractor import (
    DocumentMetadata,
    ExtractedPage,
    Extractor,
    OpenDocument,
    PageImage,
    Structure,
)
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome

_FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_METADATA_MAX: Final = 1_000

_POINTS_PER_INCH: Final = 72
# A resolution outside of these is a mistake: many programs write 1, and some the size in pixels.
_DPI_MIN, _DPI_MAX = 50, 2_400
# An image without a resolution is taken for a page of A4, whose long side has 11.7 inches.
_LONG_SIDE_INCHES: Final = 11.7
_ASSUMED_DPI_MIN, _ASSUMED_DPI_MAX = 72, 600

# EXIF orientations that turn the image by 90 degrees (JEITA CP-3451, section 4.6.4).
_TURNED: Final = frozenset({5, 6, 7, 8})
# A page of a single colour; on a scanned page the grains of the paper differ more.
_BLANK_DIFFERENCE: Final = 8
_PREVIEW_PIXELS: Final = 1_000_000


class ImageExtractor(Extractor):
    """Opens images; only TIFF has several pages."""

    name: ClassVar[str] = "image"

    @contextmanager
    def open(
        self,
        file: Path,
        *,
        limits: ReadingLimits,
        password: str | None,  # noqa: ARG002  # these formats have no encryption
    ) -> Iterator[OpenDocument]:
        # `_check` compares the pixels of each page with the limit of the reading instead.
        Image.MAX_IMAGE_PIXELS = None
        with _opened(file) as image:
            yield ImageDocument(file, image, limits=limits)


class ImageDocument(OpenDocument):
    """An open image."""

    def __init__(self, file: Path, image: Image.Image, *, limits: ReadingLimits) -> None:
        self._file = file
        self._image = image
        self._limits = limits
        # Animations and previews are no pages.
        self._has_pages = image.format == "TIFF"
        self.page_count = _page_count(image, limit=limits.pages) if self._has_pages else 1

    def page(self, number: int) -> ExtractedPage:
        """Decode the page, so that damage is found now and not by OCR."""
        with self._frame(number) as image:
            dpi, size = _dpi(image), _size(image)
            decoded = self._decoded(image, _at_most(_PREVIEW_PIXELS, size))
        is_blank = _is_blank(decoded)
        return ExtractedPage(
            number=number,
            outcome=Outcome.NO_TEXT if is_blank else Outcome.NEEDS_OCR,
            reason="" if is_blank else "The page is a picture; its text has to be recognised.",
            width_points=size[0] * _POINTS_PER_INCH / dpi,
            height_points=size[1] * _POINTS_PER_INCH / dpi,
            engine="pillow",
            engine_version=PIL.__version__,
        )

    def structure(self) -> Structure:
        with self._frame(1) as image:
            exif = image.getexif()
            texts = {
                str(key).lower(): value
                for key, value in image.info.items()
                if isinstance(value, str)
            }
            taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        camera = _line(f"{exif.get(ExifTags.Base.Make, '')} {exif.get(ExifTags.Base.Model, '')}")
        return Structure(
            metadata=DocumentMetadata(
                title=_line(texts.get("title") or exif.get(ExifTags.Base.ImageDescription)),
                author=_line(texts.get("author") or exif.get(ExifTags.Base.Artist)),
                subject=_line(texts.get("description")),
                creator=_line(texts.get("software") or exif.get(ExifTags.Base.Software)),
                created=_date(taken),
                modified=_date(exif.get(ExifTags.Base.DateTime)),
                extra={"camera": camera} if camera else {},
            )
        )

    def image(self, number: int, *, dpi: float, pixels_max: int, grey: bool) -> PageImage | None:
        with self._frame(number) as image:
            own_dpi, (width, height) = _dpi(image), _size(image)
            # Never larger: that would add pixels and no detail.
            scale = min(1.0, dpi / own_dpi, (pixels_max / (width * height)) ** 0.5)
            size = max(1, int(width * scale)), max(1, int(height * scale))
            decoded = self._decoded(image, size).convert("L" if grey else "RGB")
        return PageImage(
            width=decoded.width,
            height=decoded.height,
            channels=1 if grey else 3,
            pixels=decoded.tobytes(),
            dpi=own_dpi * decoded.width / width,
        )

    @contextmanager
    def _frame(self, number: int) -> Iterator[Image.Image]:
        """Open a page; a picture that was decoded at a fraction of its size stays so.

        Raises:
            DocumentLimitExceeded: it has too many pixels. Even its EXIF data cannot be read: some
                formats have them after the pixels.
        """
        if self._has_pages:
            self._image.seek(number - 1)
            self._check(self._image)
            yield self._image
            return
        with _opened(self._file) as image:
            self._check(image)
            yield image

    def _check(self, image: Image.Image) -> None:
        pixels = image.width * image.height
        if pixels > self._limits.image_pixels:
            raise DocumentLimitExceeded(
                f"The picture has {pixels} pixels, of at most {self._limits.image_pixels}."
            )

    @staticmethod
    def _decoded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Return an image as displayed, at most this large, as grey or RGB.

        Raises:
            OSError, ValueError, SyntaxError: it is damaged.
        """
        # A JPEG is decoded at a fraction of its size at once. The smaller side serves for both: it
        # is not known here whether the picture is turned.
        image.draft("", (min(size), min(size)))
        ImageOps.exif_transpose(image, in_place=True)
        plain = _on_white(image)
        if plain.width > size[0] or plain.height > size[1]:
            plain = plain.resize(size, Resampling.BOX, reducing_gap=2.0)
        return plain


def _opened(file: Path) -> Image.Image:
    return Image.open(file, formats=_FORMATS)


def _page_count(image: Image.Image, *, limit: int) -> int:
    """Return the number of pages, at most one more than the limit: a file may have millions."""
    count = 0
    while count <= limit:
        try:
            image.seek(count)
        except EOFError:
            return count
        except Exception:  # noqa: BLE001  # damage; the page reports it when it is read
            return count + 1
        count += 1
    return count


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image as grey or RGB; what is transparent becomes white, as on paper."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(coloured, mask=coloured.getchannel("A"))
        return paper
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


def _is_blank(image: Image.Image) -> bool:
    darkest, lightest = cast("tuple[int, int]", image.convert("L").getextrema())
    return lightest - darkest < _BLANK_DIFFERENCE


def _size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as displayed."""
    is_turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    # The size of a TIFF is that of its turned pixels before they are decoded.
    is_turned = is_turned and image.format != "TIFF"
    return (image.height, image.width) if is_turned else (image.width, image.height)


def _at_most(pixels: int, size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, (pixels / (size[0] * size[1])) ** 0.5)
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _dpi(image: Image.Image) -> float:
    """Return the resolution that the file names if it is a possible one, else an estimate."""
    named = image.info.get("dpi")
    if isinstance(named, tuple) and _DPI_MIN <= named[0] <= _DPI_MAX:
        return float(named[0])
    estimated = max(image.size) / _LONG_SIDE_INCHES
    return min(max(estimated, _ASSUMED_DPI_MIN), _ASSUMED_DPI_MAX)


def _line(value: object) -> str | None:
    return text.clean_line(value, longest=_METADATA_MAX) if isinstance(value, str) else None


def _date(value: object) -> datetime | None:
    """Return a time of EXIF, which has no time zone."""
    try:
        return datetime.strptime(str(value), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007
    except ValueError:
        return None
