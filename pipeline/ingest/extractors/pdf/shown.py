"""What a page shows beside its text: images, outlines, and text that was not read."""

import ctypes
from collections.abc import Iterator
from typing import Any, Final

import pypdfium2.raw as c

from pipeline.ingest.extractors.pdf.matrices import IDENTITY, Matrix, multiplied
from pipeline.ingest.extractors.pdf.opinions import Shown

# A page with more objects is a drawing; its first objects say enough.
_OBJECTS_MAX: Final = 3_000
_FORM_DEPTH_MAX: Final = 5
# A rectangle has five segments, a letter more.
_OUTLINE_SEGMENTS_MIN: Final = 8
_SEGMENTS_PER_OUTLINE: Final = 40


def shown_on(page: Any) -> Shown:  # noqa: ANN401  # a ctypes handle
    """Return what the objects of a loaded page show; forms are included."""
    left, bottom, right, top = _box(c.FPDF_GetPageBoundingBox, page) or (0, 0, 0, 0)
    area = (right - left) * (top - bottom)
    objects = texts = outlines = 0
    covered = 0.0
    for kind, handle, matrix in _objects(page):
        objects += 1
        if kind == c.FPDF_PAGEOBJ_TEXT:
            texts += 1
        elif kind == c.FPDF_PAGEOBJ_PATH:
            outlines += _outlines(handle)
        elif kind == c.FPDF_PAGEOBJ_IMAGE and (bounds := _bounds(handle, matrix)):
            width = min(bounds[2], right) - max(bounds[0], left)
            height = min(bounds[3], top) - max(bounds[1], bottom)
            covered += max(width, 0.0) * max(height, 0.0)
    return Shown(
        objects=objects,
        texts=texts,
        outlines=outlines,
        image_share=min(1.0, covered / area) if area > 0 else 0.0,
    )


def text_objects(page: Any) -> Iterator[Any]:  # noqa: ANN401  # ctypes is untyped
    """Yield the handles of the first objects of a loaded page that show text."""
    return (handle for kind, handle, _ in _objects(page) if kind == c.FPDF_PAGEOBJ_TEXT)


def _objects(page: Any) -> Iterator[tuple[int, Any, Matrix]]:  # noqa: ANN401  # ctypes is untyped
    """Yield kind, handle and matrix of the objects of a page and of its forms."""
    left = _OBJECTS_MAX
    containers = [(page, IDENTITY, 0)]
    while containers and left > 0:
        container, matrix, depth = containers.pop()
        is_page = depth == 0
        count = (c.FPDFPage_CountObjects if is_page else c.FPDFFormObj_CountObjects)(container)
        get = c.FPDFPage_GetObject if is_page else c.FPDFFormObj_GetObject
        for index in range(min(count, left)):
            handle = get(container, index)
            kind = c.FPDFPageObj_GetType(handle)
            left -= 1
            if kind == c.FPDF_PAGEOBJ_FORM and depth < _FORM_DEPTH_MAX:
                containers.append((handle, multiplied(_matrix(handle), matrix), depth + 1))
            else:
                yield kind, handle, matrix


def _outlines(path: Any) -> int:  # noqa: ANN401  # ctypes is untyped
    """Return how many letters a path may be: typesetters draw a letter or a line in one path."""
    mode, is_stroked = ctypes.c_int(), c.FPDF_BOOL()
    if not c.FPDFPath_GetDrawMode(path, mode, is_stroked) or mode.value == c.FPDF_FILLMODE_NONE:
        return 0
    segments = max(0, c.FPDFPath_CountSegments(path))
    return 0 if segments < _OUTLINE_SEGMENTS_MIN else 1 + segments // _SEGMENTS_PER_OUTLINE


def _bounds(handle: Any, matrix: Matrix) -> tuple[float, float, float, float] | None:  # noqa: ANN401  # ctypes is untyped
    box = _box(c.FPDFPageObj_GetBounds, handle)
    if box is None:
        return None
    a, b, d, e, f, g = matrix
    corners = [(a * x + d * y + f, b * x + e * y + g) for x in box[::2] for y in box[1::2]]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _box(get: Any, handle: Any) -> tuple[float, float, float, float] | None:  # noqa: ANN401  # ctypes is untyped
    """Return left, bottom, right and top, as PDFium's function `get` gives them."""
    if get is c.FPDF_GetPageBoundingBox:
        box = c.FS_RECTF()
        return (box.left, box.bottom, box.right, box.top) if get(handle, box) else None
    numbers = [ctypes.c_float() for _ in range(4)]
    left, bottom, right, top = numbers
    return (left.value, bottom.value, right.value, top.value) if get(handle, *numbers) else None


def _matrix(handle: Any) -> Matrix:  # noqa: ANN401  # ctypes is untyped
    m = c.FS_MATRIX()
    return (m.a, m.b, m.c, m.d, m.e, m.f) if c.FPDFPageObj_GetMatrix(handle, m) else IDENTITY
