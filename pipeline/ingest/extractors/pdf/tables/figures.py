"""The figures of a page: its images, and drawings of many lines and areas."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.ingest.extractors.pdf.geometry import Box, around, shared_height, shared_width
from pipeline.ingest.extractors.pdf.pdfium import PdfiumPage
from pipeline.ingest.extractors.pdf.tables.objects import PageObjects
from schemas.layout import FigureKind

# In 1/72 inch: a smaller image is an ornament.
_IMAGE_SIDE_MIN: Final = 24.0
_CHART_SIDE_MIN: Final = 48.0
_NEAR: Final = 12.0
"""Parts of one drawing are this near each other."""

_DRAWINGS_MIN: Final = 4
"""A chart has more parts; fewer are ornaments, such as the corners of a frame."""

_PARTS_MAX: Final = 1_000
_INSIDE: Final = 0.8


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a page; sizes in pixels only of an image."""

    kind: FigureKind
    box: Box
    width_pixels: int | None = None
    height_pixels: int | None = None


def figures_of(page: PdfiumPage, objects: PageObjects, *, tables: Sequence[Box]) -> list[Figure]:
    """Return the figures from top to bottom.

    Args:
        page: the page.
        objects: what it shows beside its text.
        tables: boxes of the tables; their lines and areas are no chart.
    """
    images = list(_images(page, objects))
    taken = [*tables, *(image.box for image in images)]
    charts = _charts(page, objects, taken=taken)
    return sorted([*images, *charts], key=lambda figure: (figure.box.top, figure.box.left))


def _images(page: PdfiumPage, objects: PageObjects) -> Iterator[Figure]:
    seen = set()
    for image in objects.images:
        box = _on_page(page, image.box)
        if min(box.width, box.height) >= _IMAGE_SIDE_MIN and box not in seen:
            seen.add(box)  # an image and its shadow, or one drawn twice
            yield Figure(
                kind=FigureKind.IMAGE,
                box=box,
                width_pixels=image.width_pixels,
                height_pixels=image.height_pixels,
            )


def _charts(page: PdfiumPage, objects: PageObjects, *, taken: Sequence[Box]) -> Iterator[Figure]:
    parts = [_on_page(page, box) for box in objects.drawings[:_PARTS_MAX]]
    parts = [box for box in parts if not any(_is_covered(box, other) for other in taken)]
    for cluster in _clusters(parts):
        if len(cluster) >= _DRAWINGS_MIN:
            box = around(cluster)
            if min(box.width, box.height) >= _CHART_SIDE_MIN:
                yield Figure(kind=FigureKind.CHART, box=box)


def _clusters(boxes: Sequence[Box]) -> list[list[Box]]:
    """Return groups of boxes that are near each other."""
    clusters: list[tuple[Box, list[Box]]] = [(box, [box]) for box in boxes]
    count = len(clusters) + 1
    while len(clusters) < count:  # a cluster that grows comes near others
        count = len(clusters)
        grown: list[tuple[Box, list[Box]]] = []
        for box, boxes_inside in clusters:
            outline, members, apart = box, boxes_inside, []
            for other, others in grown:
                if _is_near(outline, other):
                    members = [*others, *members]
                    outline = around([outline, other])
                else:
                    apart.append((other, others))
            grown = [*apart, (outline, members)]
        clusters = grown
    return [members for _, members in clusters]


def _is_near(one: Box, other: Box) -> bool:
    return shared_width(one, other) > -_NEAR and shared_height(one, other) > -_NEAR


def _is_covered(box: Box, other: Box) -> bool:
    width, height = shared_width(box, other), shared_height(box, other)
    if width < 0 or height < 0:
        return False
    return width >= _INSIDE * box.width and height >= _INSIDE * box.height


def _on_page(page: PdfiumPage, box: Box) -> Box:
    return Box(
        max(box.left, 0.0),
        max(box.top, 0.0),
        min(box.right, page.width),
        min(box.bottom, page.height),
    )
