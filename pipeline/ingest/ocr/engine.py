"""What an OCR engine is: it turns a picture of text into lines with a confidence and a place."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from PIL import Image


class RecognitionTimedOut(Exception):
    """The engine did not finish a picture in the time allowed."""


@dataclass(frozen=True, kw_only=True)
class RecognizedLine:
    """A line of text in a picture.

    Attributes:
        text: on one line, in logical order.
        confidence: mean of its words, 0 to 1.
        box: left, top, right and bottom, in pixels.
        ends_paragraph: whether the next line starts another paragraph or column.
    """

    text: str
    confidence: float
    box: tuple[int, int, int, int]
    ends_paragraph: bool = False


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How the text of a picture is turned, and its script.

    Attributes:
        turn: degrees, counterclockwise, by which the picture must be turned to be upright.
        script: Tesseract's name, such as `Latin` or `Han`.
    """

    turn: int
    script: str


class OcrEngine(ABC):
    """Recognises text; an object is used by one thread at a time."""

    name: ClassVar[str]
    """Short, for logs and `ExtractedPage.engine`."""
    version: str
    languages: frozenset[str]
    """Names of the language data that the engine can use, as Tesseract has them: `eng`, `chi_sim`."""

    @abstractmethod
    def recognize(
        self, picture: Image.Image, *, dpi: float, languages: Sequence[str], allowed: timedelta
    ) -> tuple[RecognizedLine, ...]:
        """Return the lines of a grey picture in the order of reading.

        The time allowed is CPU time; the engine may take twice as much on a busy machine.

        Raises:
            RecognitionTimedOut: the engine needs more time.
        """

    def orientation(self, picture: Image.Image, *, dpi: float) -> Orientation | None:
        """Return how the picture is turned; None if it shows too little text to decide."""
        del picture, dpi
        return None
