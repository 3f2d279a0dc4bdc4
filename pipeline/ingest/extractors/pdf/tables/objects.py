"""The lines, areas and images of a page, from PDFium's page objects."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pypdfium2.raw as c

from pipeline.ingest.extractors.pdf.geometry import Box
from pipeline.ingest.extractors.pdf.matrices import IDENTITY, Matrix, multiplied
from pipeline.ingest.extractors.pdf.pdfium import PdfiumPage, with_addresses

# In 1/72 inch. A thicker line is an area; a shorter one is a dash or a part of a letter.
_RULE_THICKNESS_MAX: Final = 3.5
_RULE_LENGTH_MIN: Final = 4.0
_STRAIGHT: Final = 0.7
"""How far a line may rise, and still be horizontal."""

_FORM_DEPTH_MAX: Final = 8
_PATH_SEGMENTS_MAX: Final = 4_000
"""A path with more segments is a drawing; its first ones would not say more."""

_WHITE: Final = 250
_AREAS_MAX: Final = 3_000
"""The edges of more areas are kept, also if they are not seen."""

_TILE: Final = 32.0
_PAGE_MAX: Final = 2_000.0  # a larger page has its other areas in its last tiles

_ABUTTING: Final = 1.0
_SIDES: Final = 5  # of a rectangle that is closed twice

_VOID: Final = ctypes.c_void_p
_INT: Final = ctypes.c_int
_count_on_page: Final = with_addresses(c.FPDFPage_CountObjects, _VOID)
_count_in_form: Final = with_addresses(c.FPDFFormObj_CountObjects, _VOID)
_type_of: Final = with_addresses(c.FPDFPageObj_GetType, _VOID)
_bounds_of: Final = with_addresses(c.FPDFPageObj_GetBounds, _VOID, *[_VOID] * 4)
_draw_mode_of: Final = with_addresses(c.FPDFPath_GetDrawMode, _VOID, _VOID, _VOID)
_count_segments: Final = with_addresses(c.FPDFPath_CountSegments, _VOID)
_segment_type: Final = with_addresses(c.FPDFPathSegment_GetType, _VOID)
_segment_closes: Final = with_addresses(c.FPDFPathSegment_GetClose, _VOID)
_segment_point: Final = with_addresses(c.FPDFPathSegment_GetPoint, _VOID, _VOID, _VOID)
_fill_color: Final = with_addresses(c.FPDFPageObj_GetFillColor, _VOID, *[_VOID] * 4)
_matrix_of: Final = with_addresses(c.FPDFPageObj_GetMatrix, _VOID, _VOID)
_pixels_of: Final = with_addresses(c.FPDFImageObj_GetImagePixelSize, _VOID, _VOID, _VOID)
_object_on_page: Final = with_addresses(c.FPDFPage_GetObject, _VOID, _INT, returns=_VOID)
_object_in_form: Final = with_addresses(
    c.FPDFFormObj_GetObject, _VOID, ctypes.c_ulong, returns=_VOID
)
_segment_of: Final = with_addresses(c.FPDFPath_GetPathSegment, _VOID, _INT, returns=_VOID)


class Rule(NamedTuple):
    """A horizontal or vertical line, or the edge of an area.

    Attributes:
        place: its y if it is horizontal, else its x.
        start: its left or upper end.
        end: its right or lower end.
    """

    place: float
    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


class Area(NamedTuple):
    """A rectangle of one colour, without a line around it."""

    box: Box
    color: tuple[int, ...]


class Image(NamedTuple):
    """An image: its box on the page and its size in pixels."""

    box: Box
    width_pixels: int
    height_pixels: int


@dataclass(kw_only=True)
class PageObjects:
    """What a page shows beside its text.

    Attributes:
        horizontal: lines and edges from left to right.
        vertical: lines and edges from top to bottom.
        images: images.
        drawings: boxes of the other paths: curves, slanted lines, areas of other shapes.
        is_cut: whether there are more objects.
    """

    horizontal: list[Rule] = field(default_factory=list)
    vertical: list[Rule] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    drawings: list[Box] = field(default_factory=list)
    is_cut: bool = False


def objects_of(page: PdfiumPage, *, objects_max: int) -> PageObjects:
    """Return the lines, areas and images of a page and of its forms.

    Args:
        page: the page.
        objects_max: objects and segments of paths that are looked at.
    """
    return _Walk(page, left=objects_max).found()


class _Walk:
    """Reads the objects of one page."""

    def __init__(self, page: PdfiumPage, *, left: int) -> None:
        self._page = page
        self._left = left
        self._found = PageObjects()
        self._areas: list[Area] = []
        # PDFium writes its answers here.
        self._floats = (ctypes.c_float * 6)()
        self._float_at = [ctypes.addressof(self._floats) + 4 * index for index in range(6)]
        self._ints = (ctypes.c_uint * 4)()
        self._int_at = [ctypes.addressof(self._ints) + 4 * index for index in range(4)]

    def found(self) -> PageObjects:
        for kind, handle, matrix in self._objects():
            if kind == c.FPDF_PAGEOBJ_PATH:
                self._path(handle, matrix)
            elif kind == c.FPDF_PAGEOBJ_IMAGE:
                self._image(handle, matrix)
            elif kind == c.FPDF_PAGEOBJ_SHADING and (box := self._bounds(handle, matrix)):
                self._found.drawings.append(box)
        for rule, is_horizontal in _visible_edges(self._areas):
            (self._found.horizontal if is_horizontal else self._found.vertical).append(rule)
        return self._found

    def _objects(self) -> Iterator[tuple[int, Any, Matrix]]:
        """Yield kind, handle and matrix of each object that is no form."""
        address = ctypes.cast(self._page.raw, ctypes.c_void_p).value
        containers: list[tuple[Any, Matrix, int]] = [(address, IDENTITY, 0)]
        while containers:
            container, matrix, depth = containers.pop()
            count = (_count_in_form if depth else _count_on_page)(container)
            get = _object_in_form if depth else _object_on_page
            if count > self._left:
                self._found.is_cut = True
            for index in range(min(count, self._left)):
                handle = get(container, index)
                kind = _type_of(handle)
                self._left -= 1
                if kind == c.FPDF_PAGEOBJ_TEXT:
                    continue
                if kind == c.FPDF_PAGEOBJ_FORM:
                    if depth < _FORM_DEPTH_MAX:
                        inner = multiplied(self._matrix(handle), matrix)
                        containers.append((handle, inner, depth + 1))
                    else:
                        self._found.is_cut = True
                else:
                    yield kind, handle, matrix
                if self._left <= 0:
                    self._found.is_cut = True
                    return

    def _path(self, path: Any, matrix: Matrix) -> None:  # noqa: ANN401  # ctypes is untyped
        box = self._bounds(path, matrix)
        if box is None or not self._is_on_page(box):
            return
        _draw_mode_of(path, self._int_at[0], self._int_at[1])
        is_filled, is_stroked = self._ints[0] != c.FPDF_FILLMODE_NONE, bool(self._ints[1])
        if not is_filled and not is_stroked:
            return
        is_thin = min(box.width, box.height) <= _RULE_THICKNESS_MAX
        color = self._color(path) if is_filled and not is_stroked and not is_thin else None
        if color is not None and _is_paper(color):
            return
        if is_thin:
            self._thin(box)
            return
        count = _count_segments(path)
        if count > min(_PATH_SEGMENTS_MAX, self._left):
            self._found.drawings.append(box)
            return
        self._left -= max(0, count)
        lines, is_straight = self._lines(path, count, multiplied(self._matrix(path), matrix))
        if not is_straight:
            self._found.drawings.append(box)
            return
        if color is not None and len(lines) <= _SIDES:
            self._areas.append(Area(box, color))
        else:
            self._edges(lines)

    def _thin(self, box: Box) -> None:
        if box.width >= box.height:
            if box.width >= _RULE_LENGTH_MIN:
                place = (box.top + box.bottom) / 2
                self._found.horizontal.append(Rule(place, box.left, box.right))
        elif box.height >= _RULE_LENGTH_MIN:
            place = (box.left + box.right) / 2
            self._found.vertical.append(Rule(place, box.top, box.bottom))

    def _edges(self, lines: list[Box]) -> None:
        for x, y, to_x, to_y in lines:
            if abs(to_y - y) <= _STRAIGHT:
                if abs(to_x - x) >= _RULE_LENGTH_MIN:
                    self._found.horizontal.append(Rule((y + to_y) / 2, min(x, to_x), max(x, to_x)))
            elif abs(to_y - y) >= _RULE_LENGTH_MIN:
                self._found.vertical.append(Rule((x + to_x) / 2, min(y, to_y), max(y, to_y)))

    def _lines(self, path: Any, count: int, matrix: Matrix) -> tuple[list[Box], bool]:  # noqa: ANN401  # ctypes is untyped
        """Return the lines of a path, each from a point to a point; and whether all are straight.

        A straight line is horizontal or vertical.
        """
        a, b, d, e, f, g = matrix
        x_at, y_at = self._float_at[0], self._float_at[1]
        lines: list[tuple[float, float, float, float]] = []
        start = last = (0.0, 0.0)
        for index in range(count):
            segment = _segment_of(path, index)
            _segment_point(segment, x_at, y_at)
            x, y = self._floats[0], self._floats[1]
            point = (a * x + d * y + f, b * x + e * y + g)
            kind = _segment_type(segment)
            if kind == c.FPDF_SEGMENT_MOVETO:
                start = point
            elif kind == c.FPDF_SEGMENT_LINETO:
                lines.append((*last, *point))
            else:
                return [], False
            last = point
            if _segment_closes(segment):
                lines.append((*last, *start))
                last = start
        if any(
            abs(to_x - x) > _STRAIGHT and abs(to_y - y) > _STRAIGHT for x, y, to_x, to_y in lines
        ):
            return [], False
        return self._page.as_displayed(lines), True

    def _image(self, image: Any, matrix: Matrix) -> None:  # noqa: ANN401  # ctypes is untyped
        box = self._bounds(image, matrix)
        if box is None or not self._is_on_page(box):
            return
        _pixels_of(image, self._int_at[0], self._int_at[1])
        self._found.images.append(Image(box, int(self._ints[0]), int(self._ints[1])))

    def _color(self, handle: Any) -> tuple[int, ...]:  # noqa: ANN401  # ctypes is untyped
        """Return red, green, blue and alpha of an area."""
        _fill_color(handle, *self._int_at)
        return tuple(self._ints)

    def _is_on_page(self, box: Box) -> bool:
        return (
            box.right > 0
            and box.bottom > 0
            and box.left < self._page.width
            and box.top < self._page.height
        )

    def _bounds(self, handle: Any, matrix: Matrix) -> Box | None:  # noqa: ANN401  # ctypes is untyped
        if not _bounds_of(handle, *self._float_at[:4]):
            return None
        left, bottom, right, top = self._floats[:4]
        if matrix != IDENTITY:
            a, b, d, e, f, g = matrix
            corners = [
                (a * x + d * y + f, b * x + e * y + g) for x in (left, right) for y in (bottom, top)
            ]
            xs, ys = zip(*corners, strict=True)
            left, bottom, right, top = min(xs), min(ys), max(xs), max(ys)
        (box,) = self._page.as_displayed([(left, top, right, bottom)])
        return box

    def _matrix(self, handle: Any) -> Matrix:  # noqa: ANN401  # ctypes is untyped
        if not _matrix_of(handle, self._float_at[0]):
            return IDENTITY
        a, b, d, e, f, g = self._floats
        return a, b, d, e, f, g


def _is_paper(color: Sequence[int]) -> bool:
    """Return whether a colour is white, or none."""
    *parts, alpha = color
    return alpha == 0 or min(parts) >= _WHITE


def _visible_edges(areas: Sequence[Area]) -> Iterator[tuple[Rule, bool]]:
    """Yield the edges of areas, and whether each is horizontal.

    An edge on whose other side an area of the same colour goes on is not seen: some programs
    paint the background of each line of text.
    """
    by_color: dict[tuple[int, ...], _Tiles] = {}
    for area in areas[:_AREAS_MAX]:
        by_color.setdefault(area.color, _Tiles()).add(area.box)
    for (left, top, right, bottom), color in areas:
        same = by_color.get(color, _Tiles())
        x, y = (left + right) / 2, (top + bottom) / 2
        if not same.cover(x, top - _ABUTTING):
            yield Rule(top, left, right), True
        if not same.cover(x, bottom + _ABUTTING):
            yield Rule(bottom, left, right), True
        if not same.cover(left - _ABUTTING, y):
            yield Rule(left, top, bottom), False
        if not same.cover(right + _ABUTTING, y):
            yield Rule(right, top, bottom), False


class _Tiles:
    """Boxes by the tiles of the page that they touch, so that few are compared with a point."""

    def __init__(self) -> None:
        self._boxes: dict[tuple[int, int], list[Box]] = {}

    def add(self, box: Box) -> None:
        for column in range(self._tile(box.left), self._tile(box.right) + 1):
            for row in range(self._tile(box.top), self._tile(box.bottom) + 1):
                self._boxes.setdefault((column, row), []).append(box)

    def cover(self, x: float, y: float) -> bool:
        """Return whether a box covers a point."""
        near = self._boxes.get((self._tile(x), self._tile(y)), [])
        return any(box.left <= x <= box.right and box.top <= y <= box.bottom for box in near)

    @staticmethod
    def _tile(place: float) -> int:
        return int(min(max(place, 0.0), _PAGE_MAX) // _TILE)
