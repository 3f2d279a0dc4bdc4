import pytest

from pipeline.enrich import languages
from pipeline.enrich.dates import DateOrder, dates


def found(text: str, language: str = "en") -> list[tuple[str, str]]:
    order = DateOrder()
    order.learn(text)
    rules = languages.rules(language)
    return [
        (text[each.start : each.end], each.normal) for each in dates(text, rules=rules, order=order)
    ]


@pytest.mark.parametrize(
    ("language", "written", "normal"),
    [
        ("en", "5 March 2024", "2024-03-05"),
        ("en", "March 5th, 2024", "2024-03-05"),
        ("en", "jun 3 , 2013", "2013-06-03"),
        ("en", "Jun3,2013", "2013-06-03"),
        ("en", "5\nMarch\n2024", "2024-03-05"),
        ("en", "Sept. 2024", "2024-09"),
        ("en", "June, 2013", "2013-06"),
        ("en", "2024-03-05", "2024-03-05"),
        ("en", "2024/3/5", "2024-03-05"),
        ("en", "05.03.2024", "2024-03-05"),
        ("en", "3/5/2024", "2024-03-05"),
        ("en", "13/5/2024", "2024-05-13"),
        ("en", "03.06.13", "2013-06-03"),
        ("en", "6/3/99", "1999-06-03"),
        ("de", "3. Mai 2013", "2013-05-03"),
        ("de", "Dezember 2012", "2012-12"),
        ("de", "3. 6. 2013", "2013-06-03"),
        ("fr", "1er août 2013", "2013-08-01"),
        ("fr", "03/06/2013", "2013-06-03"),
        ("es", "3 de mayo de 2013", "2013-05-03"),
        ("es", "enero de 2014", "2014-01"),
        ("pl", "3 maja 2013", "2013-05-03"),
        ("ja", "2013年6月3日", "2013-06-03"),
        ("xx", "3. Mai 2013", "2013-05-03"),
    ],
)
def test_a_date_is_found_in_iso_8601(language: str, written: str, normal: str) -> None:
    assert found(f"am {written} etc", language) == [(written, normal)]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "section 1.2.34 of 45/67/8901",
            "it may 2 be",
            "31.02.2013",
            "in 2013 the",
            "may 2013 bring",
        ),
        *(
            "10.1.2.2013",
            "a/3/5/2024",
            "3/5/2024/7",
            "12345678",
            "version 1.2.3",
            "2024-13-01",
            "1/2-3",
        ),
    ],
)
def test_numbers_that_are_no_day_are_no_dates(text: str) -> None:
    assert found(text) == []


def test_a_date_that_can_be_read_in_one_way_decides_about_the_others() -> None:
    assert [normal for _, normal in found("13/5/2024 and 3/5/2024")] == ["2024-05-13", "2024-05-03"]
    assert [normal for _, normal in found("5/13/2024 and 3/5/2024", "fr")] == [
        "2024-05-13",
        "2024-03-05",
    ]


@pytest.mark.parametrize(
    "text", ["1" * 100_000, "1/" * 100_000, "2013 " * 50_000, "1.1." * 100_000]
)
@pytest.mark.timeout(20)
def test_hostile_dates_take_time_in_proportion_to_their_length(text: str) -> None:
    found(text)
