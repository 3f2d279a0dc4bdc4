import pytest

from pipeline.ingest.extractors.pdf import opinions
from pipeline.ingest.extractors.pdf.opinions import (
    Shown,
    is_better,
    limit_reached,
    outcome_of,
    sign_of,
)
from pipeline.ingest.extractors.pdf.signs import Sign
from schemas.outcomes import Outcome

TEXT = "The committee met on Tuesday and agreed on the budget for the coming year."
GARBAGE = "7KH FRPPLWWHH PHW RQ 7XHVGD\\ DQG DJUHHG RQ WKH EXGJHW IRU WKH FRPLQJ \\HDU"


def opinion(text: str, *, may_be_cut: bool = False) -> opinions.Opinion:
    return opinions.Opinion(raw=text, text=text, may_be_cut=may_be_cut)


def test_a_text_without_a_sign_needs_no_second_opinion() -> None:
    assert sign_of(opinion(TEXT), Shown(texts=9)) is None


def test_a_page_that_shows_text_that_was_not_read_has_a_sign() -> None:
    assert sign_of(opinion(" "), Shown(texts=3)) is Sign.NOTHING_READ
    assert sign_of(opinion(" "), Shown()) is None


def test_a_text_that_may_be_cut_has_a_sign() -> None:
    assert sign_of(opinion(TEXT, may_be_cut=True), Shown()) is Sign.CUT


def test_words_are_better_than_garbage() -> None:
    assert is_better(opinion(TEXT), opinion(GARBAGE))
    assert not is_better(opinion(GARBAGE), opinion(TEXT))


def test_an_equal_text_is_not_better() -> None:
    assert not is_better(opinion(TEXT), opinion(TEXT))


def test_the_longer_text_is_better() -> None:
    assert is_better(opinion(TEXT * 2), opinion(TEXT))


@pytest.mark.parametrize(
    ("raw", "shown", "outcome"),
    [
        pytest.param(TEXT, Shown(image_share=1.0), Outcome.COMPLETE, id="text on an image"),
        pytest.param("Page 3", Shown(image_share=0.1), Outcome.COMPLETE, id="little text"),
        pytest.param("Page 3", Shown(image_share=0.9), Outcome.NEEDS_OCR, id="scan with a number"),
        pytest.param("", Shown(image_share=0.2), Outcome.NEEDS_OCR, id="image"),
        pytest.param("", Shown(image_share=0.01), Outcome.NO_TEXT, id="logo"),
        pytest.param("", Shown(outlines=500), Outcome.NEEDS_OCR, id="outlines"),
        pytest.param("", Shown(outlines=3), Outcome.NO_TEXT, id="ornament"),
        pytest.param("", Shown(), Outcome.NO_TEXT, id="blank"),
        pytest.param(GARBAGE, Shown(), Outcome.NEEDS_OCR, id="garbage"),
    ],
)
def test_the_outcome_of_a_page_follows_from_its_text_and_images(
    raw: str, shown: Shown, outcome: Outcome
) -> None:
    found, sentence = outcome_of(opinion(raw).signs, shown)
    assert found is outcome
    assert bool(sentence) == (outcome is not Outcome.COMPLETE)


def test_the_limit_that_cut_a_text_is_named() -> None:
    assert limit_reached(opinion("12345"), characters_max=5) == (Outcome.COMPLETE, "")
    assert limit_reached(opinion("123456"), characters_max=5)[0] is Outcome.LIMIT_PAGE_TEXT
    cut = opinion("1", may_be_cut=True)
    assert limit_reached(cut, characters_max=5)[0] is Outcome.LIMIT_PAGE_TEXT


def test_codes_that_both_engines_yield_stay_in_doubt() -> None:
    codes = opinions.Opinion(raw="9ROXPHV", text="9ROXPHV", codes="9ROXPHV", doubted="9ROXPHV")
    assert not is_better(opinion("9ROXPHV").with_doubts_of(codes), codes)
    assert is_better(opinion("Volumes").with_doubts_of(codes), codes)


def test_more_letters_of_another_encoding_are_not_better_than_chinese() -> None:
    chinese = opinions.Opinion(
        raw="全 世 界 无 产 者 联 合 A", text="全 世 界 无 产 者 联 合 A", doubted="A"
    )
    assert not is_better(opinion("È« ÊÀ ½ç ÎÞ ²ú Õß £¬ Áª ºÏ Æð"), chinese)
