"""The form values and the annotations that write text onto a page, by PDFium."""

import ctypes
from collections.abc import Iterator
from typing import Any, Final

import pypdfium2.raw as c

from pipeline.ingest import text
from pipeline.ingest.extractors.extractor import SpanKind
from pipeline.ingest.extractors.pdf.additions import Addition

# A form of more fields on one page is an attack: tax forms have 300.
_ANNOTATIONS_MAX: Final = 5_000
_OPTIONS_MAX: Final = 1_000
_NOT_SHOWN: Final = c.FPDF_ANNOT_FLAG_HIDDEN | c.FPDF_ANNOT_FLAG_NOVIEW
_PASSWORD: Final = 1 << 13  # flag of a text field (ISO 32000-2, table 228)
_CHECKED: Final = "\N{BALLOT BOX WITH X}"
_DEVICE_SCALE: Final = 16  # PDFium rounds the coordinates of a device to whole numbers


def additions_on(
    page: Any,  # noqa: ANN401  # a ctypes handle
    *,
    form: Any,  # noqa: ANN401
    characters_max: int,
) -> list[Addition]:
    """Return the visible form values and free texts of a loaded page.

    A checked box is a ballot box with an X. Passwords, buttons, hidden fields and comments are left
    out.

    Args:
        page: PDFium's handle of the page.
        form: PDFium's handle of the form of the document; None if there is none.
        characters_max: most characters of all together; the rest is left out.
    """
    found: list[Addition] = []
    if c.FPDFPage_GetAnnotCount(page) <= 0:
        return found
    if form is not None:
        c.FORM_OnAfterLoadPage(page, form)  # else no box is checked
    try:
        for annotation in _annotations(page):
            addition = _addition(page, annotation, form=form)
            if addition is None or addition in found[-1:]:
                continue
            characters_max -= len(addition.text)
            if characters_max < 0:
                break
            found.append(addition)
    finally:
        if form is not None:
            c.FORM_OnBeforeClosePage(page, form)
    return found


def _annotations(page: Any) -> Iterator[Any]:  # noqa: ANN401
    for index in range(min(c.FPDFPage_GetAnnotCount(page), _ANNOTATIONS_MAX)):
        annotation = c.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            yield annotation
        finally:
            c.FPDFPage_CloseAnnot(annotation)


def _addition(page: Any, annotation: Any, *, form: Any) -> Addition | None:  # noqa: ANN401
    if c.FPDFAnnot_GetFlags(annotation) & _NOT_SHOWN:
        return None
    match c.FPDFAnnot_GetSubtype(annotation):
        case c.FPDF_ANNOT_WIDGET if form is not None:
            kind, raw = SpanKind.FORM_FIELD, _value(annotation, form=form)
        case c.FPDF_ANNOT_FREETEXT:
            kind = SpanKind.ANNOTATION
            raw = _string(c.FPDFAnnot_GetStringValue, annotation, b"Contents")
        case _:
            return None
    lines = (line.strip() for line in text.clean(raw).split("\n"))
    content = "\n".join(line for line in lines if line)
    box = _box(page, annotation)
    if not content or box is None:
        return None
    left, top, right, bottom = box
    return Addition(kind=kind, text=content, left=left, top=top, right=right, bottom=bottom)


def _value(field: Any, *, form: Any) -> str:  # noqa: ANN401
    match c.FPDFAnnot_GetFormFieldType(form, field):
        case c.FPDF_FORMFIELD_TEXTFIELD:
            if c.FPDFAnnot_GetFormFieldFlags(form, field) & _PASSWORD:
                return ""
            return _string(c.FPDFAnnot_GetFormFieldValue, form, field)
        case c.FPDF_FORMFIELD_CHECKBOX | c.FPDF_FORMFIELD_RADIOBUTTON:
            return _CHECKED if c.FPDFAnnot_IsChecked(form, field) else ""
        case c.FPDF_FORMFIELD_COMBOBOX | c.FPDF_FORMFIELD_LISTBOX:
            # The value is the one for the receiver of the form; the page shows the label.
            labels = [
                _string(c.FPDFAnnot_GetOptionLabel, form, field, index)
                for index in range(min(c.FPDFAnnot_GetOptionCount(form, field), _OPTIONS_MAX))
                if c.FPDFAnnot_IsOptionSelected(form, field, index)
            ]
            return ", ".join(labels) or _string(c.FPDFAnnot_GetFormFieldValue, form, field)
        case _:
            return ""


def _string(get: Any, *subject: Any) -> str:  # noqa: ANN401
    """Return a string that PDFium's function `get` copies into a buffer."""
    size = get(*subject, None, 0)
    if size <= 2:  # noqa: PLR2004  # the NUL at the end
        return ""
    buffer = ctypes.create_string_buffer(size)
    get(*subject, ctypes.cast(buffer, ctypes.POINTER(c.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", "replace")


def _box(page: Any, annotation: Any) -> tuple[int, int, int, int] | None:  # noqa: ANN401
    """Return left, top, right and bottom on the page as displayed; None if nothing is visible."""
    rectangle = c.FS_RECTF()
    if not c.FPDFAnnot_GetRect(annotation, rectangle):
        return None
    width, height = c.FPDF_GetPageWidthF(page), c.FPDF_GetPageHeightF(page)
    size = (round(width * _DEVICE_SCALE), round(height * _DEVICE_SCALE))
    x, y = ctypes.c_int(), ctypes.c_int()
    points = []
    for corner in ((rectangle.left, rectangle.top), (rectangle.right, rectangle.bottom)):
        if not c.FPDF_PageToDevice(page, 0, 0, *size, 0, *corner, x, y):
            return None
        points.append((x.value / _DEVICE_SCALE, y.value / _DEVICE_SCALE))
    (left, right), (top, bottom) = (sorted(values) for values in zip(*points, strict=True))
    is_visible = right > left and bottom > top and left < width and right > 0
    if not is_visible or top >= height or bottom <= 0:
        return None
    return round(left), round(top), round(right), round(bottom)
