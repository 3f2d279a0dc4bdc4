from datetime import timedelta

import pytest
from PIL import Image

from pipeline.ingest.ocr.engine import Orientation, RecognitionTimedOut
from pipeline.ingest.ocr.recognition import DocumentRecognizer, RecognitionLimits
from schemas.outcomes import Outcome
from tests.factories import scans
from tests.fakes.ocr import FakeEngine

LIMITS = RecognitionLimits(
    page_timeout=timedelta(seconds=10), confidence_min=0.5, page_characters=1000
)
PORTRAIT = (100, 200)
UPRIGHT = scans.page_image(Image.new("L", PORTRAIT, 255))
TURNED = scans.page_image(Image.new("L", (200, 100), 255))
GOOD = [("A line of text", 0.95)]
GIBBERISH = [("2x93 Jo sul V", 0.3)]


def recognizer(engine: FakeEngine, **options: object) -> DocumentRecognizer:
    return DocumentRecognizer(engine, languages=("eng",), limits=LIMITS, **options)  # type: ignore[arg-type]  # any option


def upright_only(picture: Image.Image, _: tuple[str, ...]) -> list[tuple[str, float]]:
    return GOOD if picture.size == PORTRAIT else GIBBERISH


def test_lines_have_offsets_in_the_text_and_a_place_on_the_page() -> None:
    engine = FakeEngine(lambda *_: [("First line", 0.9), ("Second line", 0.8)])

    page = recognizer(engine).page(7, UPRIGHT)

    assert (page.number, page.outcome, page.engine) == (7, Outcome.COMPLETE, "fake")
    assert page.text == "First line\nSecond line"
    assert [page.text[line.start : line.end] for line in page.lines] == [
        "First line",
        "Second line",
    ]
    assert page.lines[1].top > page.lines[0].top
    assert (page.width_points, page.height_points) == (36, 72)
    assert page.confidence == pytest.approx(0.848, abs=0.001)


def test_a_page_without_words_has_no_text() -> None:
    page = recognizer(FakeEngine(lambda *_: [("| --", 0.9)])).page(1, UPRIGHT)

    assert (page.outcome, page.text, page.confidence) == (Outcome.NO_TEXT, "", None)


def test_text_below_the_confidence_floor_is_discarded() -> None:
    page = recognizer(FakeEngine(lambda *_: [("rnernory", 0.45)])).page(1, UPRIGHT)

    assert (page.outcome, page.text, page.lines) == (Outcome.NEEDS_OCR, "", ())
    assert page.confidence == 0.45
    assert "certainty" in page.reason


def test_lines_of_noise_are_left_out_of_a_good_page() -> None:
    engine = FakeEngine(lambda *_: [("A long line of text", 0.9), ("~x", 0.1)])

    assert recognizer(engine).page(1, UPRIGHT).text == "A long line of text"


def test_a_doubtful_page_is_turned_by_its_orientation() -> None:
    engine = FakeEngine(upright_only, orientation=Orientation(turn=90, script="Latin"))

    page = recognizer(engine).page(1, TURNED)

    assert page.text == "A line of text"
    assert len(engine.asked) == 2


def test_a_page_with_too_little_text_for_an_orientation_is_tried_in_every_turn() -> None:
    page = recognizer(FakeEngine(upright_only)).page(1, TURNED)

    assert page.text == "A line of text"


def test_the_turn_of_a_page_is_tried_first_for_the_next() -> None:
    engine = FakeEngine(upright_only, orientation=Orientation(turn=90, script="Latin"))
    pages = recognizer(engine)
    pages.page(1, TURNED)
    engine.asked.clear()

    assert pages.page(2, TURNED).text == "A line of text"
    assert len(engine.asked) == 1


def test_a_page_in_another_script_is_recognised_with_the_data_of_the_script() -> None:
    engine = FakeEngine(
        lambda _, names: [("中文版本", 0.9)] if names == ("chi_sim",) else GIBBERISH,
        languages=frozenset({"eng", "chi_sim"}),
        orientation=Orientation(turn=0, script="Han"),
    )

    assert recognizer(engine).page(1, UPRIGHT).text == "中文版本"


def test_the_data_of_the_language_of_a_page_are_used_where_they_are_more_certain() -> None:
    german = "Für die Prüfung der Verträge " * 5
    engine = FakeEngine(
        lambda _, names: [(german, 0.95)] if names == ("deu",) else [("Fiir " * 28, 0.85)],
        languages=frozenset({"eng", "deu"}),
    )
    pages = recognizer(engine, identify_language=lambda _: "de")

    assert pages.page(1, UPRIGHT).text == german.strip()
    engine.asked.clear()
    pages.page(2, UPRIGHT)
    assert engine.asked == [("deu",)]


def test_less_certain_data_are_not_used_for_a_mistaken_language() -> None:
    english = "A line of text. " * 8
    engine = FakeEngine(
        lambda _, names: [(english, 0.95 if names == ("eng",) else 0.9)],
        languages=frozenset({"eng", "deu"}),
    )
    pages = recognizer(engine, identify_language=lambda _: "de")
    pages.page(1, UPRIGHT)
    engine.asked.clear()

    pages.page(2, UPRIGHT)

    assert engine.asked == [("eng",)]


def test_a_page_that_takes_too_long_is_a_timeout() -> None:
    def never_ends(*_: object) -> list[tuple[str, float]]:
        raise RecognitionTimedOut

    page = recognizer(FakeEngine(never_ends)).page(1, UPRIGHT)

    assert (page.outcome, page.text) == (Outcome.TIMEOUT_PAGE, "")


def test_a_page_keeps_its_first_result_if_a_better_one_would_take_too_long() -> None:
    now = 0.0

    def slow(*_: object) -> list[tuple[str, float]]:
        nonlocal now
        now += 11
        return [("A doubtful line", 0.6)]

    pages = recognizer(FakeEngine(slow), clock=lambda: now)

    assert pages.page(1, UPRIGHT).text == "A doubtful line"


def test_the_text_of_a_page_is_bounded() -> None:
    page = recognizer(FakeEngine(lambda *_: [("word " * 199, 0.9), ("the end", 0.9)])).page(
        1, UPRIGHT
    )

    assert page.outcome is Outcome.LIMIT_PAGE_TEXT
    assert len(page.text) <= LIMITS.page_characters
    assert len(page.lines) == 1
