"""Tesseract with Debian's language data, which `make install` unpacks."""

from collections.abc import Callable
from datetime import timedelta
from time import monotonic

import py3langid
import pytest
from PIL import Image

from dev.stack.checkout import TESSDATA
from pipeline.ingest.extractors.extractor import ExtractedPage
from pipeline.ingest.ocr import tesseract
from pipeline.ingest.ocr.engine import RecognitionTimedOut, RecognizedLine
from pipeline.ingest.ocr.recognition import DocumentRecognizer, RecognitionLimits
from pipeline.ingest.ocr.tesseract import TesseractEngine
from schemas.outcomes import Outcome
from tests.factories import scans

RECALL_MIN = 0.95
LIMITS = RecognitionLimits(
    page_timeout=timedelta(seconds=60), confidence_min=0.5, page_characters=100_000
)


@pytest.fixture(scope="module")
def engine() -> TesseractEngine:
    return TesseractEngine(TESSDATA)


def recognized(engine: TesseractEngine, *pictures: Image.Image) -> list[ExtractedPage]:
    document = DocumentRecognizer(
        engine,
        languages=("eng",),
        limits=LIMITS,
        identify_language=lambda text: py3langid.classify(text)[0],
    )
    return [
        document.page(number, scans.page_image(picture))
        for number, picture in enumerate(pictures, start=1)
    ]


@pytest.mark.parametrize(
    ("skew", "turn", "noise"),
    [
        pytest.param(0, 0, 0, id="clean"),
        pytest.param(0, 0, 25, id="noise"),
        pytest.param(3, 0, 20, id="skew"),
        pytest.param(-5, 0, 20, id="strong-skew"),
        pytest.param(0, 90, 0, id="turned-90"),
        pytest.param(0, 180, 0, id="turned-180"),
        pytest.param(-3, 270, 20, id="turned-270-with-skew"),
    ],
)
def test_the_words_of_a_scan_are_recognised(
    engine: TesseractEngine, skew: float, turn: int, noise: float
) -> None:
    lines = scans.english(300)

    (page,) = recognized(engine, scans.picture_of(lines, skew=skew, turn=turn, noise=noise))

    assert page.outcome is Outcome.COMPLETE
    assert scans.recall(page.text, of=lines) >= RECALL_MIN
    assert page.confidence is not None
    assert page.confidence > 0.85


def test_german_is_recognised_with_its_own_data(engine: TesseractEngine) -> None:
    lines = scans.german(150)

    first, second = recognized(engine, scans.picture_of(lines), scans.picture_of(lines, turn=180))

    assert scans.recall(first.text, of=lines) >= RECALL_MIN
    assert scans.recall(second.text, of=lines) >= RECALL_MIN


def test_lines_lie_where_they_are_on_the_page(engine: TesseractEngine) -> None:
    (page,) = recognized(engine, scans.picture_of(["The first line", "", "", "The fourth line"]))

    assert page.text.split("\n")[0] == "The first line"
    first, fourth = page.lines
    assert (first.left, first.top) == pytest.approx((scans.MARGIN_POINTS, 62), abs=3)
    assert fourth.top - first.top == pytest.approx(3 * 1.35 * 11, abs=3)


def test_a_blank_page_has_no_text(engine: TesseractEngine) -> None:
    (page,) = recognized(engine, scans.picture_of([], noise=10))

    assert (page.outcome, page.text) == (Outcome.NO_TEXT, "")


def test_a_picture_without_text_yields_no_text(engine: TesseractEngine) -> None:
    waves = Image.effect_mandelbrot((800, 1200), (-2, -1.5, 1, 1.5), 100)

    (page,) = recognized(engine, waves)

    assert page.outcome in {Outcome.NO_TEXT, Outcome.NEEDS_OCR}
    assert page.text == ""


def recognized_in_little_time(cpu_clock: Callable[[], float]) -> tuple[RecognizedLine, ...]:
    return TesseractEngine(TESSDATA, cpu_clock=cpu_clock).recognize(
        scans.picture_of(scans.english(300)),
        dpi=scans.DPI,
        languages=("eng",),
        allowed=timedelta(milliseconds=50),
    )


def test_a_page_is_given_up_after_its_time() -> None:
    with pytest.raises(RecognitionTimedOut):
        recognized_in_little_time(monotonic)


def test_a_page_that_got_no_cpu_time_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tesseract, "_LONGEST", 10_000)
    assert recognized_in_little_time(lambda: 0.0)
