"""Upload widgets that can send one file in several forms, each with a piece of the file.

Without the refusal every piece would be stored as a file of its own, with a successful answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.uploads.oneshot.part import FormRefused


@dataclass(frozen=True, kw_only=True)
class Widget:
    """A widget, and the fields that it adds to the form of a piece.

    Attributes:
        name: as its users know it.
        place: the field with the place of the piece in the file.
        count: the field with the number of pieces; 1 if the form has the whole file.
    """

    name: str
    place: str
    count: str


WIDGETS: Final = (
    Widget(name="Dropzone", place="dzchunkindex", count="dztotalchunkcount"),
    Widget(name="Fine Uploader", place="qqpartindex", count="qqtotalparts"),
    Widget(name="Flow.js", place="flowChunkNumber", count="flowTotalChunks"),
    Widget(name="Plupload", place="chunk", count="chunks"),
    Widget(name="Resumable.js", place="resumableChunkNumber", count="resumableTotalChunks"),
    Widget(name="simple-uploader.js", place="chunkNumber", count="totalChunks"),
)
"""Widgets that use `Content-Range` instead are refused by this field; tus and FilePond use PATCH."""


def check_whole(fields: Mapping[str, str]) -> None:
    """Check that the file of a form with these fields is not a piece.

    Both fields are needed: `chunks` alone may be metadata.

    Raises:
        FormRefused: a widget sends the file in several forms.
    """
    for widget in WIDGETS:
        if widget.place in fields and _is_several(fields.get(widget.count, "")):
            raise FormRefused(
                f"the form has only a piece of the file, as its field {widget.count!r} shows:"
                f" switch chunking off in {widget.name}, or create an upload (POST /uploads)"
                " and send its chunks"
            )


def _is_several(count: str) -> bool:
    count = count.strip()
    return count.isascii() and count.isdigit() and count.lstrip("0") not in {"", "1"}
