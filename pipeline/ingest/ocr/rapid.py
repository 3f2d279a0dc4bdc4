"""RapidOCR as an OCR engine: for systems without Tesseract's data, at ten times the time."""

import os
import statistics
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Any, ClassVar, Final

import numpy as np
from PIL import Image

from pipeline.ingest.ocr.engine import OcrEngine, RecognizedLine

MODULES: Final = ("rapidocr", "onnxruntime")
"""What the extra `ocr-rapidocr` installs; RapidOCR itself asks for no runtime of its models."""

_ONE_THREAD: Final = {
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "Global.log_level": "error",
}
# Boxes are of one line if their centres are closer than this share of their height.
_SAME_LINE: Final = 0.5


class RapidOcrEngine(OcrEngine):
    """Models for Latin and Chinese script; they find text at any small angle and upside down."""

    name: ClassVar[str] = "rapidocr"

    def __init__(self) -> None:
        # Their threads would compete with the other workers of the machine.
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, "1")  # noqa: TID251  # read by the libraries, not by this project
        from rapidocr import RapidOCR  # noqa: PLC0415  # an extra, and after the limits

        self.version = version("rapidocr")
        self.languages = frozenset({"eng", "chi_sim"})
        self._engine = RapidOCR(params=_ONE_THREAD)

    def recognize(
        self, picture: Image.Image, *, dpi: float, languages: Sequence[str], allowed: timedelta
    ) -> tuple[RecognizedLine, ...]:
        """Return the lines; the caller's process has to watch the time."""
        del dpi, languages, allowed
        found: Any = self._engine(np.asarray(picture.convert("RGB")))
        if found.txts is None:
            return ()
        parts = [
            RecognizedLine(
                text=" ".join(text.split()),
                confidence=float(score),
                box=(
                    int(corners[:, 0].min()),
                    int(corners[:, 1].min()),
                    int(corners[:, 0].max()),
                    int(corners[:, 1].max()),
                ),
            )
            for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
            if text.strip()
        ]
        return joined(parts)


def joined(parts: Sequence[RecognizedLine]) -> tuple[RecognizedLine, ...]:
    """Return the lines of boxes that may be parts of a line, from the top."""
    rows: list[list[RecognizedLine]] = []
    for part in sorted(parts, key=lambda each: each.box[1] + each.box[3]):
        if rows and _is_beside(part, rows[-1][-1]):
            rows[-1].append(part)
        else:
            rows.append([part])
    return tuple(_line(sorted(row, key=lambda each: each.box[0])) for row in rows)


def _is_beside(part: RecognizedLine, other: RecognizedLine) -> bool:
    height = min(part.box[3] - part.box[1], other.box[3] - other.box[1])
    distance = abs(part.box[1] + part.box[3] - other.box[1] - other.box[3]) / 2
    return distance < _SAME_LINE * height


def _line(row: Sequence[RecognizedLine]) -> RecognizedLine:
    lefts, tops, rights, bottoms = zip(*(part.box for part in row), strict=True)
    return RecognizedLine(
        text=" ".join(part.text for part in row),
        confidence=statistics.fmean(part.confidence for part in row),
        box=(min(lefts), min(tops), max(rights), max(bottoms)),
    )
