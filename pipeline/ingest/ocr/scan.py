"""The picture of a page: turned, straightened, and where its pixels are on the page."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pipeline.ingest.extractors.extractor import PageImage

POINTS_PER_INCH: Final = 72

SKEW_MAX: Final = 7.0
"""Degrees; a scanner that draws its paper in askew stays within 5."""

# Engines read lines that are askew by less as well as straight ones.
_SKEW_MIN: Final = 0.7
_STEP: Final = 0.5
_FINE_STEP: Final = 0.1
# A page without lines of text has no angle that is much better than the others.
_CLEARLY_BETTER: Final = 1.3
# Lines of small print are still apart at this resolution, and noise is averaged.
_DPI_OF_MEASUREMENT: Final = 75
_INK_MIN: Final = 40  # of 255, darker than the paper
_WHITE: Final = 255
_DARK: Final = 128
# Between the tone of the paper and its darker quarter lie 0.67 standard deviations of its noise.
_NOISE_QUARTERS: Final = 5
_NOISE_MIN: Final = 12
_TURNS: Final = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}

Affine = npt.NDArray[np.float64]
"""A matrix of three rows that maps a pixel to a place on the page."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A grey picture of a page.

    Attributes:
        picture: of mode `L`; dark text on white paper.
        dpi: its resolution.
        to_page: maps a pixel to 1/72 inch from the left and upper edges of the page as displayed.
    """

    picture: Image.Image
    dpi: float
    to_page: Affine

    @classmethod
    def of(cls, image: PageImage) -> "Scan":
        """Return the scan of a page, with its paper made white."""
        size = (image.width, image.height)
        if image.channels == 1:
            picture = Image.frombytes("L", size, image.pixels)
        else:
            picture = Image.frombytes("RGB", size, image.pixels).convert("L")
        points = POINTS_PER_INCH / image.dpi
        return cls(
            picture=_on_white(picture), dpi=image.dpi, to_page=np.diag([points, points, 1.0])
        )

    def turned(self, degrees: int) -> "Scan":
        """Return the scan turned counterclockwise by 0, 90, 180 or 270 degrees."""
        if degrees == 0:
            return self
        width, height = self.picture.size
        back = {
            90: [[0, -1, width], [1, 0, 0], [0, 0, 1]],
            180: [[-1, 0, width], [0, -1, height], [0, 0, 1]],
            270: [[0, 1, 0], [-1, 0, height], [0, 0, 1]],
        }[degrees]
        return Scan(
            picture=self.picture.transpose(_TURNS[degrees]),
            dpi=self.dpi,
            to_page=self.to_page @ np.array(back, dtype=np.float64),
        )

    def straightened(self) -> "Scan":
        """Return the scan with level lines; itself, if they are level or there are none.

        Tesseract loses most lines of a page whose lines rise by 5 degrees, and is sure of the rest.
        """
        angle = self.skew()
        if abs(angle) < _SKEW_MIN:
            return self
        radians = math.radians(-angle)
        cos, sin = math.cos(radians), math.sin(radians)
        x, y = self.picture.width / 2, self.picture.height / 2
        back = [
            [cos, -sin, x - cos * x + sin * y],
            [sin, cos, y - sin * x - cos * y],
            [0, 0, 1],
        ]
        return Scan(
            picture=self.picture.rotate(
                -angle, resample=Image.Resampling.BICUBIC, fillcolor=_WHITE
            ),
            dpi=self.dpi,
            to_page=self.to_page @ np.array(back, dtype=np.float64),
        )

    def skew(self) -> float:
        """Return by how many degrees the lines rise to the right; 0 if no angle is clear."""
        x, y, ink = self._ink()
        if ink.size == 0:
            return 0.0

        def sharpness(degrees: float) -> float:
            """Return how sharply lines and gaps alternate along this angle."""
            rows = y + x * math.tan(math.radians(degrees))
            profile = np.bincount((rows - rows.min()).astype(np.int64), weights=ink)
            return float(np.square(np.diff(profile)).sum())

        steps = round(SKEW_MAX / _STEP)
        coarse = max((step * _STEP for step in range(-steps, steps + 1)), key=sharpness)
        fine_steps = round(_STEP / _FINE_STEP)
        best = max(
            (coarse + step * _FINE_STEP for step in range(-fine_steps, fine_steps + 1)),
            key=sharpness,
        )
        return best if sharpness(best) > _CLEARLY_BETTER * sharpness(0.0) else 0.0

    def box_on_page(self, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """Return the upright box, in points of the page, that encloses a box of pixels."""
        left, top, right, bottom = box
        corners = np.array(
            [[left, right, left, right], [top, top, bottom, bottom], [1, 1, 1, 1]],
            dtype=np.float64,
        )
        x, y, _ = self.to_page @ corners
        return round(x.min()), round(y.min()), round(x.max()), round(y.max())

    def _ink(
        self,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the columns, rows and darkness of the dark pixels at a low resolution."""
        factor = max(1, round(self.dpi / _DPI_OF_MEASUREMENT))
        small = np.asarray(self.picture.reduce(factor), dtype=np.float64)
        darkness = np.median(small) - small
        y, x = np.nonzero(darkness > _INK_MIN)
        return x.astype(np.float64), y.astype(np.float64), darkness[y, x]


def _on_white(picture: Image.Image) -> Image.Image:
    """Return the picture as dark text on white paper.

    Tesseract takes the noise of empty paper for a million letters, and needs minutes for a page.
    """
    paper, darker = _quantiles(picture)
    if paper < _DARK:
        picture = ImageOps.invert(picture)
        paper, darker = _quantiles(picture)
    noise = max(_NOISE_MIN, _NOISE_QUARTERS * (paper - darker))
    # Photographs have no paper: text on them stays, if it is dark.
    white = max(paper // 2, paper - noise)
    return picture.point([min(_WHITE, round(tone * _WHITE / white)) for tone in range(_WHITE + 1)])


def _quantiles(picture: Image.Image) -> tuple[int, int]:
    """Return the median and the lower quartile of the tones."""
    up_to = np.cumsum(picture.histogram())
    return (
        int(np.searchsorted(up_to, up_to[-1] / 2)),
        int(np.searchsorted(up_to, up_to[-1] / 4)),
    )
