"""RapidOCR, which the extra `ocr-rapidocr` installs."""

from datetime import timedelta
from importlib.util import find_spec

import pytest

from pipeline.ingest.ocr.rapid import MODULES, RapidOcrEngine
from tests.factories import scans


@pytest.mark.skipif(
    not all(map(find_spec, MODULES)),
    reason="the extra ocr-rapidocr (160 MB) is not installed",
)
def test_the_words_of_a_scan_are_recognised() -> None:
    lines = scans.english(60)

    found = RapidOcrEngine().recognize(
        scans.picture_of(lines, noise=15),
        dpi=scans.DPI,
        languages=("eng",),
        allowed=timedelta(seconds=120),
    )

    assert scans.recall("\n".join(line.text for line in found), of=lines) >= 0.95
    assert min(line.confidence for line in found) > 0.8
