import pytest

from pipeline.ingest.extractors.pdf.tables.headers import is_number


@pytest.mark.parametrize(
    "text",
    [
        "12",
        "1,240.50",
        "-3",
        "(19.9%)",
        "1269 (19.9%)",
        "12 kg",
        "EUR 5.00",
        "€ 7",
        "2.5-3.5",
        "-",
        "n/a",
    ],
)
def test_a_text_of_digits_is_a_number(text: str) -> None:
    assert is_number(text)


@pytest.mark.parametrize(
    "text", ["Steel", "EU-15", "Q1", "Table 3", "200 (as BTEX)", "12 months", ""]
)
def test_a_text_with_words_is_no_number(text: str) -> None:
    assert not is_number(text)
