import pytest

from pipeline.enrich import languages
from pipeline.enrich.amounts import amounts


def found(text: str, language: str = "en") -> list[tuple[str, str, str]]:
    rules = languages.rules(language)
    return [
        (each.label, text[each.start : each.end], each.normal)
        for each in amounts(text, rules=rules)
    ]


@pytest.mark.parametrize(
    ("language", "written", "normal"),
    [
        ("en", "$1,200.50", "1200.50 USD"),
        ("en", "US$ 3 million", "3000000 USD"),
        ("en", "4.5 bn euros", "4500000000 EUR"),
        ("en", "EUR 7", "7 EUR"),
        ("en", "$5.00", "5 USD"),
        ("en", "$ 5", "5 USD"),
        ("en", "£0.50", "0.50 GBP"),
        ("en", "-€1.234,56", "-1234.56 EUR"),
        ("en", "CHF 1'234.50", "1234.50 CHF"),
        ("en", "1,00,000 INR", "100000 INR"),
        ("de", "1.234,56 €", "1234.56 EUR"),
        ("de", "1.234 EUR", "1234 EUR"),
        ("de", "3 Mio. Euro", "3000000 EUR"),
        ("de", "2 Billionen €", "2000000000000 EUR"),
        ("fr", "1 234,56 €", "1234.56 EUR"),
        ("fr", "3 millions d'euros", "3000000 EUR"),
        ("es", "$ 1.500", "1500 $"),
        ("es", "U$S 20", "20 USD"),
        ("pt", "R$ 1.500,00", "1500 BRL"),
        ("sv", "1 000 kr", "1000 SEK"),
        ("pl", "12,50 zł", "12.50 PLN"),
        ("ja", "¥1,000", "1000 JPY"),
        ("zh", "¥1,000", "1000 CNY"),
    ],
)
def test_an_amount_is_found_as_a_decimal_with_its_currency(
    language: str, written: str, normal: str
) -> None:
    assert found(f"is {written} or", language) == [("MONEY", written, normal)]


@pytest.mark.parametrize(
    ("language", "written", "normal"),
    [
        ("en", "12.5 %", "12.5%"),
        ("en", "-5%", "-5%"),
        ("en", "10 percent", "10%"),
        ("de", "12,50 Prozent", "12.5%"),
        ("es", "10 por ciento", "10%"),
    ],
)
def test_a_percentage_is_found_as_a_decimal(language: str, written: str, normal: str) -> None:
    assert found(f"is {written} or", language) == [("PERCENT", written, normal)]


def test_an_amount_of_a_line_does_not_take_the_end_of_the_line() -> None:
    assert found("pay $ 5\n and") == [("MONEY", "$ 5", "5 USD")]


@pytest.mark.parametrize(
    "text", ["A4 and 5 apples", "Room 12 EURO2", "3 m long", "1.2.3 EUR-less", "B2B 5", "in $000"]
)
def test_numbers_without_a_currency_are_no_amounts(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text", ["1" * 100_000, "1," * 100_000, "1 000 " * 50_000, "$" * 100_000, "$1" * 25_000]
)
@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.timeout(20)
def test_hostile_numbers_take_time_in_proportion_to_their_length(text: str, language: str) -> None:
    found(text, language)
