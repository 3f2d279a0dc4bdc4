"""Tables and figures of documents."""

from typing import Annotated

import msgspec

from schemas.api.documents import Box
from schemas.ids import DocumentId
from schemas.layout import FigureKind, TableMethod


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class TablePart(msgspec.Struct, frozen=True, kw_only=True):
    """The place of a table on one page."""

    page: int
    box: Box


class TableSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A table without its cells."""

    number: Annotated[int, _described("from 1, in reading order")]
    page: Annotated[int, _described("the first page")]
    parts: Annotated[list[TablePart], _described("its place on each of its pages")]
    row_count: int
    column_count: int
    header_row_count: Annotated[
        int, _described("upper rows that name the columns; 0 if there seem to be none")
    ]
    cell_count: Annotated[int, _described("cells with text")]
    method: Annotated[TableMethod, _described("what shows the cells")]
    confidence: Annotated[float, _described("0 to 1, that it is a table with these cells")]
    caption: Annotated[str, _described("the heading beside it; empty if there seems to be none")]
    is_cut: Annotated[bool, _described("whether a limit left its last rows out")]


class TableCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell with text."""

    row: Annotated[int, _described("of its upper row, from 0")]
    column: Annotated[int, _described("of its left column, from 0")]
    row_span: int
    column_span: int
    text: str
    page: int
    box: Box


class DocumentTable(TableSummary, frozen=True, kw_only=True):
    """A table. A place without a cell is empty."""

    document_id: DocumentId
    cells: Annotated[list[TableCell], _described("in the order of rows and columns")]


class DocumentFigure(msgspec.Struct, frozen=True, kw_only=True):
    """An image, or a chart made of lines and areas."""

    number: Annotated[int, _described("from 1, in reading order")]
    page: int
    kind: FigureKind
    box: Box
    width_pixels: Annotated[
        int | None, _described("of an image, as stored in the file; null for a chart")
    ]
    height_pixels: int | None
