"""An OCR engine without an engine: it returns what the test says, and records what it is asked."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import ClassVar

from PIL import Image

from pipeline.ingest.ocr.engine import OcrEngine, Orientation, RecognizedLine

Recognize = Callable[[Image.Image, tuple[str, ...]], Sequence[tuple[str, float]]]
"""Returns text and confidence of the lines of a picture in these languages."""


class FakeEngine(OcrEngine):
    name: ClassVar[str] = "fake"

    def __init__(
        self,
        recognize: Recognize,
        *,
        languages: frozenset[str] = frozenset({"eng"}),
        orientation: Orientation | None = None,
    ) -> None:
        self.version = "1"
        self.languages = languages
        self.asked: list[tuple[str, ...]] = []
        self._recognize = recognize
        self._orientation = orientation

    def recognize(
        self, picture: Image.Image, *, dpi: float, languages: Sequence[str], allowed: timedelta
    ) -> tuple[RecognizedLine, ...]:
        del dpi, allowed
        self.asked.append(tuple(languages))
        return tuple(
            RecognizedLine(text=text, confidence=confidence, box=(0, row * 10, 100, row * 10 + 8))
            for row, (text, confidence) in enumerate(self._recognize(picture, tuple(languages)))
        )

    def orientation(self, picture: Image.Image, *, dpi: float) -> Orientation | None:
        del picture, dpi
        return self._orientation
