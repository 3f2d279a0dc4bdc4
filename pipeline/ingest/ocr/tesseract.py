"""Tesseract as an OCR engine; a wheel brings the library, the system brings its language data."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, ClassVar, Final

from PIL import Image

from pipeline.ingest.ocr.engine import (
    OcrEngine,
    Orientation,
    RecognitionTimedOut,
    RecognizedLine,
)

if TYPE_CHECKING:
    from tesserocr import PyTessBaseAPI

ORIENTATION_DATA: Final = "osd"

_SUFFIX: Final = ".traineddata"
_GREY: Final = 1  # bytes per pixel
# Below it, the orientation of a picture with little text is a guess.
_ORIENTATION_CONFIDENCE_MIN: Final = 1.0
# Less than this share of its time in CPU time: other processes had the CPU.
_BUSY: Final = 0.9
# Of the time allowed; the CPU time of the process is limited by its parent.
_LONGEST: Final = 20


def installed(directory: Path) -> frozenset[str]:
    """Return the names of the language data in a directory; none if there is no such directory."""
    return frozenset(file.name.removesuffix(_SUFFIX) for file in directory.glob(f"*{_SUFFIX}"))


class TesseractEngine(OcrEngine):
    """Tesseract's neural line recogniser. Language data are loaded when they are first used."""

    name: ClassVar[str] = "tesseract"

    def __init__(self, data: Path, *, cpu_clock: Callable[[], float] = process_time) -> None:
        # A build with OpenMP starts its threads at the first use, as many as there are processors:
        # they take longer than one thread, because each line is too little work to share.
        os.environ.setdefault("OMP_THREAD_LIMIT", "1")  # noqa: TID251  # read by the library, not by this project
        import tesserocr  # noqa: PLC0415  # after the limit

        self._library = tesserocr
        self._data = str(data)
        self._cpu_clock = cpu_clock
        self.version = tesserocr.tesseract_version().split("\n", 1)[0].removeprefix("tesseract ")
        self.languages = installed(data) - {ORIENTATION_DATA}
        self._can_orient = (data / f"{ORIENTATION_DATA}{_SUFFIX}").exists()
        self._recognizers: dict[str, PyTessBaseAPI] = {}
        self._orienter: PyTessBaseAPI | None = None

    def recognize(
        self, picture: Image.Image, *, dpi: float, languages: Sequence[str], allowed: timedelta
    ) -> tuple[RecognizedLine, ...]:
        recognizer = self._recognizer(languages)
        try:
            _show(recognizer, picture, dpi=dpi)
            if not self._ends_in_time(recognizer, allowed):
                raise RecognitionTimedOut
            return self._lines(recognizer)
        finally:
            recognizer.Clear()

    def _ends_in_time(self, recognizer: "PyTessBaseAPI", allowed: timedelta) -> bool:
        """Recognise the picture, and once more if the machine was too busy for it.

        Tesseract's own deadline is one of wall time. The second try ends a page by it only on a
        machine that does almost nothing for this process.
        """
        milliseconds = max(1, round(allowed.total_seconds() * 1000))
        started = self._cpu_clock()
        if recognizer.Recognize(milliseconds):
            return True
        is_busy = self._cpu_clock() - started < _BUSY * allowed.total_seconds()
        return is_busy and bool(recognizer.Recognize(_LONGEST * milliseconds))

    def orientation(self, picture: Image.Image, *, dpi: float) -> Orientation | None:
        if not self._can_orient:
            return None
        if self._orienter is None:
            self._orienter = self._library.PyTessBaseAPI(
                path=self._data, lang=ORIENTATION_DATA, psm=self._library.PSM.OSD_ONLY
            )
        try:
            _show(self._orienter, picture, dpi=dpi)
            found = self._orienter.DetectOrientationScript()
        finally:
            self._orienter.Clear()
        if not found or found["orient_conf"] < _ORIENTATION_CONFIDENCE_MIN:
            return None
        return Orientation(turn=found["orient_deg"], script=found["script_name"])

    def _recognizer(self, languages: Sequence[str]) -> "PyTessBaseAPI":
        name = "+".join(languages)
        if name not in self._recognizers:
            self._recognizers[name] = self._library.PyTessBaseAPI(
                path=self._data,
                lang=name,
                psm=self._library.PSM.AUTO,
                oem=self._library.OEM.LSTM_ONLY,
            )
        return self._recognizers[name]

    def _lines(self, recognizer: "PyTessBaseAPI") -> tuple[RecognizedLine, ...]:
        level = self._library.RIL
        iterator = recognizer.GetIterator()
        if iterator is None:
            return ()
        lines = []
        for line in self._library.iterate_level(iterator, level.TEXTLINE):
            if line.Empty(level.TEXTLINE):
                continue
            lines.append(
                RecognizedLine(
                    text=" ".join(line.GetUTF8Text(level.TEXTLINE).split()),
                    confidence=line.Confidence(level.TEXTLINE) / 100,
                    box=line.BoundingBox(level.TEXTLINE),
                    ends_paragraph=line.IsAtFinalElement(level.PARA, level.TEXTLINE),
                )
            )
        return tuple(lines)


def _show(recognizer: "PyTessBaseAPI", picture: Image.Image, *, dpi: float) -> None:
    recognizer.SetImageBytes(
        picture.tobytes(), picture.width, picture.height, _GREY, picture.width * _GREY
    )
    recognizer.SetSourceResolution(round(dpi))
